/** What the reader chooses: model, language, strength. */

import { models } from "./api.js";
import { $, fail } from "./elements.js";

let known = [];

/** Ask for the models; a choice of one thing is no choice, and isn't shown. */
export async function loadModels() {
  try {
    known = await models();
  } catch (error) {
    fail(error);
    return;
  }
  const chosen = $("model").value;
  const choices = known.map(({ id, loaded }) => new Option(loaded === false ? `${id} (loads first)` : id, id));
  $("model").replaceChildren(...choices);
  if (known.some(({ id }) => id === chosen)) $("model").value = chosen;
  $("model-choice").hidden = known.length < 2;
  offerLanguages();
}

/** The chosen model's languages, by name; an English-only model leaves none to choose. */
export function offerLanguages() {
  const codes = known.find(({ id }) => id === $("model").value)?.languages ?? [];
  const names = new Intl.DisplayNames([navigator.language, "en"], { type: "language" });
  const options = codes.map((code) => new Option(names.of(code), code));
  options.sort((a, b) => a.text.localeCompare(b.text));
  const chosen = $("language").value;
  $("language").replaceChildren(new Option("detect it", ""), ...options);
  if (codes.includes(chosen)) $("language").value = chosen;
  $("language-choice").hidden = codes.length < 2;
}

/** Whether the chosen model is loaded by its first request only. */
export const isUnloaded = () => known.some(({ id, loaded }) => id === $("model").value && loaded === false);

export const alpha = () => Number($("alpha").value);

/** Model and language as fields; a server with one model is not told which. */
export function chosenFields() {
  const fields = {};
  if (known.length > 1) fields.model = $("model").value;
  if ($("language").value) fields.language = $("language").value;
  return fields;
}
