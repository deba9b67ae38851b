"use strict";

const $ = (id) => document.getElementById(id);
const player = $("audio"), chart = $("chart"), canvas = $("canvas");
const RATE = 16000;
const DOUBTFUL = 0.2, HIGH = 0.5; // hallucination risk

/** The recording at hand; null before there is one. */
let recording = null; // {blob, name, samples, duration, timeline, plain, steered, task}
let key = "";
let recorder = null;

class Refused extends Error {}

// --- asking the server ----------------------------------------------------------------------------

async function ask(path, fields, signal) {
  const form = new FormData();
  form.append("file", recording.blob, recording.name);
  for (const [name, values] of Object.entries(fields)) for (const value of [values].flat()) form.append(name, value);
  let response;
  for (let attempt = 0; ; attempt++) {
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    try {
      response = await fetch(path, { method: "POST", body: form, headers, signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused("The server can't be reached. Is it still running?");
    }
    if (response.status !== 429 || attempt === 5) break;
    await pause(1000 * Number(response.headers.get("Retry-After") || 1), signal);
  }
  if (response.ok) return response.json();
  if (response.status === 401) {
    $("key-form").hidden = false;
    $("key").focus();
  }
  const body = await response.json().catch(() => null);
  throw new Refused(body?.error?.message ?? `The server answered with status ${response.status}.`);
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("", "AbortError"));
    });
  });
}

/** With words where they carry a risk: what is unsteered doesn't. */
function transcribe(alpha, signal) {
  const fields = { response_format: "verbose_json", steer_alpha: alpha };
  if (alpha) fields["timestamp_granularities[]"] = ["segment", "word"];
  return ask("v1/audio/transcriptions", fields, signal);
}

// --- a recording ----------------------------------------------------------------------------------

/** Show a recording and have it transcribed both ways. */
async function open(blob, name) {
  recording?.controller.abort();
  player.pause();
  recording = { blob, name, controller: new AbortController() };
  $("name").textContent = `${name} · ${size(blob.size)}`;
  fail(null);
  $("result").hidden = false;
  player.src = URL.createObjectURL(blob);
  const mine = recording;
  recording.samples = await decode(blob);
  if (mine !== recording) return;
  recording.duration = recording.samples ? recording.samples.length / RATE : 0;
  draw();
  await analyse();
}

async function analyse() {
  const mine = recording, { signal } = mine.controller;
  const heard = ask("v1/audio/timeline", {}, signal).then(
    (timeline) => {
      mine.timeline = timeline;
      mine.duration = timeline.duration;
      draw();
      show("plain", mine.plain);
    },
    (error) => {
      if (error.name !== "AbortError") mine.untimed = error.message;
    },
  );
  busy("plain");
  busy("steered");
  await heard;
  if (mine !== recording) return;
  if (mine.untimed) fail(mine.untimed);
  await Promise.all([column("plain", 0), steer()]);
}

/** Transcribe at the slider's strength; the last wish counts. */
async function steer() {
  const mine = recording;
  mine.steering?.abort();
  mine.steering = new AbortController();
  mine.controller.signal.addEventListener("abort", () => mine.steering.abort());
  await column("steered", Number($("alpha").value), mine.steering.signal);
}

async function column(name, alpha, signal = recording.controller.signal) {
  const mine = recording;
  busy(name);
  try {
    const result = await transcribe(alpha, signal);
    if (mine !== recording) return;
    mine[name] = result;
    mine.duration = Math.max(mine.duration, result.duration);
    show(name, result);
    draw();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (mine !== recording) return;
    note(name, "No transcript.");
    fail(error.message);
  }
}

/** Mono samples at 16 kHz, or null if the browser knows no such format. */
async function decode(blob) {
  try {
    const context = new OfflineAudioContext(1, 1, RATE);
    const buffer = await context.decodeAudioData(await blob.arrayBuffer());
    const samples = new Float32Array(buffer.length);
    for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
      const data = buffer.getChannelData(channel);
      for (let i = 0; i < data.length; i++) samples[i] += data[i] / buffer.numberOfChannels;
    }
    return samples;
  } catch {
    return null;
  }
}

/** 16-bit mono WAV; what a browser records has no length, so it can't be sought in. */
function wav(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, RATE, true);
  view.setUint32(28, 2 * RATE, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, i) => view.setInt16(44 + 2 * i, 32767 * Math.max(-1, Math.min(1, value)), true));
  return new Blob([view.buffer], { type: "audio/wav" });
}

async function record() {
  if (recorder) {
    recorder.stop();
    return;
  }
  fail(null);
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false } });
  } catch (error) {
    fail(
      navigator.mediaDevices
        ? `No microphone: ${error.message || error.name}. Allow it for this page, or choose a file.`
        : "Browsers give the microphone to pages on https or localhost only. Choose a file instead.",
    );
    return;
  }
  const chunks = [];
  const started = Date.now();
  recorder = new MediaRecorder(stream);
  recorder.ondataavailable = (event) => chunks.push(event.data);
  recorder.onstop = async () => {
    stream.getTracks().forEach((track) => track.stop());
    clearInterval(timer);
    recorder = null;
    recordButton(false);
    const samples = await decode(new Blob(chunks));
    if (!samples?.length) fail("Nothing was recorded.");
    else open(wav(samples), "recording.wav");
  };
  const timer = setInterval(() => recordButton(true, (Date.now() - started) / 1000), 200);
  recordButton(true, 0);
  recorder.start();
}

function recordButton(on, seconds = 0) {
  $("record").setAttribute("aria-pressed", on);
  $("record").textContent = on ? `Stop (${clock(seconds)})` : "Record";
}

// --- transcripts ----------------------------------------------------------------------------------

const spoken = (result) => result?.segments.filter((segment) => segment.text.trim()) ?? [];
const riskIn = (segment) => segment.hallucination_risk ?? riskOf(segment.start, segment.end);
const percent = (share) => `${Math.round(100 * share)}%`;
const level = (risk) => (risk === null ? "" : risk >= HIGH ? "high" : risk >= DOUBTFUL ? "middle" : "low");

function show(name, result) {
  if (!result) return;
  const lines = spoken(result);
  if (!lines.length) {
    note(name, "No text: nobody speaks here.");
    return;
  }
  $(name).replaceChildren(...lines.map((segment) => line(segment, result.words ?? [])));
  status();
}

function line(segment, words) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  const risk = riskIn(segment);
  button.className = level(risk);
  button.dataset.start = segment.start;
  button.dataset.end = segment.end;
  const parts = [
    ["time", "", `${clock(segment.start)}–${clock(Math.min(segment.end, recording.duration))}`],
    ["span", "words", ...marked(segment, words)],
    ["span", "risk", risk === null ? "" : `risk ${percent(risk)}`],
  ];
  for (const [tag, name, ...content] of parts) {
    const part = document.createElement(tag);
    part.className = name;
    part.append(...content);
    button.append(part);
  }
  button.addEventListener("click", () => {
    seek(segment.start);
    player.play();
  });
  item.append(button);
  return item;
}

/** A segment's text, in which doubtful words are underlined: strings and elements. */
function marked(segment, words) {
  const text = segment.text.trim(), parts = [];
  let done = 0;
  for (const { word, start, end, hallucination_risk: risk } of words) {
    const at = text.indexOf(word, done);
    if (start < segment.start || end > segment.end || at < 0) continue;
    parts.push(text.slice(done, at), risk >= DOUBTFUL ? underlined(word, risk) : word);
    done = at + word.length;
  }
  return [...parts, text.slice(done)];
}

function underlined(word, risk) {
  const element = document.createElement("u");
  element.className = level(risk);
  element.title = `${percent(risk)} likely made up`;
  element.textContent = word;
  return element;
}

/** An unsteered segment has no label: near enough to what a steered one gets, from the timeline's log odds. */
function riskOf(start, end) {
  const values = recording.timeline?.hallucination_risk;
  if (!values?.length) return null;
  const { step } = recording.timeline;
  const first = Math.min(Math.floor(start / step), values.length - 1);
  const span = values.slice(first, Math.max(first + 1, Math.ceil(end / step)));
  const odds = span.map((p) => Math.log(Math.max(p, 1e-5) / Math.max(1 - p, 1e-5)));
  const mean = odds.reduce((sum, x) => sum + x, 0) / odds.length;
  return 1 / (1 + Math.exp(-(mean + Math.min(...odds)) / 2));
}

function note(name, text, isBusy = false) {
  const item = document.createElement("li");
  item.className = isBusy ? "note busy" : "note";
  item.textContent = text;
  $(name).replaceChildren(item);
  status();
}

const busy = (name) => note(name, "Transcribing", true);

function status() {
  const working = document.querySelector(".busy") !== null;
  $("status").textContent = working ? "Listening…" : recording ? "Done." : "";
}

function fail(message) {
  $("error").hidden = !message;
  $("error").textContent = message ?? "";
}

// --- the picture ----------------------------------------------------------------------------------

const WAVE = 0.42; // share of the height
const LANES = [
  { top: 0.45, height: 0.14, label: "speech", data: "speech_prob", color: "--speech" },
  { top: 0.61, height: 0.14, label: "risk", data: "hallucination_risk", color: "--risk" },
];
const TEXTS = [
  { top: 0.78, height: 0.05, label: "unsteered", data: "plain" },
  { top: 0.85, height: 0.05, label: "steered", data: "steered" },
];
const GUTTER = 68; // pixels for the labels

function draw() {
  const { width, height } = canvas.getBoundingClientRect();
  if (!width || !recording) return;
  const duration = recording.duration || 0;
  $("clock").textContent = `${clock(player.currentTime, true)} / ${clock(duration, true)}`;
  chart.setAttribute("aria-valuemax", duration.toFixed(1));
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  pen.font = "12px system-ui, sans-serif";
  drawWave(pen, width - GUTTER, height, color);
  for (const lane of LANES) drawLane(pen, lane, width - GUTTER, height, color);
  for (const lane of TEXTS) drawText(pen, lane, width - GUTTER, height, color);
  drawAxis(pen, width - GUTTER, height, color);
  if (recording.duration) {
    pen.fillStyle = color("--head");
    pen.fillRect(GUTTER + ((width - GUTTER) * player.currentTime) / recording.duration - 1, 0, 2, 0.91 * height);
  }
}

function drawWave(pen, width, height, color) {
  const { samples, duration } = recording;
  const middle = (WAVE * height) / 2;
  pen.fillStyle = color("--quiet");
  if (!samples) {
    pen.fillText("This browser can't draw or play this format.", GUTTER + 8, middle);
    return;
  }
  const loudest = samples.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-3);
  pen.fillStyle = color("--wave");
  const each = (duration * RATE) / width;
  for (let x = 0; x < width; x++) {
    let low = 0, high = 0;
    const end = Math.min(samples.length, Math.floor((x + 1) * each));
    for (let i = Math.floor(x * each); i < end; i++) {
      if (samples[i] < low) low = samples[i];
      else if (samples[i] > high) high = samples[i];
    }
    const top = (high / loudest) * middle, bottom = (-low / loudest) * middle;
    pen.fillRect(GUTTER + x, middle - top, 1, Math.max(1, top + bottom));
  }
}

/** Where a lane lies, with its label written. */
function labelled(pen, lane, height, color) {
  const top = lane.top * height, tall = lane.height * height;
  pen.fillStyle = color("--quiet");
  pen.textBaseline = "middle";
  pen.fillText(lane.label, 4, top + tall / 2);
  return { top, tall };
}

function drawLane(pen, lane, width, height, color) {
  const { top, tall } = labelled(pen, lane, height, color);
  pen.strokeStyle = color("--line");
  pen.strokeRect(GUTTER + 0.5, top + 0.5, width - 1, tall);
  const values = recording.timeline?.[lane.data];
  if (!values || !recording.duration) return;
  const across = (index) => GUTTER + (width * Math.min(index * recording.timeline.step, recording.duration)) / recording.duration;
  pen.beginPath();
  pen.moveTo(GUTTER, top + tall);
  values.forEach((value, i) => {
    pen.lineTo(across(i), top + tall * (1 - value));
    pen.lineTo(across(i + 1), top + tall * (1 - value));
  });
  pen.lineTo(across(values.length), top + tall);
  pen.closePath();
  pen.fillStyle = pen.strokeStyle = color(lane.color);
  pen.globalAlpha = 0.3;
  pen.fill();
  pen.globalAlpha = 1;
  pen.stroke();
}

/** Where a transcript has text. */
function drawText(pen, lane, width, height, color) {
  const { top, tall } = labelled(pen, lane, height, color);
  pen.fillStyle = color("--line");
  pen.fillRect(GUTTER, top + tall / 2, width, 1);
  if (!recording.duration) return;
  for (const segment of spoken(recording[lane.data])) {
    const left = (width * segment.start) / recording.duration;
    const right = (width * Math.min(segment.end, recording.duration)) / recording.duration;
    pen.fillStyle = color(`--${level(riskIn(segment)) || "wave"}`);
    pen.fillRect(GUTTER + left, top, Math.max(2, right - left - 1), tall);
  }
}

function drawAxis(pen, width, height, color) {
  const { duration } = recording;
  if (!duration) return;
  const steps = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800];
  const step = steps.find((each) => (width * each) / duration >= 56) ?? 3600;
  pen.fillStyle = color("--quiet");
  pen.textBaseline = "bottom";
  for (let time = 0; time <= duration; time += step) {
    const x = GUTTER + (width * time) / duration;
    pen.fillRect(x, 0.92 * height, 1, 3);
    const text = clock(time, step < 1);
    if (x + pen.measureText(text).width <= GUTTER + width) pen.fillText(text, x, height);
  }
}

// --- playing and seeking --------------------------------------------------------------------------

function clock(seconds, tenths = false) {
  const whole = Math.floor(seconds), fraction = tenths ? `.${Math.floor(10 * (seconds - whole))}` : "";
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}${fraction}`;
}

const size = (bytes) => (bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

function seek(seconds) {
  player.currentTime = Math.max(0, Math.min(seconds, recording?.duration ?? 0));
  moved();
}

function moved() {
  if (!recording) return;
  const now = player.currentTime, { timeline } = recording;
  chart.setAttribute("aria-valuenow", now.toFixed(1));
  chart.setAttribute("aria-valuetext", clock(now));
  if (timeline?.speech_prob.length) {
    const i = Math.min(Math.floor(now / timeline.step), timeline.speech_prob.length - 1);
    const { speech_prob: speech, hallucination_risk: risk } = timeline;
    $("readout").textContent = `speech ${percent(speech[i])} · risk ${percent(risk[i])}`;
  }
  for (const button of document.querySelectorAll(".segments button")) {
    button.classList.toggle("now", now >= Number(button.dataset.start) && now < Number(button.dataset.end));
  }
  draw();
}

function follow() {
  moved();
  if (!player.paused) requestAnimationFrame(follow);
}

function pointed(event) {
  const { left, width } = canvas.getBoundingClientRect();
  seek(((event.clientX - left - GUTTER) / (width - GUTTER)) * recording.duration);
}

const toggle = () => (player.paused ? player.play() : player.pause());

const KEYS = {
  ArrowLeft: () => seek(player.currentTime - 1),
  ArrowRight: () => seek(player.currentTime + 1),
  PageDown: () => seek(player.currentTime - 10),
  PageUp: () => seek(player.currentTime + 10),
  Home: () => seek(0),
  End: () => seek(recording.duration),
  " ": toggle,
};

// --- wiring ---------------------------------------------------------------------------------------

$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) open(file, file.name);
  event.target.value = "";
});
$("record").addEventListener("click", record);
for (const type of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", type === "dragover");
  });
}
document.addEventListener("drop", (event) => {
  const [file] = event.dataTransfer.files;
  if (file) open(file, file.name);
  else fail("That was no file.");
});
$("alpha").addEventListener("input", () => {
  $("alpha-value").textContent = Number($("alpha").value).toFixed(1);
  $("steered-alpha").textContent = `α = ${Number($("alpha").value).toFixed(1)}`;
});
$("alpha").addEventListener("change", () => recording && steer());
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value;
  $("key-form").hidden = true;
  if (recording) open(recording.blob, recording.name);
});
$("play").addEventListener("click", toggle);
for (const type of ["play", "pause"]) {
  player.addEventListener(type, () => {
    $("play").textContent = player.paused ? "▶" : "❚❚";
    $("play").setAttribute("aria-label", player.paused ? "Play" : "Pause");
    follow();
  });
}
for (const type of ["seeked", "loadedmetadata", "ended"]) player.addEventListener(type, moved);
chart.addEventListener("pointerdown", (event) => {
  chart.setPointerCapture(event.pointerId);
  pointed(event);
});
chart.addEventListener("pointermove", (event) => event.buttons && pointed(event));
chart.addEventListener("keydown", (event) => {
  if (!recording || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});
new ResizeObserver(draw).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
