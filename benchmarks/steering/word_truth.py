"""Which words of a transcript were right, misheard or made up, by the reference."""

from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import groupby

import jiwer
from rapidfuzz import fuzz

from whisper_sae_steer.reports import metrics

SOUNDS_ALIKE = 40.0
"""similarity of letters, in percent, from which on a wrong run is taken for misheard"""


class Truth(Enum):
    """What a written word stands for."""

    RIGHT = "right"
    """the reference has it there"""
    MISHEARD = "misheard"
    """in its place the reference has something that is written alike"""
    MADE_UP = "made up"
    """nothing in the reference stands for it"""


def judge(written: Sequence[str], reference: str, language: str) -> list[Truth | None]:
    """What each written word stands for; None for one without a letter or digit.

    Words are normalised one by one and aligned with the normalised reference by jiwer. Between two right
    words a run of others is made up if the reference has nothing there, or something that shares fewer than
    SOUNDS_ALIKE of its letters; else it was misheard.
    """
    (said, owners), truth = normalised(written, language), metrics.normalise(reference, language).split()
    found = dict[int, Truth]()
    for (first, last), heard in _runs(truth, said):
        for place in range(first, last):
            # a word of two pieces is as wrong as its worst one
            found[owners[place]] = max(heard, found.get(owners[place], heard), key=list(Truth).index)
    return [found.get(number) for number in range(len(written))]


def normalised(words: Sequence[str], language: str) -> tuple[list[str], list[int]]:
    """What Whisper's normaliser makes of each word, none or several, and which word each is of."""
    pieces = [metrics.normalise(word, language).split() for word in words]
    owners = [number for number, parts in enumerate(pieces) for _ in parts]
    return [part for parts in pieces for part in parts], owners


def _runs(truth: Sequence[str], said: Sequence[str]) -> Iterator[tuple[tuple[int, int], Truth]]:
    """Stretches of what was said, and what each stands for."""
    if not said:
        return
    if not truth:
        yield (0, len(said)), Truth.MADE_UP
        return
    (chunks,) = jiwer.process_words(" ".join(truth), " ".join(said)).alignments
    for is_right, alike in groupby(chunks, lambda chunk: chunk.type == "equal"):
        run = list(alike)
        start, end = run[0].hyp_start_idx, run[-1].hyp_end_idx
        if is_right:
            yield (start, end), Truth.RIGHT
        else:
            expected = truth[run[0].ref_start_idx : run[-1].ref_end_idx]
            letters_shared = fuzz.ratio("".join(expected), "".join(said[start:end]))
            yield (start, end), Truth.MISHEARD if letters_shared >= SOUNDS_ALIKE else Truth.MADE_UP
