"""Unread speech: what the gate hears and no text covers is read next.

Whisper sometimes closes its text after one sentence of several, or leaves out what is said between two of
its segments. Its timestamps tell which part of the window the text covers, and the gate where people speak.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audio.units import WINDOW_FRAMES
from .batch import SteeredWindow
from .cuts import PAD_FRAMES, REPLY_FRAMES, WindowCut, places_to_go_on, tokens_that_seek_to
from .left_out import is_lone, sure_speech
from .metadata import GateLevels

UNREAD_FRAMES = 40
"""speech (0.8 s) that a decoder leaves unread, from which on it is asked again"""


class Reading(NamedTuple):
    """Tokens of a window, such that the library goes on where speech is still to be read."""

    tokens: list[int]
    cut: WindowCut | None
    """the window's cut; one that cuts nothing off, where only the next window's beginning is moved"""


def read_on(
    tokens: Sequence[int],
    window: SteeredWindow,
    levels: GateLevels,
    timestamp_begin: int,
    in_excerpt: bool = False,
) -> Reading:
    """What was read before the first speech that was left out; the next window begins there.

    Where nothing was left out, a cut window leads to the end of its gap, and any other stays as it is. Behind
    a gap the text begins where speech does. Where speech ends in a cut window, or in one of an excerpt
    (``speech_map.py``), a last word isn't left to be read by itself; elsewhere the library does as it likes.
    """
    cut, scores = window.cut, window.scores.cpu().numpy()
    tokens = _beginning_at(tokens, timestamp_begin + window.begins_at, timestamp_begin)
    until = cut.decode_until if cut else window.content
    is_speech = scores[:until] >= levels.threshold
    lone = [stretch for stretch in sure_speech(scores[:until], levels) if is_lone(stretch)]
    place = _before_unread_speech(tokens, is_speech, lone, timestamp_begin)
    if place is None and (cut is not None or (in_excerpt and window.content < WINDOW_FRAMES)):
        place = _before_last_words(tokens, is_speech, timestamp_begin)
    if place is None and cut is None:
        return Reading(tokens, None)
    if place is not None:
        tokens = tokens[: place.kept]
        cut = (cut or WindowCut(0, until, until))._replace(resume_at=place.resume_at)
    assert cut is not None
    return Reading(tokens_that_seek_to(tokens, cut, timestamp_begin), cut)


class _Place(NamedTuple):
    """Where reading goes on inside a window."""

    kept: int
    """tokens read before it"""
    resume_at: int
    """frame at which the next window begins"""


def _beginning_at(tokens: Sequence[int], first: int, timestamp_begin: int) -> list[int]:
    """The tokens, their text not before the timestamp ``first``, unless it ends by then."""
    times = [token for token in tokens if token >= timestamp_begin]
    begins_early = len(times) > 1 and tokens[0] == times[0] < first < times[1]
    return [first, *tokens[1:]] if begins_early else list(tokens)


def _before_unread_speech(
    tokens: Sequence[int],
    is_speech: NDArray[np.bool_],
    lone: Sequence[tuple[int, int]],
    timestamp_begin: int,
) -> _Place | None:
    """The timestamp after which speech was left out: there, or before a lone word; None if nothing was.

    Text that ends without a timestamp may reach to the end. Where the text begins, or ends before anybody
    speaks, its times are not to be trusted. From two timestamps at the end the library goes on by itself.
    """

    def unread(read_until: int, next_text: int) -> int | None:
        if read_until < PAD_FRAMES or not is_speech[:read_until].any():
            return None
        words = [(start, end) for start, end in lone if read_until <= start and end <= next_text]
        others = int(is_speech[read_until:next_text].sum()) - sum(int(is_speech[a:b].sum()) for a, b in words)
        if others > UNREAD_FRAMES:
            return read_until
        return max(read_until, words[0][0] - PAD_FRAMES) if words else None

    read_until = kept = 0
    after_text = False
    for number, token in enumerate(tokens, 1):
        is_time = token >= timestamp_begin
        if is_time and after_text:
            read_until, kept = token - timestamp_begin, number
        elif is_time and number < len(tokens):
            resume_at = unread(read_until, token - timestamp_begin)
            if resume_at is not None:
                return _Place(kept, resume_at)
        after_text = not is_time
    resume_at = unread(read_until, len(is_speech)) if kept == len(tokens) else None
    return _Place(kept, resume_at) if resume_at is not None else None


def _before_last_words(
    tokens: Sequence[int], is_speech: NDArray[np.bool_], timestamp_begin: int
) -> _Place | None:
    """The end of the text before the last segment, if the library would then read less than a reply.

    It goes on from the last two timestamps in a row, and may take the word behind them for noise. Read again
    with its segment the word is among others. None where it reads nothing or more, or nothing is before.
    """
    places = places_to_go_on(tokens, timestamp_begin)
    if len(places) < 2:
        return None
    before, last = places[-2:]
    left_over = int(is_speech[tokens[last - 1] - timestamp_begin :].sum())
    resume_at = tokens[before - 1] - timestamp_begin
    return _Place(before, resume_at) if resume_at >= PAD_FRAMES and 0 < left_over < REPLY_FRAMES else None
