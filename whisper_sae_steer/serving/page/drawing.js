/** What both pictures are made of: lanes over a stretch of time, on a canvas. */

import { clock } from "./format.js";

export const GUTTER = 68; // pixels for the labels

/**
 * A canvas as {pen, width, height, color, across}, cleared; `across(seconds)` is the pixel at which a moment of
 * the stretch {start, seconds} lies, with `width` pixels for all of it. Null while the canvas can't be seen.
 */
export function surface(canvas, start, seconds) {
  const box = canvas.getBoundingClientRect();
  if (!box.width) return null;
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(box.width * scale);
  canvas.height = Math.round(box.height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.font = "12px system-ui, sans-serif";
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const width = box.width - GUTTER;
  const across = (time) => GUTTER + (seconds ? (width * Math.min(Math.max(time - start, 0), seconds)) / seconds : 0);
  return { pen, width, height: box.height, color, across, start, seconds };
}

/** Where a lane {top, height, label} lies, with its label written. */
function labelled({ pen, height, color }, lane) {
  const top = lane.top * height, tall = lane.height * height;
  pen.fillStyle = color("--quiet");
  pen.textBaseline = "middle";
  pen.fillText(lane.label, 4, top + tall / 2);
  return { top, tall };
}

/** A lane of values from 0 to 1, one each `step` seconds, the first of them at 0. */
export function drawCurve(on, lane, values, step) {
  const { pen, width, color, across } = on, { top, tall } = labelled(on, lane);
  pen.strokeStyle = color("--line");
  pen.strokeRect(GUTTER + 0.5, top + 0.5, width - 1, tall);
  if (!values?.length || !on.seconds) return;
  const first = Math.max(0, Math.floor(on.start / step)), shown = values.slice(first);
  pen.beginPath();
  pen.moveTo(across(first * step), top + tall);
  shown.forEach((value, i) => {
    pen.lineTo(across((first + i) * step), top + tall * (1 - value));
    pen.lineTo(across((first + i + 1) * step), top + tall * (1 - value));
  });
  pen.lineTo(across(values.length * step), top + tall);
  pen.closePath();
  pen.fillStyle = pen.strokeStyle = color(lane.color);
  pen.globalAlpha = 0.3;
  pen.fill();
  pen.globalAlpha = 1;
  pen.stroke();
}

/** A lane of stretches {start, end, color}, such as those with text. */
export function drawSpans(on, lane, spans) {
  const { pen, width, color, across } = on, { top, tall } = labelled(on, lane);
  pen.fillStyle = color("--line");
  pen.fillRect(GUTTER, top + tall / 2, width, 1);
  if (!on.seconds) return;
  for (const span of spans) {
    if (span.end < on.start) continue;
    const left = across(span.start);
    pen.fillStyle = color(span.color);
    pen.fillRect(left, top, Math.max(2, across(span.end) - left - 1), tall);
  }
}

/** Times below the lanes. */
export function drawAxis({ pen, width, height, color, across, start, seconds }) {
  if (!seconds) return;
  const steps = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800];
  const step = steps.find((each) => (width * each) / seconds >= 56) ?? 3600;
  pen.fillStyle = color("--quiet");
  pen.textBaseline = "bottom";
  for (let time = Math.ceil(start / step) * step; time <= start + seconds; time += step) {
    const x = across(time), text = clock(time, step < 1);
    pen.fillRect(x, height - 21, 1, 4);
    if (x + pen.measureText(text).width <= GUTTER + width) pen.fillText(text, x, height);
  }
}
