/** The pictures: of a recording with both transcripts, and of the last half minute heard live. */

import { GUTTER, drawAxis, drawCurve, drawSpans, surface } from "./drawing.js";
import { level } from "./format.js";
import { RATE } from "./sound.js";
import { riskIn, spoken } from "./transcript.js";

const WAVE = 0.42; // share of the height
const SPEECH = { top: 0.45, height: 0.14, label: "speech", color: "--speech" };
const RISK = { top: 0.61, height: 0.14, label: "risk", color: "--risk" };
const PLAIN = { top: 0.78, height: 0.05, label: "unsteered" };
const STEERED = { top: 0.85, height: 0.05, label: "steered" };
const LIVE = { top: 0.04, height: 0.6, label: "speech", color: "--speech" };
const LIVE_TEXT = { top: 0.74, height: 0.1, label: "text" };
const LIVE_SECONDS = 30;

/** A recording {samples, duration, timeline, plain, steered}, played up to `now`. */
export function drawRecording(canvas, recording, now) {
  const { duration = 0, timeline } = recording;
  const on = surface(canvas, 0, duration);
  if (!on) return;
  drawWave(on, recording);
  drawCurve(on, SPEECH, timeline?.speech_prob, timeline?.step);
  drawCurve(on, RISK, timeline?.hallucination_risk, timeline?.step);
  drawSpans(on, PLAIN, coloured(spoken(recording.plain), timeline));
  drawSpans(on, STEERED, coloured(spoken(recording.steered), timeline));
  drawAxis(on);
  if (!duration) return;
  on.pen.fillStyle = on.color("--head");
  on.pen.fillRect(on.across(now) - 1, 0, 2, 0.91 * on.height);
}

/** The end of a live session {speech, step, final, partial, sent}. */
export function drawLive(canvas, { speech, step, final, partial, sent }) {
  const on = surface(canvas, Math.max(0, sent - LIVE_SECONDS), LIVE_SECONDS);
  if (!on) return;
  drawCurve(on, LIVE, speech, step);
  drawSpans(on, LIVE_TEXT, [
    ...coloured(final, null),
    ...partial.map(({ start, end }) => ({ start, end, color: "--line" })),
  ]);
  drawAxis(on);
}

function coloured(segments, timeline) {
  return segments.map((segment) => ({
    start: segment.start,
    end: segment.end,
    color: `--${level(riskIn(segment, timeline)) || "wave"}`,
  }));
}

function drawWave({ pen, width, height, color }, { samples, duration }) {
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
