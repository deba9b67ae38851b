"""From the rows of a bench to `summary.json` and `table.md`."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ..audio.clips import NONSPEECH_KINDS
from ..errors import ManifestError
from ..files import write_text
from ..reports import metrics
from . import gaps
from .runner import Row
from .table import table

Measured: TypeAlias = Mapping[float, Row]
"""The rows of one clip, by α."""
Summary: TypeAlias = dict[str, Any]


def summarise(rows: Iterable[Row], conditions: Mapping[str, str] | None = None) -> Summary:
    """Work out every metric at every α: in total, per source, per class and per language.

    Where a clip and α come twice, the last row counts. Differences to α = 0 and `wall_ratio` use
    the clips measured at both. Speech without a reference is compared with its own transcript at
    α = 0; `own_reference` counts such utterances.

    Raises ManifestError if the rows are of several models or packs, or none is a measurement.
    """
    clips: dict[str, dict[float, Row]] = defaultdict(dict)
    errors: list[dict[str, Any]] = []
    models: set[tuple[str, str, str]] = set()
    packs: set[str | None] = set()
    for row in rows:
        models.add((row["model"], row["backend"], row["compute_type"]))
        if row["alpha"]:
            packs.add(row["pack"])
        if row["error"] is None:
            clips[row["path"]][row["alpha"]] = row
        else:
            errors.append({name: row[name] for name in ("path", "alpha", "error")})
    if len(models) > 1:
        names = "; ".join(sorted(" ".join(model) for model in models))
        raise ManifestError(f"rows of several models can't share a table: {names}")
    if len(packs) > 1:
        raise ManifestError(f"rows of several packs can't share a table: {packs}")
    if not clips:
        raise ManifestError("no clip was measured" + (f": {errors[0]['error']}" if errors else ""))
    alphas = sorted({alpha for measured in clips.values() for alpha in measured})
    nonspeech = [clip for clip in clips.values() if _kind(clip) in NONSPEECH_KINDS]
    speech = [clip for clip in clips.values() if _kind(clip) == "speech"]
    model, backend, compute_type = models.pop()
    return {
        "model": model,
        "backend": backend,
        "compute_type": compute_type,
        "pack": packs.pop() if packs else None,
        "conditions": dict(conditions or {}),
        "definitions": metrics.DEFINITIONS,
        "alphas": alphas,
        "nonspeech": _section(nonspeech, alphas, _nonspeech, ("source", "class")),
        "speech": _section(speech, alphas, _speech, ("source", "class", "language")),
        "confidence": {f"{alpha:g}": _confidence(clips.values(), alpha) for alpha in alphas},
        "errors": errors,
    }


def write_report(
    out_dir: str | Path, rows: Iterable[Row], conditions: Mapping[str, str] | None = None
) -> Summary:
    """Write `summary.json` and `table.md` into a folder; return the summary."""
    summary = summarise(rows, conditions)
    texts = {
        "summary.json": json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "table.md": table(summary),
    }
    for name, text in texts.items():
        write_text(Path(out_dir) / name, text)
    return summary


def _section(
    clips: Sequence[Measured],
    alphas: Sequence[float],
    measure: Callable[[Sequence[Measured], float], Summary],
    groupings: Sequence[str],
) -> Summary | None:
    """`measure` at every α for all clips and for the clips of each source, class, ..."""
    if not clips:
        return None

    def at_all(members: Sequence[Measured]) -> Summary:
        return {f"{alpha:g}": measure(members, alpha) for alpha in alphas}

    section: Summary = {"clips": len(clips), "total": at_all(clips)}
    for grouping in groupings:
        groups: dict[str, list[Measured]] = defaultdict(list)
        for clip in clips:
            groups[str(_any_row(clip)[grouping])].append(clip)
        section[f"by_{grouping}"] = {name: at_all(groups[name]) for name in sorted(groups)}
    return section


def _nonspeech(clips: Sequence[Measured], alpha: float) -> Summary:
    rows = [clip[alpha] for clip in clips if alpha in clip]
    raws = [row["raw"] for row in rows if row["raw"] is not None]
    minutes = sum(row["seconds"] or 0 for row in rows) / 60
    written = sum(metrics.characters(row["text"] or "") for row in rows)
    result: Summary = {
        "clips": len(rows),
        "minutes": round(minutes, 3),
        "FPR_text": _rate([wrote(row) for row in rows]),
        "FPR_raw": _rate([metrics.has_text(raw["text"]) for raw in raws]),
        "FPR_nsp": _rate([metrics.not_flagged(raw) for raw in raws]),
        "HR_keep": _rate([metrics.kept(raw) for raw in raws]),
        "chars_per_minute": written / minutes if minutes else None,
    }
    if alpha:
        both = _paired(clips, alpha)
        after, before = ([wrote(clip[a]) for clip in both] for a in (alpha, 0.0))
        result["FPR_text_change"] = _difference(after, before)
        result["FPR_text_reduction"] = 1 - sum(after) / sum(before) if any(before) else None
        result["wall_ratio"] = _wall_ratio(both, alpha)
    return result


def _speech(clips: Sequence[Measured], alpha: float) -> Summary:
    present = [clip for clip in clips if alpha in clip]
    scored = [errors for clip in present if (errors := _word_errors(clip, alpha))]
    errors = metrics.total(scored)
    result: Summary = {
        "clips": len(present),
        "scored": len(scored),
        "own_reference": sum(_any_row(clip)["reference"] is None for clip in present),
        "words": errors.words,
        "WER": errors.rate if errors.words else None,
        "substitutions": errors.substitutions,
        "deletions": errors.deletions,
        "insertions": errors.insertions,
        **_gaps(present, alpha),
    }
    if alpha:
        both = _paired(clips, alpha)
        after, before = ([_word_errors(clip, a) for clip in both] for a in (alpha, 0.0))
        for name, field in (("WER_change", "errors"), ("deletions_change", "deletions")):
            change = metrics.word_error_change(after, before, field)
            result[name] = change._asdict() if change.n else None
        spoken = [clip[alpha] for clip in both if wrote(clip[0.0])]
        result["FRR"] = _rate([not wrote(row) for row in spoken])
        result["wall_ratio"] = _wall_ratio(both, alpha)
    return result


def _gaps(clips: Sequence[Measured], alpha: float) -> Summary:
    """The metrics of the clips that have gaps; nothing where none has."""
    chosen = [clip for clip in clips if clip[alpha].get("gaps")]  # rows of older runs have no such field
    if not chosen:
        return {}
    result = gaps.summarise([_gap_score(clip, alpha) for clip in chosen])
    both = _paired(chosen, alpha)
    if alpha and both:
        after, before = ([_gap_score(clip, a) for clip in both] for a in (alpha, 0.0))
        result |= gaps.changes(after, before)
    return result


def _gap_score(clip: Measured, alpha: float) -> gaps.GapScore:
    row = clip[alpha]
    reference, seconds = row["reference"] or "", row["seconds"] or 0
    return gaps.score(row["gaps"], reference, row["segments"], row["language"], seconds)


def _confidence(clips: Iterable[Measured], alpha: float) -> Summary:
    """How well the segments' own scores tell speech from non-speech clips, None without scores."""
    scores: dict[str, tuple[list[float], list[float]]] = {
        "speech_prob": ([], []),
        "hallucination_risk": ([], []),
    }
    for row in (clip[alpha] for clip in clips if alpha in clip):
        for segment in row["segments"]:
            for name, (speech, nonspeech) in scores.items():
                if segment[name] is not None:
                    (speech if row["kind"] == "speech" else nonspeech).append(segment[name])
    speech, nonspeech = scores["speech_prob"]
    risky, harmless = scores["hallucination_risk"][::-1]
    return {
        "segments": len(speech) + len(nonspeech),
        "speech_prob_auc": metrics.auc(speech, nonspeech),
        "hallucination_risk_auc": metrics.auc(risky, harmless),
    }


def _word_errors(clip: Measured, alpha: float) -> metrics.WordErrors | None:
    row = clip[alpha]
    reference = row["reference"]
    if reference is None and 0.0 in clip:
        reference = clip[0.0]["text"]
    return metrics.word_errors(reference or "", row["text"] or "", row["language"])


def wrote(row: Row) -> bool:
    """Whether a row's transcript has text; speech is normalised in its language."""
    language = row["language"] if row["kind"] == "speech" else ""
    return metrics.has_text(row["text"] or "", language)


def _paired(clips: Sequence[Measured], alpha: float) -> list[Measured]:
    return [clip for clip in clips if alpha in clip and 0.0 in clip]


def _wall_ratio(both: Sequence[Measured], alpha: float) -> float | None:
    before = sum(clip[0.0]["wall"] or 0 for clip in both)
    return sum(clip[alpha]["wall"] or 0 for clip in both) / before if before else None


def _rate(hits: Sequence[bool]) -> Summary | None:
    return metrics.wilson(sum(hits), len(hits))._asdict() if hits else None


def _difference(after: Sequence[float], before: Sequence[float]) -> Summary | None:
    return metrics.bootstrap_difference(after, before)._asdict() if after else None


def _any_row(clip: Measured) -> Row:
    return next(iter(clip.values()))


def _kind(clip: Measured) -> str:
    return _any_row(clip)["kind"]
