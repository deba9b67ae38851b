"""What a comparison is read from: `table.md`, and `report.html`, one page that needs no network."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...audio.clips import NONSPEECH_KINDS, Clip
from ...files import write_text
from ...reports import metrics
from ...reports.page import heading, image, paragraph, percent, points, table, write_page
from ..runner import Row
from .catalogue import OURS
from .examples import examples
from .summary import RULE, Entry

SHOWN = ("faster-whisper", "Silero VAD", OURS)
"""methods whose classes are plotted"""
HEAD = (
    "peer", "setting", "FPR_text", "WER", "change", "deletions", "insertions", "FRR",
    "RTFx speech", "RTFx non-speech",
)  # fmt: skip
DEFINITIONS = {name: metrics.DEFINITIONS[name] for name in ("FPR_text", "WER", "FRR", "interval")} | {
    "RTFx": "seconds of audio a second of transcribe(), wall time"
}


def write_table(path: Path, entries: Sequence[Entry], conditions: Mapping[str, str]) -> None:
    """The comparison as Markdown."""
    lines = ["# Peers on the same clips", ""]
    lines += [f"- {name}: {value}" for name, value in conditions.items()]
    lines += ["", "## Best setting of each method", "", f"{RULE}.", ""]
    lines += _markdown(HEAD, _lines(entries, chosen=True))
    if others := _lines(entries, chosen=False):
        lines += ["", "## Other settings", "", *_markdown(HEAD, others)]
    for title, group in _GROUPS.items():
        if rows := _group_lines(entries, *group):
            lines += ["", f"## {title}", "", *_markdown(*rows)]
    lines += ["", "## Definitions", ""]
    lines += [f"- **{name}**: {text}." for name, text in DEFINITIONS.items()]
    write_text(path, "\n".join(lines) + "\n")


def write_html(
    path: Path,
    entries: Sequence[Entry],
    rows: Mapping[str, Sequence[Row]],
    clips: Sequence[Clip],
    conditions: Mapping[str, str],
) -> None:
    """The comparison as a page with plots, and clips to listen to with every transcript."""
    body = [
        *(paragraph(f"{name}: {value}", small=True) for name, value in conditions.items()),
        heading("Text without speech against errors on speech"),
        *_pareto(entries),
        heading("Best setting of each method"),
        paragraph(f"{RULE}."),
        table(HEAD, _unbroken(_lines(entries, chosen=True))),
    ]
    if others := _lines(entries, chosen=False):
        body += [heading("Other settings"), table(HEAD, _unbroken(others))]
    for title, group in _GROUPS.items():
        if found := _group_lines(entries, *group):
            body += [heading(title), table(found[0], _unbroken(found[1]))]
    body += [*_classes(entries), *_histograms(rows), *_speed(entries)]
    body += examples(entries, rows, clips)
    body.append(heading("Definitions"))
    body += [paragraph(f"{name}: {text}.") for name, text in DEFINITIONS.items()]
    write_page(path, "Peers on the same clips", body)


_GROUPS = {
    "FPR_text by source": ("nonspeech", "by_source", "FPR_text"),
    "FPR_text by class": ("nonspeech", "by_class", "FPR_text"),
    "WER by source": ("speech", "by_source", "WER"),
}


def _lines(entries: Sequence[Entry], chosen: bool) -> list[tuple[str, ...]]:
    return [
        (f"{number}. {entry['method']}", *_cells(entry))
        for number, entry in enumerate(entries, 1)
        if entry["chosen"] == chosen
    ]


def _cells(entry: Entry) -> tuple[str, ...]:
    nonspeech, speech = entry["nonspeech"] or {}, entry["speech"] or {}
    change = speech.get("WER_change")
    lost = speech.get("FRR")
    return (
        entry["setting"],
        _rate(nonspeech.get("FPR_text")),
        percent(speech.get("WER"), 2),
        _difference(change) if change else "–",
        str(speech.get("deletions", "–")),
        str(speech.get("insertions", "–")),
        f"{lost['k']}/{lost['n']}" if lost else "–",
        *(f"{speed:.1f}" if speed else "–" for speed in entry["RTFx"].values()),
    )


def _group_lines(
    entries: Sequence[Entry], kind: str, grouping: str, metric: str
) -> tuple[tuple[str, ...], list[tuple[str, ...]]] | None:
    """Head and lines of a table with a column for each group; None where nothing was measured."""
    measured = [entry for entry in entries if entry["chosen"] and entry[kind]]
    groups = sorted({group for entry in measured for group in entry[kind][grouping]})
    if not groups:
        return None
    lines = [
        (entry["method"], *(_one(entry[kind][grouping].get(group), metric) for group in groups))
        for entry in measured
    ]
    return ("peer", *groups), lines


def _one(cell: Mapping[str, Any] | None, metric: str) -> str:
    if cell is None or cell[metric] is None:
        return "–"
    return _rate(cell[metric]) if metric == "FPR_text" else percent(cell[metric], 2)


def _rate(rate: Mapping[str, Any] | None) -> str:
    if rate is None:
        return "–"
    low, high = 100 * rate["low"], 100 * rate["high"]
    return f"{rate['k']}/{rate['n']} = {percent(rate['rate'])} [{low:.1f}, {high:.1f}]"


def _difference(change: Mapping[str, float]) -> str:
    return f"{points(change['value'])} [{100 * change['low']:+.2f}, {100 * change['high']:+.2f}]"


def _unbroken(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """Figures that stay on one line: on a phone the table scrolls instead."""
    return [[*line[:1], *(cell.replace(" ", "\N{NO-BREAK SPACE}") for cell in line[1:])] for line in lines]


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    rows = [head, ["---"] * len(head), *lines]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _pareto(entries: Sequence[Entry]) -> list[Markup]:
    both = [
        (number, entry)
        for number, entry in enumerate(entries, 1)
        if entry["nonspeech"] and entry["speech"] and entry["speech"]["WER"] is not None
    ]
    if not both:
        return [paragraph("Give clips with speech and without to see one against the other.")]
    alt = "; ".join(
        f"{entry['method']}, FPR_text {percent(_fpr(entry))}, WER {percent(entry['speech']['WER'], 2)}"
        for _, entry in both
        if entry["chosen"]
    )
    note = "Numbers are those of the tables; lower left is better. Filled: best setting of a method."
    return [image(partial(_plot_pareto, both), alt, 4.5), paragraph(note, small=True)]


def _plot_pareto(both: Sequence[tuple[int, Entry]], figure: Any) -> None:
    axes = figure.subplots()
    at = [(100 * entry["speech"]["WER"], 100 * _fpr(entry)) for _, entry in both]
    front: list[tuple[float, float]] = []
    for point in sorted(at):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    axes.step(*zip(*front, strict=True), where="post", color="#999", lw=1, label="Pareto front")
    shared: dict[tuple[float, float], list[int]] = {}
    for (number, entry), point in zip(both, at, strict=True):
        ours = entry["method"].startswith(OURS)
        colour = "#c2410c" if ours else "#1d4ed8"
        axes.plot(*point, "o", color=colour, fillstyle="full" if entry["chosen"] else "none")
        shared.setdefault(point, []).append(number)
    for point, numbers in shared.items():
        name = ",".join(map(str, numbers))
        axes.annotate(name, point, xytext=(4, 3), textcoords="offset points", fontsize=7)
    axes.plot([], [], "o", color="#c2410c", label=OURS)
    axes.plot([], [], "o", color="#1d4ed8", label="others")
    if max(wer for wer, _ in at) > 3 * min(wer for wer, _ in at) > 0:
        axes.set_xscale("log")  # or strengths that ruin speech push all others into a corner
    axes.set(xlabel="WER on speech, %", ylabel="FPR_text, % of clips without speech", ylim=(-2, None))
    axes.legend(frameon=False)


def _classes(entries: Sequence[Entry]) -> list[Markup]:
    shown = [e for e in entries if e["chosen"] and e["method"] in SHOWN and e["nonspeech"]]
    if not shown:
        return []
    classes = sorted({name for entry in shown for name in entry["nonspeech"]["by_class"]})
    alt = "FPR_text of each class with Wilson intervals; the table by class has the figures"
    height = 1 + 0.16 * len(classes) * len(shown)
    return [image(partial(_plot_classes, shown, classes), alt, height)]


def _plot_classes(shown: Sequence[Entry], classes: Sequence[str], figure: Any) -> None:
    axes = figure.subplots()
    for index, entry in enumerate(shown):
        cells = [entry["nonspeech"]["by_class"].get(name) for name in classes]
        known = [(at, cell["FPR_text"]) for at, cell in enumerate(cells) if cell and cell["FPR_text"]]
        rates = [100 * rate["rate"] for _, rate in known]
        below = [max(0.0, value - 100 * rate["low"]) for value, (_, rate) in zip(rates, known, strict=True)]
        above = [max(0.0, 100 * rate["high"] - value) for value, (_, rate) in zip(rates, known, strict=True)]
        places = [at + 0.25 * (index - (len(shown) - 1) / 2) for at, _ in known]
        axes.errorbar(rates, places, xerr=[below, above], fmt="o", ms=4, lw=1, label=entry["method"])
    axes.set(yticks=range(len(classes)), yticklabels=classes, xlabel="FPR_text, %", xlim=(-2, 102))
    axes.invert_yaxis()
    figure.legend(frameon=False, loc="outside upper center", ncols=len(shown))


def _histograms(rows: Mapping[str, Sequence[Row]]) -> list[Markup]:
    """Greedy first windows, unsteered against ours."""
    if not {"faster", OURS} <= rows.keys():
        return []
    alt = "Histograms of no_speech_prob and avg_logprob of first windows, unsteered and ours"
    title = "What Whisper thinks of the first window, greedy, before and after"
    return [heading(title), image(partial(_plot_histograms, rows), alt, 5)]


def _plot_histograms(rows: Mapping[str, Sequence[Row]], figure: Any) -> None:
    grid = figure.subplots(2, 2)
    for line, (kinds, name) in zip(
        grid, ((NONSPEECH_KINDS, "without speech"), (("speech",), "speech")), strict=True
    ):
        chosen = [
            [row["raw"] for row in rows[peer] if row["kind"] in kinds and row["raw"]]
            for peer in ("faster", OURS)
        ]
        for axes, field, low in zip(line, ("no_speech_prob", "avg_logprob"), (0.0, -3.0), strict=True):
            values = [[max(low, raw[field]) for raw in raws] for raws in chosen]
            bins = [low + (1 if low == 0 else -low) * i / 20 for i in range(21)]
            axes.hist(values, bins=bins, label=["unsteered", OURS], color=["#1d4ed8", "#c2410c"])
            axes.set(xlabel=field, ylabel=f"windows, {name}")
    grid[0][0].legend(frameon=False)


def _speed(entries: Sequence[Entry]) -> list[Markup]:
    timed = [entry for entry in entries if entry["chosen"] and any(entry["RTFx"].values())]
    if not timed:
        return []
    alt = "RTFx on speech and without; the tables have the figures"
    return [heading("Speed"), image(partial(_plot_speed, timed), alt, 1 + 0.3 * len(timed))]


def _plot_speed(timed: Sequence[Entry], figure: Any) -> None:
    axes = figure.subplots()
    for shift, (kind, colour) in zip(
        (-0.2, 0.2), (("speech", "#1d4ed8"), ("nonspeech", "#94a3b8")), strict=True
    ):
        values = [entry["RTFx"][kind] or 0 for entry in timed]
        axes.barh([i + shift for i in range(len(timed))], values, 0.38, color=colour, label=kind)
    axes.set(yticks=range(len(timed)), yticklabels=[e["method"] for e in timed], xlabel="RTFx")
    axes.invert_yaxis()
    axes.legend(frameon=False)


def _fpr(entry: Entry) -> float:
    return entry["nonspeech"]["FPR_text"]["rate"]
