"""A sweep for readers: the verdict, a table on the terminal, and one page with plots."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..reports.page import aligned, heading, image, paragraph, percent, points, table, write_page
from ..reports.plots import OTHER_COLOUR, OURS_COLOUR, colours, legend
from ..training.quality import TWIN_COSINE
from ..training.stream import DOMAINS
from .config import setting_parts
from .differences import SeedDifference, differences
from .results import Sweep, SweptSetting, frontier, verdict

_MEANING = (
    "FVU: fraction of variance unexplained on recordings held back; L0: active features a frame at the"
    " inference threshold. On the frontier (✓): no other setting of the tap leaves less unexplained with no"
    " more active features, or as much with fewer. Figures are means over the seeds.",
    "FVU speech, music, sound: the same on those frames alone, of their own variance.",
    "Dead: features that fired on none of these frames; dense: on more than a tenth of them; twins: with a"
    f" decoder row whose cosine to another's is above {TWIN_COSINE:g}.",
    "Found again: share of live features whose best match in the SAE of another seed fires on the same"
    " frames (intersection over union above 0.5); of firings: the same, each feature counted as often as it"
    " fires; one to one: share of pairs above 0.5 when no feature is used twice. AudioSAE (arXiv 2602.05027)"
    " reports more than 50% found.",
    "Gate AUC: logistic regression on the features that weigh most, frames of speech against the rest,"
    " fitted on recordings that were trained on and measured on those held back, without smoothing over"
    " time.",
    "WER, FPR_text: change against the untouched model with the SAE's reconstruction in place of every"
    " frame, mean over the seeds.",
)

_DIFFERENCES = (
    "Mean over the seeds, or pairs of seeds, of the difference seed by seed, 95% interval by Student's t; *:"
    " it leaves 0 out. It tells how far seeds of the SAEs scatter, not how far other recordings would. Pairs"
    " of seeds share seeds, so that their interval is too narrow."
)


def text_report(result: Sweep) -> str:
    """The verdict, and a line a setting."""
    return "\n".join([verdict(result), "", *aligned(*_summary(result))])


def write_html(result: Sweep, path: Path) -> None:
    """The sweep as one self-contained page."""
    body = [paragraph(verdict(result))]
    body += [paragraph(text) for text in _stability_in_words(result)]
    for tap in result.taps:
        name = f"Unexplained variance against active features at {tap}"
        body += [heading(name), image(partial(_plot_tradeoff, result.at(tap)), name, 4)]
    body += [heading("Settings"), table(*_summary(result))]
    body += [paragraph(text, small=True) for text in _MEANING]
    head, rows = _differences(result)
    if rows:
        body += [heading("Differences from the first setting"), table(head, rows)]
        body.append(paragraph(_DIFFERENCES, small=True))
    if any(setting.pairs for setting in result.settings):
        height = 1 + 0.25 * len(result.settings)
        body += [
            heading("Features found again by another seed"),
            image(partial(_plot_stability, result), "Stability of each setting", height),
        ]
    body += [heading("Each SAE"), table(*_saes(result)), heading("Conditions")]
    body.append(table(("", "value"), [(name, str(value)) for name, value in result.conditions.items()]))
    write_page(path, f"{len(result.settings)} settings of SAEs for {result.conditions['model']}", body)


Column = tuple[str, Callable[[SweptSetting], str]]


def _summary(result: Sweep) -> tuple[Sequence[str], list[list[str]]]:
    """Head and rows; columns of which nothing is known are left out."""
    best = result.best
    columns: list[Column] = [
        ("setting", lambda s: _name(result, s)),
        ("", lambda s: "✓" if s in best else ""),
        ("SAEs", lambda s: str(len(s.saes))),
        ("features", lambda s: str(s.saes[0].features)),
        ("FVU", lambda s: f"{s.fvu:.4f}"),
        *((f"FVU {domain}", partial(_domain_fvu, domain)) for domain in DOMAINS.values()),
        ("L0", lambda s: f"{s.l0:.1f}"),
        ("dead", lambda s: percent(s.share("dead"))),
        ("dense", lambda s: percent(s.share("dense"))),
        ("twins", lambda s: percent(s.share("twins"))),
        ("found again", lambda s: percent(s.shared("found"))),
        ("of firings", lambda s: percent(s.shared("of_firings"))),
        ("one to one", lambda s: percent(s.shared("one_to_one"))),
        ("gate AUC", lambda s: "–" if s.gate_auc is None else f"{s.gate_auc:.4f}"),
        ("WER", lambda s: points(s.wer_change)),
        ("FPR_text", lambda s: points(s.fpr_change, 1)),
    ]
    known = [
        (head, cells)
        for head, show in columns
        if set(cells := [show(setting) for setting in result.settings]) != {"–"}
    ]
    return [head for head, _ in known], [
        list(row) for row in zip(*(cells for _, cells in known), strict=True)
    ]


def _domain_fvu(domain: str, setting: SweptSetting) -> str:
    fvu = setting.domain_fvu(domain)
    return "–" if fvu is None else f"{fvu:.4f}"


def _differences(result: Sweep) -> tuple[Sequence[str], list[list[str]]]:
    """A row for each setting but a tap's first; an interval that leaves 0 out is marked."""
    found = differences(result)
    names = list(dict.fromkeys(name for _, told in found for name in told))
    rows = [
        [_name(result, setting), *(_in_words(told.get(name)) for name in names)] for setting, told in found
    ]
    return ["setting", *(name.replace("_", " ") for name in names)], rows


def _in_words(one: SeedDifference | None) -> str:
    if one is None:
        return "–"
    return f"{one.value:+.4f} [{one.low:+.4f}, {one.high:+.4f}]{' *' if one.differs else ''}"


def _saes(result: Sweep) -> tuple[Sequence[str], list[list[str]]]:
    head = ("folder", "FVU", "L0", "dead", "dense", "twins", "gate AUC")
    rows = [
        [
            sae.folder, f"{sae.fvu:.4f}", f"{sae.l0:.1f}", str(sae.dead), str(sae.dense), str(sae.twins),
            "–" if sae.gate_auc is None else f"{sae.gate_auc:.4f}",
        ]
        for setting in result.settings
        for sae in setting.saes
    ]  # fmt: skip
    return head, rows


def _name(result: Sweep, setting: SweptSetting) -> str:
    tap = f"{setting.tap} " if len(result.taps) > 1 else ""
    return tap + (setting.label or setting.name)


def _stability_in_words(result: Sweep) -> list[str]:
    known = [(found, one) for one in result.settings if (found := one.shared("found")) is not None]
    if len(known) < 2:
        return []
    highest, lowest = (pick(known, key=lambda pair: pair[0]) for pick in (max, min))
    return [
        f"Of its live features another seed finds {percent(highest[0])} again with"
        f" {_name(result, highest[1])}, the most, and {percent(lowest[0])} with {_name(result, lowest[1])},"
        " the fewest."
    ]


def _plot_tradeoff(settings: Sequence[SweptSetting], figure: Any) -> None:
    """A line for settings that differ in nothing but k, each point with its k; the frontier ringed."""
    axes = figure.subplots()
    lines: dict[tuple[str, ...], list[SweptSetting]] = defaultdict(list)
    for setting in settings:
        lines[
            tuple(part for part in setting_parts(setting.config, setting.audio) if part != _k(setting))
        ].append(setting)
    common = set.intersection(*map(set, lines)) if len(lines) > 1 else set[str]()
    for (parts, members), colour in zip(lines.items(), colours(len(lines)), strict=True):
        members.sort(key=lambda setting: setting.l0)
        label = " ".join(part for part in parts if part not in common)
        axes.plot([s.l0 for s in members], [s.fvu for s in members], "o-", color=colour, label=label, ms=4)
        for s in members:
            axes.annotate(
                _k(s), (s.l0, s.fvu), xytext=(4, 4), textcoords="offset points", fontsize=7, color=colour
            )
    best = frontier(settings)
    ring = {"markerfacecolor": "none", "markeredgecolor": OURS_COLOUR, "label": "frontier"}
    axes.plot([s.l0 for s in best], [s.fvu for s in best], "o", ms=10, **ring)
    axes.set_xlabel("active features a frame (L0)")
    axes.set_ylabel("variance unexplained (FVU)")
    legend(figure, axes, len(lines) + 1)


def _k(setting: SweptSetting) -> str:
    return f"k{setting.config.k}"


def _plot_stability(result: Sweep, figure: Any) -> None:
    """The mean of each setting, and its pairs of seeds."""
    axes = figure.subplots()
    for row, setting in enumerate(result.settings):
        if (mean := setting.shared("found")) is not None:
            axes.barh(row, 100 * mean, color=OTHER_COLOUR, alpha=0.4)
        pairs = [100 * pair.found for pair in setting.pairs if pair.found is not None]
        axes.plot(pairs, [row] * len(pairs), "o", color=OTHER_COLOUR, ms=3)
    axes.set_yticks(range(len(result.settings)), [_name(result, setting) for setting in result.settings])
    axes.invert_yaxis()
    axes.set_xlabel("live features found again, % (points: pairs of seeds)")
