"""The one-page report of trained SAEs: are they good, how did training go, what are they made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..reports import metrics
from ..reports.metrics import Difference, Rate
from ..reports.page import aligned, heading, image, paragraph, percent, points, table, write_page
from ..reports.plots import colours, legend
from ..sae.autoencoder import SAEConfig
from .downstream import Downstream, RateChange
from .logs import HistoryPoint
from .quality import TWIN_COSINE, Histogram, Quality

_HEAD = ("SAE", "FVU", "L0", "L0 / k", "dead", "dense", "twins", "WER", "FPR_text", "FPR_raw")
_CURVES = ("fvu", "l0", "dead", "threshold", "lr", "aux")
_MEANING = {
    "FVU": "fraction of variance unexplained: squared residuals over squared distances from the frames'"
    " mean; 0 is perfect, explained variance is 1 − FVU",
    "L0": "active features a frame at the inference threshold",
    "L0 / k": "1 if the threshold keeps as many features as training did; far from 1, features fire that"
    " training would have dropped, or the other way round",
    "dead": "features that fired on none of these frames",
    "dense": "features that fired on more than this share of frames: they carry an average, not a sound",
    "twins": f"features whose decoder row has a cosine above {TWIN_COSINE:g} to another's: split or doubled",
    "WER, FPR_text, FPR_raw": "change against the untouched model with the SAE's reconstruction in place of"
    " every frame; intervals are 95%",
}


@dataclass(frozen=True)
class TrainedSAE:
    """What a report shows of one SAE."""

    name: str
    """short, and different for each SAE of a report"""
    config: SAEConfig
    """its metadata are shown as they are: training options, data"""
    quality: Quality
    downstream: Downstream | None = None
    """None if it was not measured"""
    history: Sequence[HistoryPoint] = ()
    """training curves; none for an SAE trained elsewhere"""


def text_report(saes: Sequence[TrainedSAE]) -> str:
    """The summary for a terminal: one line an SAE."""
    return "\n".join(aligned(_HEAD, [_summary_row(sae) for sae in saes]))


def write_html(saes: Sequence[TrainedSAE], path: Path) -> None:
    """The report of one SAE, or of several side by side, as one self-contained HTML page."""
    models = ", ".join(dict.fromkeys(sae.config.model or "an unknown model" for sae in saes))
    what = "Sparse autoencoder" if len(saes) == 1 else f"{len(saes)} sparse autoencoders"
    body = [
        table(_HEAD, [_summary_row(sae) for sae in saes]),
        *(paragraph(f"{name}: {text}.", small=True) for name, text in _MEANING.items()),
        *(part for sae in saes for part in _details(sae)),
    ]
    trained = [sae for sae in saes if sae.history]
    if trained:
        body += [
            heading("Training"),
            image(partial(_plot_curves, trained), "Training curves against millions of frames", 4.5),
        ]
    body += [
        heading("Features"),
        image(partial(_plot_histograms, saes), "Histograms of firing frequencies and decoder cosines"),
        heading("Configuration and data"),
        table(("", *(sae.name for sae in saes)), _facts(saes)),
    ]
    if any(sae.downstream for sae in saes):
        body += [heading("Definitions"), *_definitions()]
    write_page(path, f"{what} for {models}", body)


def _summary_row(sae: TrainedSAE) -> tuple[str, ...]:
    quality, cost = sae.quality, sae.downstream
    transfer = quality.threshold_transfer
    return (
        sae.name,
        f"{quality.fvu:.4f}",
        f"{quality.l0:.1f}",
        "–" if transfer is None else f"{transfer:.2f}",
        percent(quality.dead_share),
        percent(quality.dense_share),
        percent(quality.twins / quality.features),
        points(cost.wer.change.value if cost and cost.wer else None),
        points(cost.fpr_text.change.value if cost and cost.fpr_text else None, 1),
        points(cost.fpr_raw.change.value if cost and cost.fpr_raw else None, 1),
    )


def _details(sae: TrainedSAE) -> list[Markup]:
    """One SAE's figures with their conditions."""
    q, config = sae.quality, sae.config
    tap = config.tap or "an unknown tap"
    aim = f", {q.k} aimed at" if q.k else ""
    lines = [
        f"{q.features} features on {tap} (width {config.d_in}), measured on {q.frames} frames: explained"
        f" variance {q.explained_variance:.4f}, {q.l0:.1f} active features a frame{aim}; {q.dead} dead,"
        f" {q.dense} dense (on more than {percent(q.dense_above, 0)} of frames), {q.twins} twins."
    ]
    if q.rule_fvu is not None:
        lines.append(
            f"By BatchTopK's training rule (the k·n largest of n frames): FVU {q.rule_fvu:.4f} at L0"
            f" {q.rule_l0:.1f}; at the threshold {q.fvu:.4f} at {q.l0:.1f}."
        )
    return [heading(sae.name), *map(paragraph, lines), *_costs(sae.downstream)]


def _costs(cost: Downstream | None) -> list[Markup]:
    if cost is None:
        return [paragraph("Downstream cost: not measured.")]
    rows: list[tuple[str, ...]] = []
    if cost.wer is not None:
        before, after = (f"{percent(e.rate, 2)} of {e.words} words" for e in cost.wer[:2])
        rows.append(("WER", before, after, _change(cost.wer.change)))
    if cost.frr is not None:
        rows.append(("FRR", "–", _rate(cost.frr), "–"))
    for name, change in (("FPR_text", cost.fpr_text), ("FPR_raw", cost.fpr_raw)):
        if change is not None:
            rows.append((name, *_rate_change(change)))
    count = f"{cost.speech} speech and {cost.nonspeech} non-speech clips" + (
        f"; {cost.failed} more could not be transcribed" if cost.failed else ""
    )
    return [table((count, "untouched model", "reconstruction", "change"), rows)]


def _rate_change(change: RateChange) -> tuple[str, ...]:
    return _rate(change.untouched), _rate(change.spliced), _change(change.change, 1)


def _rate(rate: Rate) -> str:
    return f"{rate.k}/{rate.n} = {percent(rate.rate)} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def _change(change: Difference, digits: int = 2) -> str:
    interval = f"[{100 * change.low:+.{digits}f}, {100 * change.high:+.{digits}f}]"
    return f"{points(change.value, digits)} {interval}"


def _definitions() -> list[Markup]:
    names = ("WER", "FRR", "FPR_text", "FPR_raw", "interval")
    lines = [f"{name}: {metrics.DEFINITIONS[name]}." for name in names]
    return [paragraph(line, small=True) for line in [*lines, "α = 0 is the untouched model here."]]


def _facts(saes: Sequence[TrainedSAE]) -> list[tuple[str, ...]]:
    """One row an option: the configurations side by side."""
    columns: list[dict[str, str]] = []
    for sae in saes:
        config = sae.config
        own = {"model": config.model, "tap": config.tap, "d_in": config.d_in, "d_sae": config.d_sae}
        columns.append(_flat({**own, "k": config.k, **config.metadata}))
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, *(column.get(name, "–") for column in columns)) for name in names]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """``{"training": {"k": 50}}`` → ``{"training.k": "50"}``; long texts such as hashes are cut."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            flat[prefix + name] = text if len(text) <= 32 else f"{text[:31]}…"
    return flat


def _plot_curves(saes: Sequence[TrainedSAE], figure: Any) -> None:
    from matplotlib.ticker import LogFormatter

    panels = figure.subplots(2, 3, sharex=True)
    for axes, name in zip(panels.flat, _CURVES, strict=True):
        for sae, colour in zip(saes, colours(len(saes)), strict=True):
            millions = [point.frames / 1e6 for point in sae.history]
            values = [getattr(point, name) for point in sae.history]
            axes.plot(millions, values, color=colour, linewidth=1, label=sae.name)
        axes.set_title(name, fontsize=9)
    panels[0, 0].set_yscale("log")  # the first steps would hide the rest
    panels[0, 0].yaxis.set_major_formatter(LogFormatter())
    panels[0, 0].yaxis.set_minor_formatter(LogFormatter())
    for axes in panels[1]:
        axes.set_xlabel("million frames")
    legend(figure, panels[0, 0], len(saes))


def _plot_histograms(saes: Sequence[TrainedSAE], figure: Any) -> None:
    panels = figure.subplots(1, 2)
    pick: list[Callable[[Quality], Histogram]] = [lambda q: q.frequency, lambda q: q.cosine]
    for axes, histogram_of in zip(panels, pick, strict=True):
        for sae, colour in zip(saes, colours(len(saes)), strict=True):
            histogram = histogram_of(sae.quality)
            shares = [100 * count / sae.quality.features for count in histogram.counts]
            axes.stairs(shares, histogram.edges, color=colour, fill=len(saes) == 1, label=sae.name)
        axes.set_xlim(*_occupied([histogram_of(sae.quality) for sae in saes]))
        axes.set_ylabel("% of features")
    panels[0].set_xlabel("log10 of the share of frames a feature fires on")
    panels[1].set_xlabel("highest cosine to another decoder row")
    legend(figure, panels[0], len(saes))


def _occupied(histograms: Sequence[Histogram]) -> tuple[float, float]:
    """The range of edges that holds every count; all of it without any."""
    edges = histograms[0].edges
    counts = [sum(column) for column in zip(*(h.counts for h in histograms), strict=True)]
    bins = [pair for pair, count in zip(pairwise(edges), counts, strict=True) if count]
    return (bins[0][0], bins[-1][1]) if bins else (edges[0], edges[-1])
