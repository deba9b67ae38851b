"""The one-page report of a calibration: text for the terminal, and an HTML file with plots."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..reports.failures import failed_recordings
from ..reports.page import aligned, heading, image, paragraph, percent, points, table, write_page
from ..reports.plots import distribution
from .measure import CalibrationReport, FeatureRow
from .strength import MAX_COST, AlphaPoint

FEWEST_SPEAKERS = 20
"""or recordings: the bound from fewer is 5% or more, however little is touched"""


def text_report(report: CalibrationReport) -> str:
    """The report for a terminal."""
    return "\n".join(
        [verdict(report), *_summary(report), "", *_curve_lines(report), "", *_feature_lines(report)]
    )


def write_html(report: CalibrationReport, path: Path) -> None:
    """The report as one self-contained HTML page."""
    failed = failed_recordings(report.failures)
    body = [paragraph(verdict(report)), *gains(report), *failed, *details(report)]
    write_page(path, f"Steering pack for {report.metadata.model}", body)


def verdict(report: CalibrationReport) -> str:
    """What was gained and what it cost, in a sentence."""
    before, after = _at(report, 0.0), _at(report, 1.0)
    gained, cost = after.fpr_raw < before.fpr_raw, after.wer_change or 0.0
    if not gained:
        opening = "This pack gains nothing"
    elif cost > MAX_COST:
        opening = "This pack keeps text away from silence, but costs words"
    else:
        opening = "This pack keeps text away from silence"
    price = (
        "what it costs in words is not known, because no speech was given"
        if after.wer is None
        else f"WER of speech {percent(after.wer)} (unsteered {percent(before.wer)})"
    )
    return (
        f"{opening}: text for {percent(after.fpr_raw)} of held-back windows without speech (unsteered"
        f" {percent(before.fpr_raw)}); {price}."
    )


def gains(report: CalibrationReport) -> list[Markup]:
    """What was gained and what it cost, as parts of a page."""
    return [
        heading("Held-back recordings, against α"),
        table(_CURVE_HEAD, _curve_rows(report)),
        image(partial(_plot_curve, report), "FPR and WER against alpha"),
        *(paragraph(f"{line}.", small=True) for line in _summary(report)),
    ]


def details(report: CalibrationReport) -> list[Markup]:
    """What the pack is made of, as parts of a page."""
    metadata = report.metadata
    made = (
        f"Made with {metadata.created_with}; weights {metadata.fingerprint[:12]}, tap {metadata.tap}."
        f" {_definition(report)}"
    )
    return [
        heading("no_speech_prob of windows without speech"),
        image(partial(_plot_no_speech, report), "no_speech_prob before and after", 1.6),
        heading("The strongest features of the gate and of the edit, and when they fire"),
        table(_FEATURE_HEAD, [_feature_cells(row) for row in report.features]),
        heading("Search for the strength of α = 1"),
        table(
            ("unit", "FPR_raw", "FPR_kept", "WER change"),
            [
                (f"{u:.3g}", percent(p.fpr_raw), percent(p.fpr_kept), points(p.wer_change))
                for u, p in report.search
            ],
        ),
        paragraph(made, small=True),
    ]


def _summary(report: CalibrationReport) -> list[str]:
    metadata = report.metadata
    before, after = _at(report, 0.0), _at(report, 1.0)
    lines = [
        f"{metadata.model}: {metadata.strategy} by {metadata.selection}, gate {metadata.gate};"
        f" {metadata.data['clips']} recordings and {metadata.data['synthetic']} synthetic sounds",
        f"Gained at α = 1: text on {percent(after.fpr_raw)} of held-back windows without speech"
        f" (unsteered {percent(before.fpr_raw)}; after Whisper's own rule {percent(after.fpr_kept)} and"
        f" {percent(before.fpr_kept)})",
    ]
    if after.wer is None:
        lines.append("Cost: not measured, because no speech was given; the shipped gate is kept")
    else:
        lines.append(
            f"Cost at α = 1: WER {percent(after.wer)} ({points(after.wer_change)} against unsteered)"
        )
    if not metadata.no_speech_works:
        lines.append(
            f"The model's no-speech token doesn't work (mean probability {before.no_speech_prob:.2g} without"
            " speech): the edit asks for the end of text alone, and silence is told by the gate"
        )
    if report.gate is not None:
        g = report.gate
        lines.append(
            f"Gate: AUC {g.auc:.4f}; touched {percent(g.speech_touched)} of {g.speech_windows} speech"
            f" windows, not fully open on {percent(g.other_missed)} of {g.other_windows} others"
        )
    if metadata.guarantee:
        lines.append(_promise(metadata.guarantee))
    return lines


def _at(report: CalibrationReport, alpha: float) -> AlphaPoint:
    return next(point for point in report.curve if point.alpha == alpha)


def _promise(promise: Mapping[str, Any]) -> str:
    at_most, touched, recordings = (promise[k] for k in ("touched_at_most", "touched", "recordings"))
    seen = f"{percent(touched)} of {recordings} speakers or recordings, each held back once"
    if recordings < FEWEST_SPEAKERS:
        return f"Guarantee: none, because {recordings} speakers or recordings are too few (touched: {seen})"
    return f"Guarantee: on average at most {percent(at_most)} of a new recording's speech is touched ({seen})"


def _definition(report: CalibrationReport) -> str:
    return f"Figures: {report.metadata.metrics['definition']}."


_CURVE_HEAD = ("α", "FPR_raw", "FPR_kept", "no_speech_prob", "WER", "WER change")
_FEATURE_HEAD = ("feature", "used in", "weight", "on speech", "on other", "most on")


def _curve_rows(report: CalibrationReport) -> list[tuple[str, ...]]:
    return [
        (
            *(f"{p.alpha:g}", percent(p.fpr_raw), percent(p.fpr_kept)),
            *(f"{p.no_speech_prob:.3f}", percent(p.wer), points(p.wer_change)),
        )
        for p in report.curve
    ]


def _curve_lines(report: CalibrationReport) -> list[str]:
    return aligned(_CURVE_HEAD, _curve_rows(report))


def _feature_lines(report: CalibrationReport) -> list[str]:
    return aligned(_FEATURE_HEAD, [_feature_cells(row) for row in report.features])


def _feature_cells(row: FeatureRow) -> tuple[str, ...]:
    return (
        str(row.feature),
        row.role,
        f"{row.weight:+.3f}",
        percent(row.on_speech),
        percent(row.on_other),
        row.top_source,
    )


def _plot_curve(report: CalibrationReport, figure: Any) -> None:
    left, right = figure.subplots(1, 2)
    alphas = [p.alpha for p in report.curve]
    left.plot(alphas, [100 * p.fpr_raw for p in report.curve], "o-", label="FPR_raw")
    left.plot(alphas, [100 * p.fpr_kept for p in report.curve], "s-", label="FPR_kept")
    left.set(xlabel="α", ylabel="% of windows without speech", ylim=(0, None))
    left.legend(frameon=False)
    words = [(p.alpha, 100 * p.wer) for p in report.curve if p.wer is not None]
    if words:
        right.plot(*zip(*words, strict=True), "o-")
    right.set(xlabel="α", ylabel="WER of speech, %", ylim=(0, None))


def _plot_no_speech(report: CalibrationReport, figure: Any) -> None:
    axes = figure.subplots()
    series = {"unsteered": report.no_speech_before, "α = 1": report.no_speech_after}
    distribution(axes, series, 0.0, 1.0)
    axes.set_xlabel("no_speech_prob")
