"""Cuts: which part of a window is decoded, and where the next window begins.

Whisper seeks by the timestamps it writes. With a long gap in the window it may write on through the gap, or
close the text before it and lose the speech after it. The gate says where the speech is: a window with a
gap is cut where the gap begins, and the next one starts where it ends. A window without a long gap is left
alone, so ordinary speech costs nothing.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audio.units import MEL_FRAMES_PER_ENCODER_FRAME
from .metadata import GateLevels

MIN_GAP_FRAMES = 150
"""3 s without speech make a gap"""
EXCERPT_GAP_FRAMES = 250
"""5 s do in an excerpt (``speech_map.py``), whose passages are half as far apart already"""
PAD_FRAMES = 20
"""0.4 s left around speech"""
REPLY_FRAMES = 100
"""less than 2 s of speech may be a word by itself, between pauses"""
REPLY_GAP_FRAMES = 300
"""pause (6 s) over which a reply is decoded together with its neighbours"""
BLANK_WORD_SECONDS = 0.2
"""length of a word that stands for none: both libraries take shorter ones for hallucinations"""


class WindowCut(NamedTuple):
    """What to do with a window that has a gap, in encoder frames of 20 ms from its start."""

    skip_to: int
    """nobody speaks before: seek there without decoding; 0 if the window begins well"""
    decode_until: int
    """decode up to here, as if the audio ended"""
    resume_at: int
    """where the next window begins"""

    def seeks_only(self) -> bool:
        """Whether the window begins with a gap, so that nothing of it is decoded."""
        return self.skip_to > 0


class WindowPlan(NamedTuple):
    """What is known of a window before it is decoded, in encoder frames from its start."""

    cut: WindowCut | None
    begins_at: int
    """where speech begins behind a gap; 0 elsewhere, and where nobody speaks"""
    content: int
    """frames with audio"""


def plan_window(
    scores: NDArray[np.float32],
    content: int,
    levels: GateLevels,
    behind_gap: bool,
    shortest_gap: int = MIN_GAP_FRAMES,
) -> WindowPlan:
    """The plan of a window from its smoothed speech scores [1500] and the number of frames with audio."""
    regions = _spoken(scores, content, levels, shortest_gap) if behind_gap else []
    cut = cut_window(scores, content, levels, shortest_gap)
    return WindowPlan(cut, regions[0][0] if regions else 0, content)


def cut_window(
    scores: NDArray[np.float32], content: int, levels: GateLevels, shortest_gap: int = MIN_GAP_FRAMES
) -> WindowCut | None:
    """The cut of a window from its smoothed speech scores [1500] and the number of frames with audio.

    None where there is nothing to cut: no gap of ``shortest_gap`` frames before, between or after the speech,
    or no speech at all (such a window is steered).
    """
    regions = _spoken(scores, content, levels, shortest_gap)
    if not regions:
        return None
    # what begins at the very end of a full window may not show yet
    last = content - PAD_FRAMES if content == len(scores) else content
    regions = with_replies(regions, last)
    start, end = regions[0]
    if start - PAD_FRAMES >= shortest_gap:
        return WindowCut(start - PAD_FRAMES, content, content)
    following = regions[1][0] - PAD_FRAMES if len(regions) > 1 else last
    return WindowCut(0, end + PAD_FRAMES, following) if following - end >= shortest_gap else None


def frames_before_speech(scores: NDArray[np.float32], content: int, levels: GateLevels) -> int:
    """Frames of a window before its speech begins: ``content`` if it has none, 0 if it begins well."""
    if levels.gap_below is None:
        return 0
    if not _spoken(scores, content, levels):
        return content
    cut = cut_window(scores, content, levels)
    return cut.skip_to if cut else 0


def tokens_that_seek_to(tokens: Sequence[int], cut: WindowCut, timestamp_begin: int) -> list[int]:
    """Tokens of a cut window such that both libraries seek to ``cut.resume_at`` after them.

    Both take two timestamps in a row as the end of a segment and seek to the last one, so a segment of no
    length is added, which both drop. Where Whisper itself asks to go on from the middle of the
    speech, with such a pair, it may. Nothing ends after ``cut.decode_until``.
    """
    last = timestamp_begin + cut.decode_until
    goes_on = places_to_go_on(tokens, timestamp_begin)
    if goes_on and timestamp_begin < tokens[goes_on[-1] - 1] <= last:
        return list(tokens)
    closed = _ended_by(tokens, last, timestamp_begin)
    if closed and tokens[0] < timestamp_begin:
        closed.insert(0, timestamp_begin)
    if closed and tokens[-1] < timestamp_begin:
        closed.append(timestamp_begin + max(0, cut.decode_until - PAD_FRAMES))
    target = timestamp_begin + cut.resume_at
    return [*closed, target, target]


def places_to_go_on(tokens: Sequence[int], timestamp_begin: int) -> list[int]:
    """Numbers of tokens before which a segment ends and another begins: two timestamps in a row.

    Both libraries go on from the last one, but for tokens that end with a single timestamp: their text is
    the window's, and there is no place.
    """
    times = [token >= timestamp_begin for token in tokens]
    if times[-2:] == [False, True]:
        return []
    return [i for i in range(1, len(times)) if times[i - 1] and times[i]]


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


def protect_seek_from_word_times(
    segments: Sequence[dict[str, Any]], cut: WindowCut, timestamp_begin: int
) -> None:
    """Keep word timings from moving the seek back: both libraries then seek to the end of the last word.

    The segment that :func:`tokens_that_seek_to` added gets a blank word, of a length that neither takes for
    a hallucination; it is dropped with it.
    """
    last = segments[-1]
    if last["tokens"] == [timestamp_begin + cut.resume_at]:
        start = max(0.0, last["end"] - BLANK_WORD_SECONDS)
        last["words"] = [{"word": " ", "start": start, "end": last["end"], "probability": 1.0}]


def _spoken(
    scores: NDArray[np.float32], content: int, levels: GateLevels, shortest_gap: int = MIN_GAP_FRAMES
) -> list[tuple[int, int]]:
    """Stretches of speech in a window; none where the pack knows no gaps."""
    if levels.gap_below is None:
        return []
    return speech_regions(scores[:content], levels.gap_below, levels.noise_ceiling, shortest_gap)


def speech_regions(
    scores: NDArray[np.float32], gap_below: float, noise_ceiling: float, shortest_gap: int = MIN_GAP_FRAMES
) -> list[tuple[int, int]]:
    """Stretches above ``gap_below``, a gap apart at least; one under ``noise_ceiling`` is no speech.

    Words buried in noise rise little above that ceiling: a stretch in doubt is no gap.
    """
    edges = np.flatnonzero(np.diff(scores > gap_below, prepend=False, append=False))
    spans = edges.reshape(-1, 2).tolist()
    loud_enough = ((a, b) for a, b in spans if scores[a:b].max() >= noise_ceiling)
    return without_short_gaps(loud_enough, shortest_gap)


def without_short_gaps(
    spans: Iterable[Sequence[int]], shortest_gap: int = MIN_GAP_FRAMES
) -> list[tuple[int, int]]:
    """Stretches in encoder frames, where less than ``shortest_gap`` lie between two as one."""
    regions: list[tuple[int, int]] = []
    for start, end in spans:
        if regions and start - regions[-1][1] < shortest_gap:
            start = regions.pop()[0]
        regions.append((start, end))
    return regions


def with_replies(regions: Sequence[tuple[int, int]], last: int) -> list[tuple[int, int]]:
    """The stretches; where one of two is a reply, and the pause between them short, they are one.

    One word by itself is read worse than among others, and easily taken for noise. What reaches the frame
    ``last`` goes on behind it: nobody knows yet how long it is.
    """

    def is_reply(region: tuple[int, int]) -> bool:
        return region[1] - region[0] < REPLY_FRAMES and region[1] < last

    joined = list(regions[:1])
    for before, after in pairwise(regions):
        if after[0] - before[1] < REPLY_GAP_FRAMES and (is_reply(before) or is_reply(after)):
            joined[-1] = (joined[-1][0], after[1])
        else:
            joined.append(after)
    return joined


def content_of(mel: NDArray[np.float32]) -> int:
    """Encoder frames with audio in a window of log mel [n_mels, 3000]; libraries pad it with zeros."""
    filled = np.flatnonzero(mel.any(axis=0))
    return int(filled[-1]) // MEL_FRAMES_PER_ENCODER_FRAME + 1 if len(filled) else 0
