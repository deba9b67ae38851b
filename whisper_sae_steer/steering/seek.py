"""Seeking by the gate: which part of a window is decoded, and where the next window begins.

Whisper seeks by the timestamps it writes. With a long gap in the window it may write on through the gap, or
close the text before it and lose the speech after it. The gate has heard where the speech is: a window with a
gap is cut where the gap begins, and the next one starts where it ends. A window without a long gap is left
alone, so ordinary speech costs nothing.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audio.units import MEL_FRAMES_PER_ENCODER_FRAME
from .pack import PackMetadata

NO_SPEECH_THRESHOLD, LOGPROB_THRESHOLD, COMPRESSION_RATIO_THRESHOLD = 0.6, -1.0, 2.4
"""both libraries' defaults"""
MIN_GAP = 150
"""frames (3 s) without speech that make a gap"""
PAD = 20
"""frames (0.4 s) left around speech"""
WORD_SECONDS = 0.2
"""of a word that stands for none: both libraries take shorter ones for hallucinations"""


class Plan(NamedTuple):
    """What to do with a window that has a gap, in encoder frames of 20 ms from its start."""

    start: int
    """nobody speaks before: seek there without decoding; 0 if the window begins well"""
    end: int
    """decode up to here, as if the audio ended"""
    next: int
    """where the next window begins"""


def plan_window(scores: NDArray[np.float32], content: int, metadata: PackMetadata) -> Plan | None:
    """Plan for a window from its smoothed speech scores [1500] and the number of frames with audio.

    None where there is nothing to cut: no gap of MIN_GAP frames before, between or after the speech, or no
    speech at all (such a window is steered).
    """
    if metadata.gap_threshold is None:
        return None
    regions = speech_regions(scores[:content], metadata.gap_threshold, metadata.highest_noise)
    if not regions:
        return None
    start, end = regions[0]
    if start - PAD >= MIN_GAP:
        return Plan(start - PAD, content, content)
    # what begins at the very end of a full window may not show yet
    last = content - PAD if content == len(scores) else content
    following = regions[1][0] - PAD if len(regions) > 1 else last
    return Plan(0, end + PAD, following) if following - end >= MIN_GAP else None


def frames_before_speech(scores: NDArray[np.float32], content: int, metadata: PackMetadata) -> int:
    """Frames of a window before its speech begins: ``content`` if it has none, 0 if it begins well."""
    if metadata.gap_threshold is None:
        return 0
    if not speech_regions(scores[:content], metadata.gap_threshold, metadata.highest_noise):
        return content
    plan = plan_window(scores, content, metadata)
    return plan.start if plan else 0


def seek_to(tokens: Sequence[int], plan: Plan, timestamp_begin: int) -> list[int]:
    """Tokens of a cut window such that both libraries seek to ``plan.next`` after them.

    Both take two timestamps in a row as the end of a segment and seek to the last one, so a segment of no
    length is added, which both drop. Where Whisper itself asks to go on from the middle of the
    speech, with such a pair, it may. Nothing ends after ``plan.end``.
    """
    last = timestamp_begin + plan.end
    times = [token >= timestamp_begin for token in tokens]
    pairs = [i for i in range(1, len(times)) if times[i - 1] and times[i]]
    single_ending = times[-2:] == [False, True]
    if pairs and not single_ending and timestamp_begin < tokens[pairs[-1] - 1] <= last:
        return list(tokens)
    closed = _ended_by(tokens, last, timestamp_begin)
    if closed and not times[0]:
        closed.insert(0, timestamp_begin)
    if closed and not times[-1]:
        closed.append(timestamp_begin + max(0, plan.end - PAD))
    target = timestamp_begin + plan.next
    return [*closed, target, target]


def _ended_by(tokens: Sequence[int], last: int, timestamp_begin: int) -> list[int]:
    """The tokens, where segments that began before the timestamp ``last`` end by then."""
    ended: list[int] = []
    start = timestamp_begin
    for token in tokens:
        if token >= timestamp_begin:
            ends = bool(ended) and ended[-1] < timestamp_begin
            token = min(token, last) if ends and start < last else token
            start = token
        ended.append(token)
    return ended


def hold_seek(segments: Sequence[dict[str, Any]], plan: Plan, timestamp_begin: int) -> None:
    """Keep word timings from moving the seek back: both libraries then seek to the end of the last word.

    The segment that :func:`seek_to` added gets a blank word, of a length that neither takes for a
    hallucination; it is dropped with it.
    """
    last = segments[-1]
    if last["tokens"] == [timestamp_begin + plan.next]:
        start = max(0.0, last["end"] - WORD_SECONDS)
        last["words"] = [{"word": " ", "start": start, "end": last["end"], "probability": 1.0}]


class SilenceRule(NamedTuple):
    """Whisper's own: skip a window that is probably silent, unless its text is likely."""

    no_speech_threshold: float | None = NO_SPEECH_THRESHOLD
    logprob_threshold: float | None = LOGPROB_THRESHOLD

    def __call__(self, no_speech_prob: float, avg_logprob: float) -> bool:
        """Whether the window is skipped."""
        if self.no_speech_threshold is None or no_speech_prob <= self.no_speech_threshold:
            return False
        return self.logprob_threshold is None or avg_logprob <= self.logprob_threshold


def speech_regions(scores: NDArray[np.float32], low: float, peak: float) -> list[tuple[int, int]]:
    """Stretches above ``low`` at least MIN_GAP apart; one that stays under ``peak`` is no speech.

    Words buried in noise rise little above that peak: a stretch in doubt is no gap.
    """
    edges = np.flatnonzero(np.diff(scores > low, prepend=False, append=False))
    regions: list[tuple[int, int]] = []
    for start, end in edges.reshape(-1, 2).tolist():
        if scores[start:end].max() < peak:
            continue
        if regions and start - regions[-1][1] < MIN_GAP:
            start = regions.pop()[0]
        regions.append((start, end))
    return regions


def content_of(mel: NDArray[np.float32]) -> int:
    """Encoder frames with audio in a window of log mel [n_mels, 3000]; libraries pad it with zeros."""
    filled = np.flatnonzero(mel.any(axis=0))
    return int(filled[-1]) // MEL_FRAMES_PER_ENCODER_FRAME + 1 if len(filled) else 0
