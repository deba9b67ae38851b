"use strict";
// The first page: what was looked at, what was found out about it, what the figures mean.

function duration(seconds) {
  if (seconds < 90) return `${seconds.toFixed(0)} s`;
  return seconds < 5400 ? `${(seconds / 60).toFixed(1)} minutes` : `${(seconds / 3600).toFixed(1)} hours`;
}

function overviewPage(index) {
  const count = (value, one, many) => `${written(value, "count")} ${value === 1 ? one : many}`;
  const cards = [
    ["model", index.model, `activations at ${index.tap}`],
    ["sparse autoencoder", index.sae, `${index.d_in} → ${index.d_sae} features`],
    ["audio", duration(index.seconds), `${count(index.recordings, "recording", "recordings")}, ${count(index.labels, "label", "labels")}`],
    ["features that fire", written(index.alive, "count"), `${count(index.dead, "never does", "never do")} here and are left out`],
    ["with excerpts", written(index.shown, "count"), `up to ${index.excerpts} of ${index.excerpt_seconds} s each`],
  ];
  return make("article", { id: "overview" },
    make("h2", { tabindex: "-1", text: "Overview" }),
    make("dl", { class: "figures" }, ...cards.map(([name, value, note]) =>
      make("div", {}, make("dt", { text: name }), make("dd", { text: value }), make("dd", { class: "quiet", text: note })))),
    section("Audio", null, audioBars(index)),
    section("Analyses", null, analyses(index), index.report
      ? make("p", {}, make("a", { href: "report.html", text: "Their figures and plots on one page" }))
      : make("p", { class: "quiet", text: "No results were given; the figures here are from the activations alone." })),
    section("Which features have excerpts", index.rule),
    section("What the figures mean", null, meanings()));
}

function audioBars(index) {
  const most = Math.max(...index.domains.map((domain) => domain.seconds), 1e-9);
  return make("ul", { class: "bars" }, ...index.domains.map(({ name, seconds }) => {
    const bar = make("div", { class: `bar ${name}` });
    bar.style.width = `${(100 * seconds) / most}%`;
    return make("li", {}, make("span", { text: name }), make("div", { class: "track" }, bar), make("span", { text: duration(seconds) }));
  }));
}

function analyses(index) {
  return make("ul", { class: "analyses" }, ...index.analyses.map(({ name, summary, ran }) =>
    make("li", { class: ran ? "ran" : "not" }, make("span", { "aria-hidden": "true", text: ran ? "✓" : "–" }),
      make("div", {}, make("span", { text: summary }),
        ran ? make("small", { class: "quiet", text: `analyze ${name}` })
          : make("small", { class: "quiet" }, "not measured: run ", make("code", { text: `whisper-sae-steer analyze ${name}` }))))));
}

const MEANINGS = [
  ["information on labels", "how much knowing whether it fires in a frame tells about the frame's label: mutual information in bits."],
  ["fires in", "share of all frames (20 ms) in which the feature is above its threshold."],
  ["× the usual", "how many times more often it fires in a label's frames than in all frames."],
  ["best label's F1", "of telling recordings of that label from all others with this feature alone, from 0 to 1."],
  ["description score", "how well its description predicts where it fires in recordings the description was not made from."],
  ["effect on no-speech", "how much Whisper's probability that nobody speaks changes when this one feature, at its mean activation, is added to every frame."],
  ["stability", "overlap (frames in which both fire, of those in which either does) with the most similar feature of another autoencoder; 1 is the same feature."],
];

function meanings() {
  return make("dl", { class: "meanings" }, ...MEANINGS.flatMap(([term, text]) => [make("dt", { text: term }), make("dd", { text })]));
}
