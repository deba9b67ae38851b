"""What a comparison is read from: `table.md`, and `report.html`, one page that needs no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...audio.clips import Clip
from ...files import write_text
from ...reports import metrics
from ...reports.page import heading, paragraph, percent, points, table, write_page
from ..runner import Row
from .examples import examples
from .plots import SHOWN, classes, histograms, pareto, speed
from .summary import RULE, Entry

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
    for title, head, rows in _group_tables(entries):
        lines += ["", f"## {title}", "", *_markdown(head, rows)]
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
        *_lead(entries),
        heading("Text without speech against errors on speech"),
        *pareto(entries),
        heading("Best setting of each method"),
        table(HEAD, _lines(entries, chosen=True)),
        paragraph(f"{RULE}.", small=True),
        *examples(entries, rows, clips),
    ]
    for title, head, lines in _group_tables(entries):
        body += [heading(title), table(head, lines)]
    body += [*classes(entries), *histograms(rows), *speed(entries)]
    if others := _lines(entries, chosen=False):
        body += [heading("Other settings"), table(HEAD, others)]
    body.append(heading("How it was measured"))
    body += [paragraph(f"{name}: {value}", small=True) for name, value in conditions.items()]
    body += [paragraph(f"{name}: {text}.", small=True) for name, text in DEFINITIONS.items()]
    write_page(path, "Peers on the same clips", body)


_GROUPS = {
    "FPR_text by source": ("nonspeech", "by_source", "FPR_text"),
    "FPR_text by class": ("nonspeech", "by_class", "FPR_text"),
    "WER by source": ("speech", "by_source", "WER"),
}


def _lead(entries: Sequence[Entry]) -> list[Markup]:
    """The outcome in a sentence: ours, and after it what is there without us."""
    shown = [e for name in reversed(SHOWN) for e in entries if e["chosen"] and e["method"] == name]
    said = [f"{entry['method']} {', '.join(_outcome(entry))}" for entry in shown if _outcome(entry)]
    return [paragraph(f"{'; '.join(said)}.".replace("ours", "Ours", 1))] if said else []


def _outcome(entry: Entry) -> list[str]:
    rate, wer = (entry["nonspeech"] or {}).get("FPR_text"), (entry["speech"] or {}).get("WER")
    text = [f"writes text for {rate['k']} of {rate['n']} clips without speech"] if rate else []
    return text if wer is None else [*text, f"WER {percent(wer, 2)} on speech"]


def _lines(entries: Sequence[Entry], chosen: bool) -> list[tuple[str, ...]]:
    return [(entry["method"], *_cells(entry)) for entry in entries if entry["chosen"] == chosen]


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


def _group_tables(
    entries: Sequence[Entry],
) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Title, head and lines of tables with a column for each group.

    None for a single group, which the totals show, and none that repeats the one before: a folder's class is
    its source.
    """
    tables: list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]] = []
    shown: list[list[tuple[str, ...]]] = []
    for title, (kind, grouping, metric) in _GROUPS.items():
        measured = [entry for entry in entries if entry["chosen"] and entry[kind]]
        groups = sorted({group for entry in measured for group in entry[kind][grouping]})
        columns = [
            tuple(_one(entry[kind][grouping].get(group), metric) for entry in measured) for group in groups
        ]
        if len(groups) > 1 and sorted(columns) not in shown:
            shown.append(sorted(columns))
            methods = [entry["method"] for entry in measured]
            tables.append((title, ("peer", *groups), list(zip(methods, *columns, strict=True))))
    return tables


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


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    rows = [head, ["---"] * len(head), *lines]
    return ["| " + " | ".join(row) + " |" for row in rows]
