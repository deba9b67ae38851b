"""What somebody says between pauses, and no text has, is read by itself.

Whisper leaves a word or a sentence out now and then where it reads others in the same window: it begins with
what follows, or writes once what was said again, with times that cover both. Whether the text has a word
where the gate hears somebody, the model's own alignment tells.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audio.units import SAMPLE_RATE, SAMPLES_PER_ENCODER_FRAME, WINDOW_FRAMES
from .batch import SteeredWindow
from .cuts import PAD_FRAMES, REPLY_FRAMES, WindowCut, speech_regions
from .doubt import ECHO_WORDS, Answer, words_of
from .metadata import GateLevels

PAUSE_FRAMES = 75
"""a pause (1.5 s) that no word goes on through"""
LEAST_WORD_FRAMES = 10
"""that a word takes (0.2 s)"""
EARLY_FRAMES, LATE_FRAMES = 5, 15
"""by which the alignment may have a word end before the gate hears it, or after"""
SLOWEST_WORD_FRAMES = 100
"""more speech (2 s) than this a word, and the text isn't all that is said"""
FASTEST_WORD_FRAMES = 6
"""that a word takes on average at least (0.12 s)"""
EDGE_FRAMES = 5
"""without speech at the start of a window that begins between words"""


class ReadAgain(NamedTuple):
    """How a window is to be decoded once more."""

    cut: WindowCut | None
    """where it is to end; None: as it is, but without the text before"""


class _Text(NamedTuple):
    """What lies between two timestamps of a window, in frames."""

    start: int
    end: int


def read_again(
    tokens: Sequence[int],
    answer: Answer,
    window: SteeredWindow,
    levels: GateLevels,
    timestamp_begin: int,
    word_ends: Callable[[], Sequence[float]],
) -> ReadAgain | None:
    """Whether what was decoded of a window is of the text before, or leaves something out; None if neither.

    ``tokens`` are none if the caller's rule for silence drops them. ``word_ends`` is that of
    :func:`cut_at_left_out`.
    """
    if misled_by_text_before(answer, window, levels):
        return ReadAgain(None)
    cut = cut_at_left_out(tokens, window, levels, timestamp_begin, word_ends)
    return ReadAgain(cut) if cut is not None else None


def ends_of_words(words: Iterable[tuple[str, float]]) -> list[float]:
    """Frames at which words end, of their texts and ends in seconds; punctuation by itself is none."""
    return [
        end * SAMPLE_RATE / SAMPLES_PER_ENCODER_FRAME for text, end in words if any(map(str.isalnum, text))
    ]


def cut_at_left_out(
    tokens: Sequence[int],
    window: SteeredWindow,
    levels: GateLevels,
    timestamp_begin: int,
    word_ends: Callable[[], Sequence[float]],
) -> WindowCut | None:
    """Where the window is to end so that what its text leaves out between pauses is read by itself, or next.

    Asked about are stretches of sure speech in a text that covers several: each has words, and a long one
    more than one. Tokens without a word leave out all of it. ``word_ends`` gives the frames at which the
    text's words end. None if nothing was left out.
    """
    until = window.cut.decode_until if window.cut else window.content
    scores = window.scores[:until].cpu().numpy()
    stretches = [s for s in sure_speech(scores, levels) if is_lone(s) or s[1] - s[0] >= REPLY_FRAMES]
    texts = list(_texts(tokens, timestamp_begin, until))
    doubtful = {
        stretch
        for text in texts or [_Text(0, until)]
        if len(covered := [s for s in stretches if _overlap(s, text) >= LEAST_WORD_FRAMES]) > 1
        for stretch in covered
    }
    word_frames = word_ends() if doubtful and texts else ()
    for number, (start, end) in enumerate(stretches):
        told = sum(start - EARLY_FRAMES < frame <= end + LATE_FRAMES for frame in word_frames)
        if (start, end) in doubtful and told < max(1, (end - start) // SLOWEST_WORD_FRAMES):
            ends = stretches[max(1, number) - 1][1] + PAD_FRAMES
            silence = int((scores[ends:] > levels.noise_ceiling).argmax())  # up to what may be a word
            return WindowCut(0, ends, ends + max(0, silence - PAD_FRAMES))
    return None


def misled_by_text_before(answer: Answer, window: SteeredWindow, levels: GateLevels) -> bool:
    """Whether a window's text seems to be made of that before it: it is to be decoded without.

    It is words of the text before, and far fewer than the speech that the window holds. Beside a gap it may
    be several words of it, or more words than could be said. Never where the pack knows no gaps.
    """
    if levels.gap_below is None:
        return False
    until = window.cut.decode_until if window.cut else window.content
    spoken = int((window.scores[:until] >= levels.threshold).sum())
    words = len(words_of(answer.text))
    if not answer.prompt or spoken > SLOWEST_WORD_FRAMES * words:
        return answer.echoes_prompt(least_words=1)
    beside_gap = window.cut is not None or window.begins_at > 0
    has_many = words >= ECHO_WORDS and spoken < FASTEST_WORD_FRAMES * words
    return beside_gap and (has_many or answer.echoes_prompt())


def sure_speech(scores: NDArray[np.float32], levels: GateLevels) -> list[tuple[int, int]]:
    """Stretches of a window, by its smoothed scores [T], in which somebody surely speaks, a pause apart.

    None where the pack knows no gaps.
    """
    if levels.gap_below is None:
        return []
    return speech_regions(scores, levels.threshold, levels.speech_floor, PAUSE_FRAMES)


def is_lone(stretch: tuple[int, int]) -> bool:
    """Whether no more than a word or a few can be said in a stretch of speech, all of it in the window.

    What a window begins or ends with may be part of what was read before, or is read next.
    """
    start, end = stretch
    whole = start >= EDGE_FRAMES and end < WINDOW_FRAMES - PAD_FRAMES
    return whole and LEAST_WORD_FRAMES <= end - start < REPLY_FRAMES


def _overlap(stretch: tuple[int, int], text: _Text) -> int:
    return min(stretch[1], text.end) - max(stretch[0], text.start)


def _texts(tokens: Sequence[int], timestamp_begin: int, until: int) -> Iterator[_Text]:
    """Texts of a window; one without an end reaches to the frame ``until``."""
    start, has_words = 0, False
    for token in tokens:
        is_time = token >= timestamp_begin
        if is_time and has_words:
            yield _Text(start, token - timestamp_begin)
        if is_time:
            start = token - timestamp_begin
        has_words = not is_time
    if has_words:
        yield _Text(start, until)
