"""The one-page report of a calibration: text for the terminal, and an HTML file with plots."""

import base64
import html
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

from ..files import write_atomically
from .calibration import CalibrationReport, FeatureRow

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#222}table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .7rem;text-align:right;
border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}img{max-width:100%}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}small{color:#666}"""


def text_report(report: CalibrationReport) -> str:
    """The report for a terminal."""
    return "\n".join([*_summary(report), "", *_curve_lines(report), "", *_feature_lines(report)])


def write_html(report: CalibrationReport, path: Path) -> None:
    """The report as one self-contained HTML page."""
    metadata = report.metadata
    body = [
        f"<h1>Steering pack for {html.escape(metadata.model)}</h1>",
        *(f"<p>{html.escape(line)}</p>" for line in _summary(report)),
        "<h2>Held-back recordings, against α</h2>",
        _table(_CURVE_HEAD, _curve_rows(report)),
        _image(_plot_curve, report, "FPR and WER against alpha"),
        "<h2>no_speech_prob of windows without speech</h2>",
        _image(_plot_no_speech, report, "Histogram of no_speech_prob before and after"),
        "<h2>The strongest features of the gate and of the edit, and when they fire</h2>",
        _table(_FEATURE_HEAD, [_feature_cells(row) for row in report.features]),
        "<h2>Search for the strength of α = 1</h2>",
        _table(
            ("unit", "FPR_raw", "FPR_kept", "WER change"),
            [(f"{u:.3g}", _pc(p.fpr_raw), _pc(p.fpr_kept), _pp(p.wer_change)) for u, p in report.search],
        ),
        f"<p><small>Made with {html.escape(metadata.created_with)}; weights"
        f" {metadata.fingerprint[:12]}, tap {metadata.tap}. {html.escape(_definition(report))}</small></p>",
    ]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Steering pack for'
        f" {html.escape(metadata.model)}</title><style>{STYLE}</style>{''.join(body)}</html>\n"
    )
    with write_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _summary(report: CalibrationReport) -> list[str]:
    metadata = report.metadata
    before, after = (next(p for p in report.curve if p.alpha == a) for a in (0.0, 1.0))
    lines = [
        f"{metadata.model}: {metadata.strategy} by {metadata.selection}, gate {metadata.gate};"
        f" {metadata.data['clips']} recordings and {metadata.data['synthetic']} synthetic sounds",
        f"Gained at α = 1: text on {_pc(after.fpr_raw)} of held-back windows without speech"
        f" (unsteered {_pc(before.fpr_raw)}; after Whisper's own rule {_pc(after.fpr_kept)} and"
        f" {_pc(before.fpr_kept)})",
    ]
    if after.wer is None:
        lines.append("Cost: not measured, because no speech was given; the shipped gate is kept")
    else:
        lines.append(f"Cost at α = 1: WER {_pc(after.wer)} ({_pp(after.wer_change)} against unsteered)")
    if report.gate is not None:
        g = report.gate
        lines.append(
            f"Gate: AUC {g.auc:.4f}; touched {_pc(g.speech_touched)} of {g.speech_windows} speech"
            f" windows, not fully open on {_pc(g.other_missed)} of {g.other_windows} others"
        )
    return lines


def _definition(report: CalibrationReport) -> str:
    return f"Figures: {report.metadata.metrics['definition']}."


_CURVE_HEAD = ("α", "FPR_raw", "FPR_kept", "no_speech_prob", "WER", "WER change")
_FEATURE_HEAD = ("feature", "used in", "weight", "on speech", "on other", "most on")


def _curve_rows(report: CalibrationReport) -> list[tuple[str, ...]]:
    return [
        (
            *(f"{p.alpha:g}", _pc(p.fpr_raw), _pc(p.fpr_kept)),
            *(f"{p.no_speech_prob:.3f}", _pc(p.wer), _pp(p.wer_change)),
        )
        for p in report.curve
    ]


def _curve_lines(report: CalibrationReport) -> list[str]:
    return _aligned(_CURVE_HEAD, _curve_rows(report))


def _feature_lines(report: CalibrationReport) -> list[str]:
    return _aligned(_FEATURE_HEAD, [_feature_cells(row) for row in report.features])


def _feature_cells(row: FeatureRow) -> tuple[str, ...]:
    return (
        str(row.feature),
        row.role,
        f"{row.weight:+.3f}",
        _pc(row.on_speech),
        _pc(row.on_other),
        row.top_source,
    )


def _aligned(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]
    ]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _image(plot: Callable[[CalibrationReport, Any], None], report: CalibrationReport, alt: str) -> str:
    from matplotlib.figure import Figure  # drawing is slow to import and needed only here

    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7, 3), layout="constrained")
        plot(report, figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/svg+xml;base64,{data}">'


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
    values = [list(report.no_speech_before), list(report.no_speech_after)]
    axes.hist(values, bins=[i / 20 for i in range(21)], label=["unsteered", "α = 1"])
    axes.set(xlabel="no_speech_prob", ylabel="windows")
    axes.legend(frameon=False)


def _pc(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}%"


def _pp(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:+.2f} pp"
