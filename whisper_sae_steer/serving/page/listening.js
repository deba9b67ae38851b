/** The page while it listens live: the gate's curve, final text, and text that may still change. */

import { $, element, fail } from "./elements.js";
import { clock } from "./format.js";
import { sentences, startLive } from "./live.js";
import { alpha, chosenFields } from "./options.js";
import { drawLive } from "./picture.js";
import * as recording from "./recording.js";
import { line } from "./transcript.js";

const BEHIND = 3; // seconds that the text may be late without a word about it
let session = null, running = null, starting = false;

/** What was said so far, as an answer of the server has it. */
export const transcript = () => {
  const segments = sentences(session.final);
  return { text: session.final.map(({ text }) => text).join("").trim(), segments };
};

/** Start to listen, or stop. */
export async function toggleLive() {
  if (starting) return;
  if (running) {
    running.stop();
    $("status").textContent = "Finishing…";
    return;
  }
  fail(null);
  starting = true;
  try {
    const options = { ...chosenFields(), steer_alpha: alpha(), min_chunk: 0.5 };
    running = await startLive(options, changed, ended);
    recording.close();
    $("live-lines").replaceChildren();
    $("name").textContent = "microphone";
    $("result").hidden = true;
    $("live").hidden = false;
    button(true);
  } catch (error) {
    fail(error);
  } finally {
    starting = false;
  }
}

function changed(now) {
  session = now;
  const lines = sentences(now.final), list = $("live-lines");
  lines.forEach((sentence, i) => {
    const item = list.children[i];
    if (item?.dataset.text === sentence.text) return;
    const made = element("li", "", line(sentence, sentence.hallucination_risk, [], sentence.end, "div"));
    made.dataset.text = sentence.text;
    if (item) item.replaceWith(made);
    else list.append(made);
  });
  const partial = now.partial.map(({ text }) => text).join("").trim();
  $("live-partial").hidden = !partial;
  $("live-partial-text").textContent = partial;
  $("live-downloads").hidden = !lines.length;
  const behind = now.sent - now.heard;
  if (running) {
    const late = behind > BEHIND ? ` The text is ${Math.round(behind)} s behind.` : "";
    $("live-clock").textContent = `${clock(now.sent)}${late}`;
  }
  draw();
}

function ended(error) {
  running = null;
  button(false);
  $("status").textContent = error ? "" : "Done.";
  fail(error);
}

function button(on) {
  $("listen").setAttribute("aria-pressed", on);
  $("listen").textContent = on ? "Stop" : "Listen live";
  if (on) $("status").textContent = "Listening…";
}

export function draw() {
  if (session) drawLive($("live-canvas"), session);
}
