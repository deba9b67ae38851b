"use strict";
// Data, addresses, the list: pages are made in overview.js and feature.js.

const $ = (id) => document.getElementById(id);

const browser = {
  index: null, // what data/index.js holds
  chunks: new Map(), // number of a data file: promise of its features
  waiting: new Map(), // number: resolve
  shown: [], // places (positions in the columns of the index) that pass the filter, in order
  current: null, // place of the open feature
  upward: false,

  // --- data: scripts that call these, as pages of files may not fetch -------------------------------

  takeIndex(index) {
    this.index = index;
    this.places = new Map(index.features.id.map((id, place) => [id, place]));
    $("subject").textContent = `${index.model} · ${index.tap} · ${index.sae}`;
    for (const { key, title, format, missing } of index.columns) {
      $("sort").append(make("option", { value: key, "data-format": format, disabled: missing ? "" : null,
        text: missing ? `${title} (not measured: analyze ${missing})` : title }));
    }
    $("legend").append(...index.domains.map(({ name }) => make("span", { class: name, text: name })));
    filter();
    route();
  },
  takeChunk(number, chunk) {
    this.waiting.get(number)?.(chunk);
  },
  place(id) {
    return this.places.get(id);
  },
  chunk(number) {
    if (!this.chunks.has(number)) {
      const src = `data/features-${String(number).padStart(4, "0")}.js`;
      this.chunks.set(number, new Promise((resolve, reject) => {
        this.waiting.set(number, resolve);
        document.head.append(make("script", { src, error: () => {
          this.chunks.delete(number);
          reject(new Error(`${src} is missing: make the folder again`));
        } }));
      }));
    }
    return this.chunks.get(number);
  },
  /** Open the feature so many lines further down the list. */
  walk(by) {
    const { shown } = this, at = shown.indexOf(this.current);
    if (!shown.length) return;
    const to = at < 0 ? (by > 0 ? 0 : shown.length - 1) : Math.max(0, Math.min(shown.length - 1, at + by));
    visit(shown[to], true);
  },
};

// --- addresses: #feature=123 ---------------------------------------------------------------------------

/** Open a feature; walking replaces the entry in the history, so that back leads out of the walk. */
function visit(place, walking = false) {
  const address = `#feature=${browser.index.features.id[place]}`;
  if (walking && browser.current !== null) {
    history.replaceState(null, "", address);
    route();
  } else location.hash = address;
}

async function route() {
  const asked = /^#feature=(\d+)$/.exec(location.hash)?.[1] ?? null;
  const place = asked === null ? null : browser.place(Number(asked));
  const { index } = browser, view = $("view");
  browser.current = place ?? null;
  document.body.classList.toggle("one", asked !== null);
  document.title = `${asked === null ? "SAE features" : `Feature ${asked}`} · ${index.model}`;
  mark();
  if (asked === null) show(overviewPage(index));
  else if (place === undefined) {
    show(make("p", { role: "alert" }, `Feature ${asked} never fires in these recordings, or there is none of this number. `,
      make("a", { href: "#", text: "All features" })));
  } else {
    view.setAttribute("aria-busy", "true");
    try {
      const { features, mels } = await browser.chunk(Math.floor(place / index.chunk));
      if (browser.current === place) show(featurePage(features[place % index.chunk], place, mels));
    } catch (error) {
      if (browser.current === place) show(make("p", { role: "alert", text: error.message }));
    }
  }
}

function show(page) {
  const view = $("view"), inside = view.contains(document.activeElement);
  for (const player of view.querySelectorAll("audio")) player.pause();
  resizing.disconnect();
  view.replaceChildren(page);
  view.removeAttribute("aria-busy");
  for (const canvas of view.querySelectorAll("canvas")) resizing.observe(canvas);
  scrollTo(0, 0);
  if (inside) view.querySelector("h2")?.focus({ preventScroll: true });
}

// --- the list --------------------------------------------------------------------------------------------

const list = $("list"), rows = $("rows"), search = $("search");

/** Find and order what the list shows. Every word must occur; #123 or 123 also finds the id. */
function filter() {
  const { features, columns } = browser.index;
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = (place) => words.every((word) =>
    features.text[place].includes(word) || String(features.id[place]) === word.replace(/^#/, ""));
  const key = $("sort").value, values = features[key], sign = browser.upward ? 1 : -1;
  const size = columns.find((column) => column.key === key).absolute ? Math.abs : (value) => value;
  browser.shown = features.id.map((_, place) => place).filter(found);
  browser.shown.sort((a, b) => {
    const x = values[a], y = values[b];
    if (!known(x) || !known(y)) return known(y) - known(x) || a - b;
    return sign * (size(x) - size(y)) || a - b;
  });
  const { length } = browser.shown;
  $("count").textContent = length === features.id.length
    ? `${written(length, "count")} features` : `${written(length, "count")} of ${written(features.id.length, "count")} features`;
  list.scrollTop = 0;
  mark(false);
}

/** Only the rows in sight are in the document. */
function paint() {
  if (!browser.index) return;
  const { features, columns } = browser.index, { shown } = browser;
  const tall = rowHeight(), first = Math.max(0, Math.floor(list.scrollTop / tall) - 4);
  const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / tall) + 4);
  const column = columns.find(({ key }) => key === $("sort").value);
  rows.style.height = `${shown.length * tall}px`;
  const wanted = [];
  for (let at = first; at < last; at++) wanted.push(at);
  const open = shown.indexOf(browser.current);
  if (open >= 0 && !wanted.includes(open)) wanted.push(open); // what aria-activedescendant names
  rows.replaceChildren(...wanted.map((at) => {
    const place = shown[at], id = features.id[place];
    const row = make("div", {
      role: "option", id: `row-${id}`, class: "row", "aria-selected": String(place === browser.current),
      "aria-setsize": shown.length, "aria-posinset": at + 1, click: () => visit(place),
    }, make("span", { class: "id", text: `#${id}` }), make("span", { class: "name", text: features.title[place] }),
    make("span", { class: "value", text: written(features[column.key][place], column.format) }), mix(features.domains[place]));
    row.style.top = `${at * tall}px`;
    return row;
  }));
  if (open >= 0) list.setAttribute("aria-activedescendant", `row-${features.id[browser.current]}`);
  else list.removeAttribute("aria-activedescendant");
}

/** Domains as shares of a bar. */
function mix(rates) {
  const whole = rates.reduce((sum, rate) => sum + (rate ?? 0), 0) || 1;
  return make("span", { class: "mix", "aria-hidden": "true" }, ...rates.map((rate, i) => {
    const part = make("span", { class: browser.index.domains[i].name });
    part.style.width = `${(100 * (rate ?? 0)) / whole}%`;
    return part;
  }));
}

const rowHeight = () => 3.25 * parseFloat(getComputedStyle(document.documentElement).fontSize);

/** Show which feature is open, in sight if `reveal`. */
function mark(reveal = true) {
  const at = browser.shown.indexOf(browser.current), tall = rowHeight();
  if (reveal && at >= 0) {
    if (at * tall < list.scrollTop) list.scrollTop = at * tall;
    else if ((at + 1) * tall > list.scrollTop + list.clientHeight) list.scrollTop = (at + 1) * tall - list.clientHeight;
  }
  paint();
}

// --- wiring ------------------------------------------------------------------------------------------------

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // its address is no feature's
  $("view").focus();
});
list.addEventListener("scroll", paint, { passive: true });
new ResizeObserver(paint).observe(list);
search.addEventListener("input", filter);
$("sort").addEventListener("change", filter);
$("direction").addEventListener("click", () => {
  browser.upward = !browser.upward;
  $("direction").setAttribute("aria-pressed", String(browser.upward));
  $("direction").textContent = browser.upward ? "↑" : "↓";
  filter();
});
addEventListener("hashchange", () => browser.index && route());
addEventListener("error", (event) => {
  if (event.target.tagName !== "SCRIPT" || browser.index) return;
  $("view").textContent = "A file of this folder is missing: make the folder again.";
}, true);
const PAGE = 8;
const WALKS = { ArrowDown: 1, ArrowUp: -1 }, LEAPS = { PageDown: PAGE, PageUp: -PAGE, Home: -1e9, End: 1e9 };
document.addEventListener("keydown", (event) => {
  if (!browser.index || event.ctrlKey || event.metaKey || event.altKey) return;
  const { target } = event, typing = target === search;
  if (event.key === "/" && !typing) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "Enter" && typing) browser.walk(browser.current === null || !browser.shown.includes(browser.current) ? 1 : 0);
  else if (!target.closest("select, [role=slider]")) {
    const by = WALKS[event.key] ?? (target === list ? LEAPS[event.key] : undefined);
    if (by === undefined) return;
    event.preventDefault();
    browser.walk(by);
  }
});
