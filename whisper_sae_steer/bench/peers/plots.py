"""The plots of a comparison."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from markupsafe import Markup

from ...audio.clips import NONSPEECH_KINDS
from ...reports.page import heading, image, paragraph, percent
from ...reports.plots import OTHER_COLOUR, OURS_COLOUR, distribution, name_points
from ..runner import Row
from .catalogue import OURS
from .summary import Entry

SHOWN = ("faster-whisper", "Silero VAD", OURS)
"""methods whose classes are plotted"""


def pareto(entries: Sequence[Entry]) -> list[Markup]:
    """Text without speech against errors on speech."""
    both = [e for e in entries if e["nonspeech"] and e["speech"] and e["speech"]["WER"] is not None]
    if not both:
        return [paragraph("Give clips with speech and without to see one against the other.")]
    named = [entry for entry in both if entry["chosen"]]
    alt = "; ".join(
        f"{entry['method']}, FPR_text {percent(_fpr(entry))}, WER {percent(entry['speech']['WER'], 2)}"
        for entry in named
    )
    note = "Lower left is better. Filled and named: the best setting of each method; hollow: its others."
    height = max(3.5, 0.8 + 0.19 * len(named))
    return [image(partial(_plot_pareto, both), alt, height), paragraph(note, small=True)]


def classes(entries: Sequence[Entry]) -> list[Markup]:
    """FPR_text of each class, for a few methods."""
    shown = [e for e in entries if e["chosen"] and e["method"] in SHOWN and e["nonspeech"]]
    found = sorted({name for entry in shown for name in entry["nonspeech"]["by_class"]})
    if len(found) < 2:  # one class alone is what the tables show in all
        return []
    alt = "FPR_text of each class with Wilson intervals; the tables have the figures"
    height = 1 + 0.16 * len(found) * len(shown)
    plot = image(partial(_plot_classes, shown, found), alt, height)
    return [heading("FPR_text of each class, with 95% intervals"), plot]


def histograms(rows: Mapping[str, Sequence[Row]]) -> list[Markup]:
    """Greedy first windows, unsteered against ours."""
    if not {"faster", OURS} <= rows.keys():
        return []
    alt = "no_speech_prob and avg_logprob of first windows, unsteered and ours"
    title = "What Whisper thinks of the first window, greedy, before and after"
    return [heading(title), image(partial(_plot_histograms, rows), alt, 5)]


def speed(entries: Sequence[Entry]) -> list[Markup]:
    """RTFx of each method's best setting."""
    timed = [entry for entry in entries if entry["chosen"] and any(entry["RTFx"].values())]
    if not timed:
        return []
    alt = "RTFx on speech and without; the tables have the figures"
    return [heading("Speed"), image(partial(_plot_speed, timed), alt, 1 + 0.3 * len(timed))]


def _plot_pareto(both: Sequence[Entry], figure: Any) -> None:
    axes = figure.subplots()
    at = [(100 * entry["speech"]["WER"], 100 * _fpr(entry)) for entry in both]
    front: list[tuple[float, float]] = []
    for point in sorted(at):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    axes.step(*zip(*front, strict=True), where="post", color="#999", lw=1, label="Pareto front")
    named: dict[tuple[float, float], list[str]] = {}
    for entry, point in zip(both, at, strict=True):
        colour = OURS_COLOUR if entry["method"].startswith(OURS) else OTHER_COLOUR
        axes.plot(*point, "o", color=colour, fillstyle="full" if entry["chosen"] else "none")
        if entry["chosen"]:
            named.setdefault(point, []).append(entry["method"])
    if max(wer for wer, _ in at) > 3 * min(wer for wer, _ in at) > 0:
        axes.set_xscale("log")  # or strengths that ruin speech push all others into a corner
    axes.set(xlabel="WER on speech, %", ylabel="FPR_text, % of clips without speech", ylim=(-2, None))
    name_points(axes, named)


def _plot_classes(shown: Sequence[Entry], found: Sequence[str], figure: Any) -> None:
    axes = figure.subplots()
    for index, entry in enumerate(shown):
        cells = [entry["nonspeech"]["by_class"].get(name) for name in found]
        known = [(at, cell["FPR_text"]) for at, cell in enumerate(cells) if cell and cell["FPR_text"]]
        rates = [100 * rate["rate"] for _, rate in known]
        below = [max(0.0, value - 100 * rate["low"]) for value, (_, rate) in zip(rates, known, strict=True)]
        above = [max(0.0, 100 * rate["high"] - value) for value, (_, rate) in zip(rates, known, strict=True)]
        places = [at + 0.25 * (index - (len(shown) - 1) / 2) for at, _ in known]
        axes.errorbar(rates, places, xerr=[below, above], fmt="o", ms=4, lw=1, label=entry["method"])
    axes.set(yticks=range(len(found)), yticklabels=found, xlabel="FPR_text, %", xlim=(-2, 102))
    axes.invert_yaxis()
    figure.legend(frameon=False, loc="outside upper center", ncols=len(shown))


def _plot_histograms(rows: Mapping[str, Sequence[Row]], figure: Any) -> None:
    lines = (NONSPEECH_KINDS, "without speech"), (("speech",), "with speech")
    for line, (kinds, name) in zip(figure.subplots(2, 2), lines, strict=True):
        raws = {
            label: [row["raw"] for row in rows[peer] if row["kind"] in kinds and row["raw"]]
            for label, peer in (("unsteered", "faster"), ("ours", OURS))
        }
        for axes, field, low, high in zip(
            line, ("no_speech_prob", "avg_logprob"), (0.0, -3.0), (1.0, 0.0), strict=True
        ):
            series = {label: [max(low, raw[field]) for raw in found] for label, found in raws.items()}
            distribution(axes, series, low, high)
            axes.set(xlabel=field, title=name)


def _plot_speed(timed: Sequence[Entry], figure: Any) -> None:
    axes = figure.subplots()
    for shift, (kind, colour) in zip(
        (-0.2, 0.2), (("speech", OTHER_COLOUR), ("nonspeech", "#94a3b8")), strict=True
    ):
        values = [entry["RTFx"][kind] or 0 for entry in timed]
        axes.barh([i + shift for i in range(len(timed))], values, 0.38, color=colour, label=kind)
    axes.set(yticks=range(len(timed)), yticklabels=[e["method"] for e in timed], xlabel="RTFx")
    axes.invert_yaxis()
    axes.legend(frameon=False)


def _fpr(entry: Entry) -> float:
    return entry["nonspeech"]["FPR_text"]["rate"]
