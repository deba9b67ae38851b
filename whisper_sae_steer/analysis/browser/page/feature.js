"use strict";
// The page of one feature: figures, labels, steering, mel images, excerpts to hear, related features.

const FRAME = 0.02; // seconds

// --- building elements: data only ever becomes text ------------------------------------------------

/** An element with attributes (a function listens, `text` is its text) and children. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const known = (value) => typeof value === "number" && Number.isFinite(value);
const places = (value, digits) => (value < 0 ? "−" : "") + Math.abs(value).toFixed(digits);
/** How numbers are written; one that is not known is a dash. */
const FORMATS = {
  percent: (value) => value === 0 ? "0%" : `${places(100 * value, Math.abs(value) < 0.0995 ? (Math.abs(value) < 0.000995 ? 3 : 2) : 1)}%`,
  number: (value) => places(value, Math.abs(value) < 100 ? 2 : 0),
  fine: (value) => places(value, 3),
  signed: (value) => (Math.abs(value) < 0.0005 ? "0.000" : (value > 0 ? "+" : "") + places(value, 3)),
  count: (value) => Math.round(value).toLocaleString("en"),
  id: (value) => `#${value}`,
};
const written = (value, format) => (known(value) ? FORMATS[format](value) : "–");

function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}.${Math.floor(10 * (seconds - whole))}`;
}

function section(title, note, ...children) {
  return make("section", {}, make("h3", { text: title }), note && make("p", { class: "quiet note", text: note }), ...children);
}

function table(head, rows) {
  const line = (cells, tag) =>
    make("tr", {}, ...cells.map((cell) => (cell instanceof Node ? make(tag, {}, cell) : make(tag, { text: cell }))));
  return make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "table" },
    make("table", {}, make("thead", {}, line(head, "th")), make("tbody", {}, ...rows.map((row) => line(row, "td")))));
}

/** What is said where an analysis gives nothing for a feature: it wasn't run, or was and left it out. */
function missing(name, leftOut = "not among the features that were measured") {
  const analysis = browser.index.analyses.find((one) => one.name === name);
  if (analysis.ran) return make("p", { class: "quiet", text: leftOut });
  return make("p", { class: "quiet" }, "not measured: run ", make("code", { text: `whisper-sae-steer analyze ${name}` }));
}

const link = (id) => make("a", { href: `#feature=${id}`, text: `#${id}` });

// --- the parts of the page --------------------------------------------------------------------------

function heading(feature, place) {
  const step = (by, name, sign) =>
    make("button", { type: "button", "aria-label": name, title: name, text: sign, click: () => browser.walk(by) });
  return make("div", { class: "heading" },
    make("a", { href: "#", class: "back", text: "‹ All features" }),
    make("div", { class: "steps" }, step(-1, "Previous feature in the list", "↑"), step(1, "Next feature in the list", "↓")),
    make("h2", { tabindex: "-1" }, make("span", { class: "quiet", text: `Feature ${feature.id} ` }),
      make("span", { text: browser.index.features.title[place] })));
}

function figures(feature) {
  const best = feature.labels?.[0];
  const cards = [
    ["fires in", written(feature.rate, "percent"), `${written(feature.frames, "count")} frames of 20 ms`],
    ["activation", written(feature.max, "number"), `at most; mean ${written(feature.mean, "number")} where it fires`],
    ["threshold", written(feature.threshold, "number"), "it fires above this"],
    best && ["best label", written(best.f1, "number"), `F1 for “${best.label}”`],
    feature.description && ["description", written(feature.description.score, "number"), feature.description.note],
    feature.stability && ["stability", written(feature.stability.iou, "number"), feature.stability.note],
    feature.steering && ["P(no speech)", written(feature.steering.effect, "signed"), "when it is added to every frame"],
  ];
  return make("dl", { class: "figures" }, ...cards.filter(Boolean).map(([name, value, note]) =>
    make("div", {}, make("dt", { text: name }), make("dd", { text: value }), make("dd", { class: "quiet", text: note }))));
}

function unmeasured(feature) {
  const absent = [["description", "describe"], ["stability", "stability"]].filter(([key]) => !feature[key]);
  return absent.map(([key, name]) => {
    const line = missing(name);
    line.prepend(`${key}: `);
    return line;
  });
}

function domains(feature) {
  const most = Math.max(...feature.domains.map((domain) => domain.rate ?? 0), 1e-9);
  const bars = feature.domains.map(({ name, rate, seconds }) => {
    const bar = make("div", { class: `bar ${name}` });
    bar.style.width = `${(100 * (rate ?? 0)) / most}%`;
    return make("li", { title: `of ${written(seconds / 60, "number")} minutes` },
      make("span", { text: name }), make("div", { class: "track" }, bar), make("span", { text: written(rate, "percent") }));
  });
  const rows = feature.where.map(({ label, rate, lift }) => [label, written(rate, "percent"), `${written(lift, "number")} ×`]);
  const special = feature.specialised;
  return section("Where it fires", "Share of each domain's frames, and the labels that say most about it.",
    make("ul", { class: "bars" }, ...bars),
    special && make("p", { class: "quiet", text: `Specialised in: ${special.frames} by frames, ${special.windows} by windows.` }),
    table(["label", "of its frames", "the usual"], rows));
}

function labels(feature) {
  const note = "How well it tells recordings of a label from all others.";
  if (!feature.labels) return section("Best labels", note, missing("search", "not among the best features of any label"));
  const rows = feature.labels.map(({ label, f1, ap, threshold }) =>
    [label, written(f1, "number"), written(ap, "number"), written(threshold, "number")]);
  return section("Best labels", note, table(["label", "F1", "average precision", "threshold"], rows));
}

function steering(feature) {
  const title = "What steering it does";
  if (!feature.steering) return section(title, null, missing("hallucination"));
  const rows = feature.steering.rows.map(({ what, values, text }) => [what, ...values.map((value) => written(value, "signed")), text]);
  return section(title, feature.steering.note, table(["feature", ...feature.steering.head], rows));
}

function meanMel(feature) {
  const { data, first, last, words } = feature.mean_mel;
  const image = melImage(data, browser.index.bands, DIFFERENCE);
  const title = "What it sounds like on average";
  const canvas = make("canvas", { class: "mean", role: "img", "aria-label": `${title}: ${words ?? "mean log-mel"}` });
  canvas.redraw = () => drawMean(canvas, image, first, last);
  const note = `Log-mel around its activations, against all audio: red is louder, blue quieter (±30 dB).${words ? ` In words: ${words}.` : ""}`;
  return section(title, note, make("div", { class: "picture" }, canvas));
}

function related(feature) {
  const name = (id) => browser.index.features.title[browser.place(id)];
  const list = (title, note, pairs) =>
    section(title, note, pairs.length
      ? make("ul", { class: "related" }, ...pairs.map(([id, value]) =>
          make("li", {}, link(id), make("span", { class: "name", text: name(id) }), make("span", { class: "value", text: written(value, "number") }))))
      : make("p", { class: "quiet", text: "none" }));
  return make("div", { class: "pair" },
    list("Fires together with", "Frames in which both fire, of those in which either does.", feature.together),
    list("Points the same way as", "Cosine of the decoder directions.", feature.near));
}

// --- excerpts ----------------------------------------------------------------------------------------

function excerpts(feature, mels) {
  const title = "Where it is strongest";
  if (!feature.excerpts) {
    return section(title, null, make("p", { class: "quiet" }, "no excerpts in this folder: make it again with ",
      make("code", { text: `--features ${feature.id}` })));
  }
  const note = `The line is its activation, up to ${written(feature.max, "number")} at the top. Click a picture to listen from there.`;
  return section(title, note, make("ul", { class: "excerpts" }, ...feature.excerpts.map((one) => excerpt(one, feature, mels[one.mel]))));
}

function excerpt(one, feature, mel) {
  const image = melImage(mel, browser.index.bands, LOUDNESS), curve = Array.from(bytes(one.curve), (value) => value / 255);
  const seconds = curve.length * FRAME;
  const name = `${one.label || one.domain}, ${clock(one.start)} in ${one.clip}`;
  const canvas = make("canvas", { "aria-hidden": "true" });
  const slider = make("div", {
    class: "picture", role: "slider", tabindex: "0", "aria-label": `Position in ${name}`,
    "aria-valuemin": "0", "aria-valuemax": seconds.toFixed(1),
  }, canvas);
  const player = make("audio", { preload: "metadata", src: one.audio });
  const button = make("button", { type: "button", class: "play", text: "▶", "aria-label": `Play ${name}` });
  const time = make("span", { class: "quiet time" });
  const show = () => {
    const now = Math.min(player.currentTime, seconds);
    time.textContent = `${now.toFixed(1)} / ${seconds.toFixed(1)} s`;
    slider.setAttribute("aria-valuenow", now.toFixed(1));
    slider.setAttribute("aria-valuetext", `${now.toFixed(1)} seconds`);
    drawExcerpt(canvas, image, curve, 1, player.paused && !now ? null : now / seconds);
  };
  canvas.redraw = show;
  if (one.audio) wire(player, button, slider, seconds, name, show);
  else {
    button.disabled = true;
    button.setAttribute("aria-label", "No audio: the recording could not be read");
  }
  show();
  const words = one.text && make("p", { class: "quiet words", title: one.text, text: `“${one.text}”` });
  return make("li", {}, slider, make("div", { class: "controls" }, button,
    make("div", { class: "about" }, make("strong", { text: one.label || one.domain }),
      make("span", { class: "quiet clip", title: one.clip, text: `at ${clock(one.start)} in ${one.clip}` })), time), words || null, player);
}

/** Play, pause, and move by click, drag or keys. */
function wire(player, button, slider, seconds, name, show) {
  const follow = () => {
    show();
    if (!player.paused && SLIDES && player.isConnected) requestAnimationFrame(follow);
  };
  const seek = (to) => {
    player.currentTime = Math.max(0, Math.min(seconds, to));
    show();
  };
  const play = () => {
    for (const other of document.querySelectorAll("audio")) if (other !== player) other.pause();
    return player.play().catch(() => {}); // its error event says why
  };
  const toggle = () => (player.paused ? play() : player.pause());
  const pointed = (event) => {
    const { left, width } = slider.getBoundingClientRect();
    seek(((event.clientX - left) / width) * seconds);
  };
  for (const type of ["play", "pause", "ended"]) {
    player.addEventListener(type, () => {
      button.textContent = player.paused ? "▶" : "❚❚";
      button.setAttribute("aria-label", `${player.paused ? "Play" : "Pause"} ${name}`);
      follow();
    });
  }
  for (const type of ["seeked", "timeupdate"]) player.addEventListener(type, show);
  player.addEventListener("error", () => {
    button.disabled = true;
    button.setAttribute("aria-label", `No audio: ${player.getAttribute("src")} can't be played`);
  });
  button.addEventListener("click", toggle);
  slider.addEventListener("pointerdown", (event) => {
    slider.setPointerCapture(event.pointerId);
    pointed(event);
    play();
  });
  slider.addEventListener("pointermove", (event) => event.buttons && pointed(event));
  const keys = {
    ArrowLeft: () => seek(player.currentTime - 0.1), ArrowRight: () => seek(player.currentTime + 0.1),
    Home: () => seek(0), End: () => seek(seconds), " ": toggle, Enter: toggle,
  };
  slider.addEventListener("keydown", (event) => {
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
}

/** All of a feature's page. */
function featurePage(feature, place, mels) {
  const { description } = feature;
  return make("article", { "data-feature": feature.id },
    heading(feature, place),
    description && make("p", { class: "description", text: description.text }),
    figures(feature),
    excerpts(feature, mels),
    make("div", { class: "pair" }, domains(feature), meanMel(feature)),
    labels(feature),
    steering(feature),
    related(feature),
    make("div", { class: "absent" }, ...unmeasured(feature)));
}
