"""Recordings of speech with gaps: what is written into the gaps, and what happens to the words around them.

Where the gaps lie is known to the millisecond, where a word was written only as well as segments
tell: their words are spread evenly over their time. So a word that is right never counts as
written into a gap, however loose the times of its segment are.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import jiwer
import numpy as np

from ..reports import metrics

MARGIN_SECONDS = 0.5
"""Seconds at both ends of a gap where a word still counts as written beside it."""


class GapScore(NamedTuple):
    """What one transcript of a recording with gaps did at them."""

    words: int
    """Words written into gaps."""
    minutes: float
    """Length of all gaps."""
    boundary_errors: int
    """Reference words next to a gap that are deleted or substituted."""
    boundary_words: int
    """Reference words next to a gap: up to two on either side."""
    shifts: tuple[float, ...]
    """Seconds between each true onset or offset of speech and the nearest segment start or end."""


def score(
    gaps: Sequence[Sequence[float]],
    reference: str,
    segments: Sequence[dict[str, Any]],
    language: str,
    seconds: float,
) -> GapScore:
    """Score the segments (`start`, `end`, `text`) of one recording of `seconds`.

    `reference` has a `|` for every gap, where the gap falls among its words; without those marks
    there are no boundary words, and without a reference every word in a gap counts.
    """
    parts = [metrics.normalise(part, language).split() for part in reference.split("|")]
    truth = [word for part in parts for word in part]
    written = [metrics.normalise(segment["text"], language).split() for segment in segments]
    wrong, right, inserted = align(truth, [word for words in written for word in words])
    inside = _open_ended(gaps, seconds)
    count = at = 0
    for segment, words in zip(segments, written, strict=True):
        places = range(at, at + len(words))
        at += len(words)
        # a wrong word beside right ones is misheard speech; alone, it was made up
        false = inserted if right.intersection(places) else inserted.union(places)
        width = (segment["end"] - segment["start"]) / max(1, len(words))
        middles = {place: segment["start"] + (i + 0.5) * width for i, place in enumerate(places)}
        count += sum(place in false and _within(middle, inside) for place, middle in middles.items())
    around = _boundary([len(part) for part in parts]) if len(parts) == len(gaps) + 1 else set[int]()
    return GapScore(
        words=count,
        minutes=sum(end - start for start, end in gaps) / 60,
        boundary_errors=len(wrong & around),
        boundary_words=len(around),
        shifts=_shifts(inside, segments),
    )


def summarise(scores: Sequence[GapScore]) -> dict[str, Any]:
    """The metrics of several recordings, named as in `metrics.DEFINITIONS`."""
    words, minutes = sum(score.words for score in scores), sum(score.minutes for score in scores)
    shifts = [shift for score in scores for shift in score.shifts]
    median, high = np.percentile(shifts, [50, 95]).tolist() if shifts else (None, None)
    return {
        "gap_words": words,
        "gap_minutes": round(minutes, 3),
        "gap_words_per_minute": words / minutes if minutes else None,
        "boundary_errors": sum(score.boundary_errors for score in scores),
        "boundary_words": sum(score.boundary_words for score in scores),
        "timestamp_shift_median": median,
        "timestamp_shift_p95": high,
    }


def changes(after: Sequence[GapScore], before: Sequence[GapScore]) -> dict[str, Any]:
    """Changes between two transcripts of each recording: gap words a minute, share of boundary errors."""
    result: dict[str, Any] = {}
    for name, field, weight in (
        ("gap_words_per_minute_change", "words", "minutes"),
        ("boundary_errors_change", "boundary_errors", "boundary_words"),
    ):
        ends, starts = ([getattr(score, field) for score in scores] for scores in (after, before))
        weights = [getattr(score, weight) for score in before]
        known = any(weights)
        result[name] = metrics.bootstrap_difference(ends, starts, weights)._asdict() if known else None
    return result


def align(truth: Sequence[str], written: Sequence[str]) -> tuple[set[int], set[int], set[int]]:
    """Places of the wrong words of the truth, and of the right and the inserted words written."""
    if not truth:
        return set(), set(), set(range(len(written)))
    (chunks,) = jiwer.process_words(" ".join(truth), " ".join(written)).alignments
    wrong: set[int] = set()
    right: set[int] = set()
    inserted: set[int] = set()
    for chunk in chunks:
        if chunk.type == "equal":
            right.update(range(chunk.hyp_start_idx, chunk.hyp_end_idx))
        else:
            wrong.update(range(chunk.ref_start_idx, chunk.ref_end_idx))
        if chunk.type == "insert":
            inserted.update(range(chunk.hyp_start_idx, chunk.hyp_end_idx))
    return wrong, right, inserted


def _open_ended(gaps: Sequence[Sequence[float]], seconds: float) -> list[tuple[float, float]]:
    """Gaps that touch an end of the recording go on beyond it: segments may end in the padding."""
    infinity = float("inf")
    return [
        (start if start > 0.05 else -infinity, end if end < seconds - 0.05 else infinity)
        for start, end in gaps
    ]


def _within(time: float, gaps: Sequence[tuple[float, float]]) -> bool:
    return any(start + MARGIN_SECONDS < time < end - MARGIN_SECONDS for start, end in gaps)


def _boundary(lengths: Sequence[int]) -> set[int]:
    """Places of the last two words before each gap and the first two after it.

    `lengths` are the words of each part of the reference; the gaps lie between the parts.
    """
    ends = list(accumulate(lengths, initial=0))
    around: set[int] = set()
    for before, gap, after in zip(ends, ends[1:], ends[2:], strict=False):
        around.update(range(max(before, gap - 2), min(after, gap + 2)))
    return around


def _shifts(gaps: Sequence[tuple[float, float]], segments: Sequence[dict[str, Any]]) -> tuple[float, ...]:
    if not segments:
        return ()
    shifts: list[float] = []
    for edges, name in zip(zip(*gaps, strict=True), ("end", "start"), strict=True):
        times = np.array([segment[name] for segment in segments], dtype=np.float64)
        shifts += [float(np.abs(times - edge).min()) for edge in edges if np.isfinite(edge)]
    return tuple(shifts)
