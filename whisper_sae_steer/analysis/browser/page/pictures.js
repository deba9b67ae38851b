"use strict";
// What is drawn: log-mel spectrograms, and activation curves over them.

/** Colours from one end to the other, as 256 steps; the same in light and dark. */
function palette(stops) {
  return Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2);
    return stops[low].map((value, j) => Math.round(value + (at - low) * (stops[low + 1][j] - value)));
  });
}
/** From quiet to loud (matplotlib's magma). */
const LOUDNESS = palette([
  [0, 0, 4], [28, 16, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122],
  [229, 80, 100], [251, 135, 97], [254, 194, 135], [252, 253, 191],
]);
/** Quieter than average, average, louder (after Crameri's berlin). */
const DIFFERENCE = palette([
  [158, 203, 255], [74, 144, 200], [34, 84, 118], [18, 42, 58], [16, 16, 18],
  [62, 26, 8], [128, 58, 30], [204, 112, 80], [255, 186, 165],
]);
const SLIDES = !matchMedia("(prefers-reduced-motion: reduce)").matches;

function bytes(base64) {
  return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
}

/** Bytes [frames][bands] as a canvas with one pixel each and low bands at the bottom. */
function melImage(base64, bands, colors) {
  const values = bytes(base64), frames = values.length / bands;
  const canvas = document.createElement("canvas");
  canvas.width = frames;
  canvas.height = bands;
  const pen = canvas.getContext("2d"), image = pen.createImageData(frames, bands);
  for (let t = 0; t < frames; t++) {
    for (let band = 0; band < bands; band++) {
      const to = 4 * ((bands - 1 - band) * frames + t);
      image.data.set(colors[values[t * bands + band]], to);
      image.data[to + 3] = 255;
    }
  }
  pen.putImageData(image, 0, 0);
  return canvas;
}

/** Fit a canvas to its place on the screen; null while it has none. */
function fitted(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  if (!width || !height) return null;
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.font = "11px system-ui, sans-serif";
  return { pen, width, height };
}

function write(pen, text, x, y, align = "left") {
  pen.textAlign = align;
  pen.lineWidth = 3;
  pen.lineJoin = "round";
  pen.strokeStyle = "rgba(0, 0, 0, .7)";
  pen.strokeText(text, x, y);
  pen.fillStyle = "#fff";
  pen.fillText(text, x, y);
}

/** Activations of an excerpt as a line over its spectrogram, the feature's maximum at the top. */
function drawCurve(pen, curve, most, width, height) {
  const up = (value) => height - 2 - (height - 16) * Math.min(1, value / most);
  const across = (i) => (width * (i + 0.5)) / curve.length;
  pen.beginPath();
  pen.moveTo(0, height);
  curve.forEach((value, i) => pen.lineTo(across(i), up(value)));
  pen.lineTo(width, height);
  pen.closePath();
  pen.fillStyle = "rgba(90, 230, 255, .22)";
  pen.fill();
  for (const [color, thick] of [["rgba(0, 0, 0, .55)", 3.5], ["#6ff0ff", 1.75]]) {
    pen.beginPath();
    curve.forEach((value, i) => pen.lineTo(across(i), up(value)));
    pen.strokeStyle = color;
    pen.lineWidth = thick;
    pen.lineJoin = "round";
    pen.stroke();
  }
}

function drawCursor(pen, x, height) {
  pen.fillStyle = "rgba(0, 0, 0, .6)";
  pen.fillRect(x - 2, 0, 4, height);
  pen.fillStyle = "#fff";
  pen.fillRect(x - 1, 0, 2, height);
}

/** The picture of an excerpt, with the place that is heard. */
function drawExcerpt(canvas, image, curve, most, share) {
  const place = fitted(canvas);
  if (!place) return;
  const { pen, width, height } = place;
  pen.drawImage(image, 0, 0, width, height);
  drawCurve(pen, curve, most, width, height);
  if (share !== null) drawCursor(pen, share * width, height);
}

/** The mean picture around peaks, from `first` to `last` seconds, with a mark at 0. */
function drawMean(canvas, image, first, last) {
  const place = fitted(canvas);
  if (!place) return;
  const { pen, width, height } = place;
  pen.drawImage(image, 0, 0, width, height);
  const zero = (width * -first) / (last - first);
  pen.setLineDash([4, 4]);
  pen.strokeStyle = "rgba(255, 255, 255, .7)";
  pen.beginPath();
  pen.moveTo(zero, 0);
  pen.lineTo(zero, height);
  pen.stroke();
  write(pen, `−${(-first).toFixed(1)} s`, 6, height - 7);
  write(pen, "0", zero + 5, height - 7);
  write(pen, `+${last.toFixed(1)} s`, width - 6, height - 7, "right");
  write(pen, "8 kHz", 6, 15);
}

/** Draw a canvas again whenever its size changes. */
const resizing = new ResizeObserver((entries) => {
  for (const { target } of entries) target.redraw?.();
});
