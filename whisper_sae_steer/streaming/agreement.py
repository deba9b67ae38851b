"""Text from overlapping hypotheses: what two in a row agree on is final.

LocalAgreement-2 of Macháček, Dabre and Bojar 2023, "Turning Whisper into Real-Time Transcription System"
(arXiv 2307.14743): audio that grows is transcribed again and again, and the longest common prefix of two
consecutive hypotheses is committed.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

SENTENCE_END = re.compile(r"[.?!。？！…]['\"”’)\]]*\s*$")


class Word(NamedTuple):
    """One word as Whisper writes it, with the space before it and the punctuation around it."""

    start: float
    """seconds"""
    end: float
    text: str
    probability: float
    hallucination_risk: float | None = None
    """probability that it was made up; None without steering"""

    def shifted(self, seconds: float) -> "Word":
        """The same word, that much later."""
        return self._replace(start=round(self.start + seconds, 2), end=round(self.end + seconds, 2))


def agreed(previous: Sequence[Word], current: Sequence[Word]) -> int:
    """How many words both begin with; neither case nor punctuation counts."""
    pairs = zip(previous, current, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if _key(a) != _key(b)), min(len(previous), len(current)))


def continues_at(committed: Sequence[Word], hypothesis: Sequence[Word]) -> int:
    """The index in ``hypothesis`` from which on it says more than ``committed``.

    Where the words before it are nearest to the committed ones in edit distance, as what was cut off at the
    window's start may be missing or misread; of several such places where the last word is the same, and
    then the one nearest in time.
    """
    if not committed or not hypothesis:
        return 0
    distances = _distances([_key(word) for word in committed], [_key(word) for word in hypothesis])
    last = committed[-1]

    def badness(index: int) -> tuple[int, bool, float]:
        before = hypothesis[index - 1] if index else None
        end = before.end if before else hypothesis[0].start
        return distances[index], before is None or _key(before) != _key(last), abs(end - last.end)

    return min(range(len(distances)), key=badness)


def sentences(words: Sequence[Word], pause: float = 1.0) -> Iterator[list[Word]]:
    """Words in stretches that end with a sentence or before a pause of so many seconds."""
    begin = 0
    for i, word in enumerate(words):
        following = words[i + 1] if i + 1 < len(words) else None
        if following is None or ends_sentence(word) or following.start - word.end >= pause:
            yield list(words[begin : i + 1])
            begin = i + 1


def ends_sentence(word: Word) -> bool:
    """Whether the word closes a sentence."""
    return SENTENCE_END.search(word.text) is not None


def _key(word: Word) -> str:
    return "".join(re.findall(r"\w+", word.text.lower()))


def _distances(a: Sequence[str], b: Sequence[str]) -> list[int]:
    """Edit distances from ``a`` to each prefix of ``b``, the empty one first."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        above, row = row, [i + 1]
        for j, y in enumerate(b):
            row.append(min(above[j] + (x != y), above[j + 1] + 1, row[j] + 1))
    return row
