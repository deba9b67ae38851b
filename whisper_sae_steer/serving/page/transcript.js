/** Lists of segments, coloured by how likely their text was made up. */

import { $, element } from "./elements.js";
import { DOUBTFUL, clock, level, percent } from "./format.js";

export const spoken = (result) => result?.segments.filter((segment) => segment.text.trim()) ?? [];

export const riskIn = (segment, timeline) => segment.hallucination_risk ?? riskOf(segment.start, segment.end, timeline);

/** Fill a list with the lines of a result, which `play(seconds)` plays from. */
export function show(name, result, { timeline, duration }, play) {
  const lines = spoken(result).map((segment) => {
    const button = line(segment, riskIn(segment, timeline), result.words ?? [], duration);
    button.addEventListener("click", () => play(segment.start));
    return element("li", "", button);
  });
  if (lines.length) $(name).replaceChildren(...lines);
  else note(name, "No text: nobody speaks here.");
}

/** One remark in the place of lines. */
export function note(name, text, isBusy = false) {
  $(name).replaceChildren(element("li", isBusy ? "note busy" : "note", text));
}

/** A button with a segment's times, text and risk; no button but a line where `tag` says so. */
export function line(segment, risk, words, duration, tag = "button") {
  const made = element(
    tag,
    `line ${level(risk)}`,
    element("time", "", `${clock(segment.start)}–${clock(Math.min(segment.end, duration))}`),
    element("span", "words", ...marked(segment, words)),
    element("span", "risk", risk === null ? "" : `risk ${percent(risk)}`),
  );
  if (tag === "button") made.type = "button";
  made.dataset.start = segment.start;
  made.dataset.end = segment.end;
  return made;
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
  const made = element("u", level(risk), word);
  made.title = `${percent(risk)} likely made up`;
  return made;
}

/** An unsteered segment has no label: near enough to what a steered one gets, from the timeline's log odds. */
function riskOf(start, end, timeline) {
  const values = timeline?.hallucination_risk;
  if (!values?.length) return null;
  const first = Math.min(Math.floor(start / timeline.step), values.length - 1);
  const span = values.slice(first, Math.max(first + 1, Math.ceil(end / timeline.step)));
  const odds = span.map((p) => Math.log(Math.max(p, 1e-5) / Math.max(1 - p, 1e-5)));
  const mean = odds.reduce((sum, x) => sum + x, 0) / odds.length;
  return 1 / (1 + Math.exp(-(mean + Math.min(...odds)) / 2));
}
