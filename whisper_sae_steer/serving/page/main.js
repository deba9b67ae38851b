/** The page: what its buttons and fields do. */

import { useKey } from "./api.js";
import { offer } from "./downloads.js";
import { $, fail } from "./elements.js";
import { clock } from "./format.js";
import * as listening from "./listening.js";
import { alpha, loadModels, offerLanguages } from "./options.js";
import * as player from "./player.js";
import { close, open, recording, showPosition, steer } from "./recording.js";
import { startRecording } from "./sound.js";

const SAMPLE = "page/sample.ogg";
const again = () => recording && open(recording.blob, recording.name);
let recorder = null;

$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) open(file, file.name);
  event.target.value = "";
});
$("sample").addEventListener("click", async () => {
  const response = await fetch(SAMPLE).catch(() => null);
  if (response?.ok) open(await response.blob(), "sample.ogg");
  else fail(new Error("The server can't be reached. Is it still running?"));
});
$("listen").addEventListener("click", listening.toggleLive);
$("record").addEventListener("click", async () => {
  if (recorder) {
    const { stop, timer } = recorder;
    recorder = null;
    clearInterval(timer);
    showRecording(false);
    const made = await stop();
    if (made) open(made, "recording.wav");
    else fail(new Error("Nothing was recorded."));
    return;
  }
  fail(null);
  try {
    const { stop } = await startRecording(), started = Date.now();
    recorder = { stop, timer: setInterval(() => showRecording(true, (Date.now() - started) / 1000), 200) };
    showRecording(true);
  } catch (error) {
    fail(error);
  }
});

function showRecording(on, seconds = 0) {
  $("record").setAttribute("aria-pressed", on);
  $("record").textContent = on ? `Stop (${clock(seconds)})` : "Record";
}

for (const type of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", type === "dragover");
  });
}
document.addEventListener("drop", (event) => {
  const [file] = event.dataTransfer.files;
  if (file) open(file, file.name);
  else fail(new Error("That was no file."));
});

$("model").addEventListener("change", () => {
  offerLanguages();
  again();
});
$("language").addEventListener("change", again);
$("alpha").addEventListener("input", () => {
  $("alpha-value").textContent = alpha().toFixed(1);
  $("steered-alpha").textContent = `α = ${alpha().toFixed(1)}`;
});
$("alpha").addEventListener("change", () => recording && steer());
$("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  useKey($("key").value);
  $("key-form").hidden = true;
  const held = recording;
  close();
  await loadModels();
  if (held) open(held.blob, held.name);
});

const stem = () => recording.name.replace(/\.[^.]*$/, "");
offer($("plain-downloads"), "unsteered transcript", () => ({ name: `${stem()}-unsteered`, result: recording.plain }));
offer($("steered-downloads"), "steered transcript", () => ({ name: stem(), result: recording.steered }));
offer($("live-downloads"), "transcript", () => ({ name: "live", result: listening.transcript() }));

player.wire(showPosition);
new ResizeObserver(showPosition).observe($("canvas"));
new ResizeObserver(listening.draw).observe($("live-canvas"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  showPosition();
  listening.draw();
});
loadModels();
