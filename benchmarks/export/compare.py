"""Two runs of `bench fpr` or `bench wer` on the same clips: how the second differs from the first.

    python -m benchmarks.export.compare runs/attached runs/exported --out exported-int8-wer.json

Each run counts at its largest α: attached at 1; an exported model, which takes no α, at 0.
Intervals are paired bootstrap ones over the clips that both have.
"""

from pathlib import Path
from typing import Any

from whisper_sae_steer.bench.report import wrote
from whisper_sae_steer.bench.runner import Row, read_rows
from whisper_sae_steer.reports import metrics

from ..arguments import script_parser
from ..results import as_json, write_results


def main() -> None:
    """Print and write the differences."""
    parser = script_parser(__doc__, "--out")
    parser.add_argument("runs", nargs=2, type=Path, help="folders that the benches wrote")
    args = parser.parse_args()
    before, after = (_rows(run) for run in args.runs)
    paths = [path for path in before if path in after]
    found: dict[str, Any] = {"before": _name(before), "after": _name(after), "clips": len(paths)}
    for kind, compare in (("speech", _speech), ("sounds", _sounds)):
        pairs = [
            (before[p], after[p]) for p in paths if (before[p]["kind"] == "speech") == (kind == "speech")
        ]
        if pairs:
            found[kind] = compare(pairs)
    write_results(args.out, found)
    print(as_json(found))


def _rows(run: Path) -> dict[str, Row]:
    rows = [row for row in read_rows(run / "clips.jsonl") if row["error"] is None]
    alpha = max(row["alpha"] for row in rows)
    return {row["path"]: row for row in rows if row["alpha"] == alpha}


def _name(rows: dict[str, Row]) -> str:
    row = next(iter(rows.values()))
    return f"{row['model']}, {row['backend']}, {row['compute_type']}, alpha {row['alpha']:g}"


def _speech(pairs: list[tuple[Row, Row]]) -> dict[str, Any]:
    before, after = ([_errors(row) for row in side] for side in zip(*pairs, strict=True))
    totals = [metrics.total([errors for errors in side if errors]) for side in (before, after)]
    same = [
        metrics.normalise(b["text"] or "", b["language"]) == metrics.normalise(a["text"] or "", b["language"])
        for b, a in pairs
    ]
    return {
        "words": totals[0].words,
        "WER": [errors.rate for errors in totals],
        "change": metrics.word_error_change(after, before)._asdict(),
        "transcripts with other words": same.count(False),
        "lost": [b["path"] for b, a in pairs if wrote(b) and not wrote(a)],
    }


def _errors(row: Row) -> metrics.WordErrors | None:
    return metrics.word_errors(row["reference"] or "", row["text"] or "", row["language"])


def _sounds(pairs: list[tuple[Row, Row]]) -> dict[str, Any]:
    before, after = ([wrote(row) for row in side] for side in zip(*pairs, strict=True))
    return {
        "FPR_text": [metrics.wilson(sum(side), len(side))._asdict() for side in (before, after)],
        "change": metrics.bootstrap_difference(after, before)._asdict(),
        "texts after": {a["path"]: a["text"] for _, a in pairs if wrote(a)},
    }


if __name__ == "__main__":
    main()
