/** A recording: opened, heard by the gate, transcribed unsteered and steered. */

import { ask } from "./api.js";
import { $, fail } from "./elements.js";
import { percent, size } from "./format.js";
import { alpha, chosenFields, isUnloaded, loadModels } from "./options.js";
import { drawRecording } from "./picture.js";
import * as player from "./player.js";
import { RATE, decode } from "./sound.js";
import { note, show } from "./transcript.js";

/** {blob, name, samples, duration, timeline, plain, steered, controller}; null before there is one. */
export let recording = null;

/** Show a recording and have it transcribed both ways. */
export async function open(blob, name) {
  close();
  const mine = (recording = { blob, name, duration: 0, controller: new AbortController() });
  $("name").textContent = `${name} · ${size(blob.size)}`;
  fail(null);
  $("live").hidden = true;
  $("result").hidden = false;
  player.load(blob);
  mine.samples = await decode(blob);
  if (mine !== recording) return;
  lengthIs(mine, mine.samples ? mine.samples.length / RATE : 0);
  await analyse(mine);
}

/** Let go of the recording: nothing more is asked or played. */
export function close() {
  recording?.controller.abort();
  player.pause();
  recording = null;
}

/** Transcribe at the slider's strength; the last wish counts. */
export async function steer() {
  const mine = recording;
  mine.steering?.abort();
  mine.steering = new AbortController();
  mine.controller.signal.addEventListener("abort", () => mine.steering.abort());
  await column(mine, "steered", alpha(), mine.steering.signal);
}

async function analyse(mine) {
  busy("plain");
  busy("steered");
  try {
    mine.timeline = await ask("v1/audio/timeline", mine, chosenFields(), mine.controller.signal);
    lengthIs(mine, mine.timeline.duration);
  } catch (error) {
    if (error.name === "AbortError") return;
    fail(error);
  }
  if (mine !== recording) return;
  await Promise.all([column(mine, "plain", 0, mine.controller.signal), steer()]);
  if (isUnloaded()) await loadModels();
}

async function column(mine, name, strength, signal) {
  busy(name);
  // with words where they carry a risk: what is unsteered doesn't
  const fields = { ...chosenFields(), response_format: "verbose_json", steer_alpha: strength };
  if (strength) fields["timestamp_granularities[]"] = ["segment", "word"];
  try {
    const result = await ask("v1/audio/transcriptions", mine, fields, signal);
    if (mine !== recording) return;
    mine[name] = result;
    lengthIs(mine, Math.max(mine.duration, result.duration));
    show(name, result, mine, player.playFrom);
    $(`${name}-downloads`).hidden = false;
  } catch (error) {
    if (error.name === "AbortError" || mine !== recording) return;
    note(name, "No transcript.");
    fail(error);
  }
  tellStatus();
}

function busy(name) {
  note(name, "Transcribing", true);
  $(`${name}-downloads`).hidden = true;
  tellStatus();
}

function tellStatus() {
  $("status").textContent = document.querySelector("#result .busy") ? "Listening…" : "Done.";
}

function lengthIs(mine, seconds) {
  mine.duration = seconds;
  player.setDuration(seconds);
  showPosition();
}

/** The picture, the readout and the line at the player's position. */
export function showPosition() {
  if (!recording) return;
  const now = player.now(), { timeline } = recording;
  if (timeline?.speech_prob.length) {
    const i = Math.min(Math.floor(now / timeline.step), timeline.speech_prob.length - 1);
    const { speech_prob: speech, hallucination_risk: risk } = timeline;
    $("readout").textContent = `speech ${percent(speech[i])} · risk ${percent(risk[i])}`;
  }
  for (const line of document.querySelectorAll("#result .line")) {
    line.classList.toggle("now", now >= Number(line.dataset.start) && now < Number(line.dataset.end));
  }
  drawRecording($("canvas"), recording, now);
}
