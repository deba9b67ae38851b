"""The Markdown page of a bench's summary: one column an α."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from ..reports import metrics

Cells: TypeAlias = dict[str, dict[str, Any]]
"""One line of the table: what was measured at each α, by the α as a string."""


def table(summary: dict[str, Any]) -> str:
    """Markdown: conditions, non-speech, speech, definitions, failed clips."""
    alphas = [f"{alpha:g}" for alpha in summary["alphas"]]
    lines = [f"# {summary['model']}, {summary['backend']}, {summary['compute_type']}", ""]
    lines += [f"- {name}: {value}" for name, value in summary["conditions"].items()]
    for title, part in (("Non-speech", _nonspeech), ("Speech", _speech)):
        section = summary[title.replace("-", "").lower()]
        if section:
            lines += ["", f"## {title}: {section['clips']} clips", ""]
            lines += part(section, alphas)
    confidence = {a: cell for a, cell in summary["confidence"].items() if cell["segments"]}
    if any(cell["speech_prob_auc"] is not None for cell in confidence.values()):
        lines += ["", "## Confidence of segments", "", *_header("", alphas)]
        for name in ("segments", "speech_prob_auc", "hallucination_risk_auc"):
            lines.append(_line(name, summary["confidence"], alphas, _plain(name)))
    lines += ["", "## Definitions", ""]
    lines += [f"- **{name}**: {text}." for name, text in metrics.DEFINITIONS.items()]
    if summary["errors"]:
        lines += ["", f"## Failed: {len(summary['errors'])}", ""]
        lines += [f"- {row['path']}, α = {row['alpha']:g}: {row['error']}" for row in summary["errors"]]
    return "\n".join(lines) + "\n"


def _nonspeech(section: dict[str, Any], alphas: Sequence[str]) -> list[str]:
    total: Cells = section["total"]
    lines = _header("", alphas)
    for name in ("FPR_text", "FPR_raw", "FPR_nsp", "HR_keep"):
        lines.append(_line(f"**{name}**", total, alphas, _share(name)))
    lines.append(_line("FPR_text, change to α = 0", total, alphas, _change("FPR_text_change", 1)))
    lines.append(_line("FPR_text, relative reduction", total, alphas, _percent))
    lines.append(_line("chars_per_minute", total, alphas, _plain("chars_per_minute")))
    lines.append(_line("wall_ratio", total, alphas, _plain("wall_ratio")))
    for grouping, groups in _groupings(section, "source", "class"):
        lines += ["", *_header(f"FPR_text by {grouping}", alphas)]
        for name, cells in groups.items():
            lines.append(_line(name, cells, alphas, _share("FPR_text")))
    return lines


def _speech(section: dict[str, Any], alphas: Sequence[str]) -> list[str]:
    total: Cells = section["total"]
    lines = _header("", alphas)
    lines.append(_line("**WER**", total, alphas, _wer))
    lines.append(_line("WER, change to α = 0", total, alphas, _change("WER_change", 2)))
    for name in ("substitutions", "deletions", "insertions"):
        lines.append(_line(name, total, alphas, _plain(name)))
    lines.append(_line("deletions, change to α = 0", total, alphas, _change("deletions_change", 2)))
    lines.append(_line("**FRR**", total, alphas, _share("FRR")))
    lines.append(_line("wall_ratio", total, alphas, _plain("wall_ratio")))
    for grouping, groups in _groupings(section, "source", "language"):
        lines += ["", *_header(f"WER by {grouping}", alphas)]
        for name, cells in groups.items():
            lines.append(_line(name or "unknown", cells, alphas, _wer_and_change))
    lines += ["", *_header("Deletions by source", alphas)]
    for name, cells in section["by_source"].items():
        lines.append(_line(name, cells, alphas, _deletions))
    lines += _gaps(section, alphas)
    borrowed = max(cell["own_reference"] for cell in total.values())
    if borrowed:
        lines += ["", f"{borrowed} utterances have no reference: their α = 0 transcript is it."]
    return lines


def _groupings(section: dict[str, Any], *groupings: str) -> list[tuple[str, dict[str, Cells]]]:
    """The groups by each grouping that says more than the one before: a folder's class is its source."""
    found: list[tuple[str, dict[str, Cells]]] = []
    for grouping in groupings:
        groups: dict[str, Cells] = section[f"by_{grouping}"]
        known = list(found[-1][1].values()) if found else []
        if len(groups) != len(known) or any(cells not in known for cells in groups.values()):
            found.append((grouping, groups))
    return found


def _gaps(section: dict[str, Any], alphas: Sequence[str]) -> list[str]:
    """Recordings with gaps, where there are any: in total, then each source."""
    lines: list[str] = []
    for name, cells in {"Gaps": section["total"], **section["by_source"]}.items():
        if not any("gap_words" in cell for cell in cells.values()):
            continue
        lines += ["", *_header(name if name == "Gaps" else f"Gaps of {name}", alphas)]
        lines.append(_line("**gap_words**", cells, alphas, _gap_words))
        lines.append(_line("gap_words_per_minute", cells, alphas, _plain("gap_words_per_minute")))
        change = _change("gap_words_per_minute_change", 2, 1, "a minute")
        lines.append(_line("gap_words_per_minute, change to α = 0", cells, alphas, change))
        lines.append(_line("**boundary_errors**", cells, alphas, _boundary_errors))
        lines.append(
            _line("boundary_errors, change to α = 0", cells, alphas, _change("boundary_errors_change", 2))
        )
        lines.append(_line("timestamp_shift", cells, alphas, _shift))
    return lines


def _header(first: str, alphas: Sequence[str]) -> list[str]:
    return [
        f"| {first} | " + " | ".join(f"α = {alpha}" for alpha in alphas) + " |",
        "|---|" + "---|" * len(alphas),
    ]


def _line(name: str, cells: Cells, alphas: Sequence[str], text: Callable[[dict[str, Any]], str]) -> str:
    return f"| {name} | " + " | ".join(text(cells[alpha]) for alpha in alphas) + " |"


def _share(name: str) -> Callable[[dict[str, Any]], str]:
    def text(cell: dict[str, Any]) -> str:
        rate = cell.get(name)
        if rate is None:
            return "–"
        interval = f"[{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"
        return f"{rate['k']}/{rate['n']} = {100 * rate['rate']:.1f}% {interval}"

    return text


def _change(name: str, digits: int, scale: int = 100, unit: str = "pp") -> Callable[[dict[str, Any]], str]:
    def text(cell: dict[str, Any]) -> str:
        change = cell.get(name)
        if change is None:
            return "–"
        value, low, high = (f"{scale * change[key]:+.{digits}f}" for key in ("value", "low", "high"))
        return f"{value} {unit} [{low}, {high}]"

    return text


def _plain(name: str) -> Callable[[dict[str, Any]], str]:
    def text(cell: dict[str, Any]) -> str:
        value = cell.get(name)
        if value is None:
            return "–"
        return str(value) if isinstance(value, int) else f"{value:.3f}"

    return text


def _percent(cell: dict[str, Any]) -> str:
    value = cell.get("FPR_text_reduction")
    return "–" if value is None else f"{100 * value:.1f}%"


def _wer(cell: dict[str, Any]) -> str:
    if cell["WER"] is None:
        return "–"
    return f"{100 * cell['WER']:.2f}% of {cell['words']} words"


def _wer_and_change(cell: dict[str, Any]) -> str:
    change = _change("WER_change", 2)(cell)
    return _wer(cell) if change == "–" else f"{_wer(cell)}, {change}"


def _deletions(cell: dict[str, Any]) -> str:
    change = _change("deletions_change", 2)(cell)
    return str(cell["deletions"]) if change == "–" else f"{cell['deletions']}, {change}"


def _gap_words(cell: dict[str, Any]) -> str:
    return f"{cell['gap_words']} in {cell['gap_minutes']:.1f} min" if "gap_words" in cell else "–"


def _boundary_errors(cell: dict[str, Any]) -> str:
    if not cell.get("boundary_words"):
        return "–"
    return f"{cell['boundary_errors']} of {cell['boundary_words']} words"


def _shift(cell: dict[str, Any]) -> str:
    if cell.get("timestamp_shift_median") is None:
        return "–"
    return f"{cell['timestamp_shift_median']:.2f} s, 95%: {cell['timestamp_shift_p95']:.2f} s"
