/** Playing a recording: button, picture and keys move one position. */

import { GUTTER } from "./drawing.js";
import { $ } from "./elements.js";
import { clock } from "./format.js";

const audio = $("audio"), chart = $("chart"), canvas = $("canvas");
let duration = 0;

/** The position in seconds. */
export const now = () => audio.currentTime;

export function load(blob) {
  if (audio.src) URL.revokeObjectURL(audio.src);
  audio.src = URL.createObjectURL(blob);
}

export function setDuration(seconds) {
  duration = seconds;
  chart.setAttribute("aria-valuemax", duration.toFixed(1));
  showPosition();
}

export function playFrom(seconds) {
  seek(seconds);
  audio.play();
}

export const pause = () => audio.pause();

/** Listen to button, picture and keys; `moved` is called whenever the position is another. */
export function wire(moved) {
  const changed = () => {
    showPosition();
    moved();
  };
  const follow = () => {
    changed();
    if (!audio.paused) requestAnimationFrame(follow);
  };
  $("play").addEventListener("click", toggle);
  for (const type of ["play", "pause"]) {
    audio.addEventListener(type, () => {
      $("play").textContent = audio.paused ? "▶" : "❚❚";
      $("play").setAttribute("aria-label", audio.paused ? "Play" : "Pause");
      follow();
    });
  }
  for (const type of ["seeking", "seeked", "loadedmetadata", "ended"]) audio.addEventListener(type, changed);
  chart.addEventListener("pointerdown", (event) => {
    chart.setPointerCapture(event.pointerId);
    pointed(event);
  });
  chart.addEventListener("pointermove", (event) => event.buttons && pointed(event));
  chart.addEventListener("keydown", (event) => {
    if (!KEYS[event.key]) return;
    event.preventDefault();
    KEYS[event.key]();
  });
}

const KEYS = {
  ArrowLeft: () => seek(now() - 1),
  ArrowRight: () => seek(now() + 1),
  PageDown: () => seek(now() - 10),
  PageUp: () => seek(now() + 10),
  Home: () => seek(0),
  End: () => seek(duration),
  " ": toggle,
};

function toggle() {
  if (audio.paused) audio.play();
  else audio.pause();
}

function seek(seconds) {
  audio.currentTime = Math.max(0, Math.min(seconds, duration));
  showPosition();
}

function pointed(event) {
  const { left, width } = canvas.getBoundingClientRect();
  seek(((event.clientX - left - GUTTER) / (width - GUTTER)) * duration);
}

function showPosition() {
  $("clock").textContent = `${clock(now(), true)} / ${duration ? clock(duration, true) : "–"}`;
  chart.setAttribute("aria-valuenow", now().toFixed(1));
  chart.setAttribute("aria-valuetext", clock(now()));
}
