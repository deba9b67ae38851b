"""How likely a written word was made up: by the decoder's doubt, its neighbours, and the gate.

A logistic regression on a few figures that decoding leaves behind, so that it costs no second pass. It was
fitted on words of base and tiny.en that the reference has (right) or has nothing alike for (made up), in
speech that is clean, noisy, far, quiet, cut off or absent (``benchmarks/steering/word_risk.py``); misheard
words were left out, as risk is not confidence. What depends on a model goes in by its pack's calibration, so
that one set of weights serves all of them.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

LARGEST_LOGIT = 10.0
LARGEST_WORD_LOGIT = 6.0
BESIDE, NEXT = 2, 1
"""words on either side whose mean, and whose lowest, probability counts"""
LONGEST_PERIOD = 12
"""words that a loop says again and again, at most"""
FEWEST_REPEATS = 4.0
"""of a loop; people say things two and three times"""
LOOP_WEIGHT = 6.0
"""of the logarithm of a loop's repeats: five outweigh that the decoder is sure of the words"""
REMEMBERED_WORDS = LONGEST_PERIOD * round(FEWEST_REPEATS)
"""before a segment, for loops that began there"""


class WrittenWord(NamedTuple):
    """A word as word timestamps give it."""

    text: str
    probability: float


class WrittenSegment(NamedTuple):
    """What the decoder left of one segment."""

    start: float
    """seconds from the start of its window"""
    end: float
    text: str
    avg_logprob: float
    words: Sequence[WrittenWord] = ()
    """none without word timestamps"""


def written_segment(fields: Mapping[str, Any], offset: float) -> WrittenSegment:
    """A segment as the libraries' dicts hold it, whose window begins at ``offset`` seconds."""
    words = [WrittenWord(word["word"], word["probability"]) for word in fields.get("words") or ()]
    start, end = fields["start"] - offset, fields["end"] - offset
    return WrittenSegment(start, end, fields["text"], fields["avg_logprob"], words)


class RiskModel(NamedTuple):
    """A logistic regression."""

    weights: Sequence[float]
    constant: float

    def __call__(self, features: Sequence[float]) -> float:
        """Probability that a word was made up."""
        return sigmoid(self.constant + sum(w * x for w, x in zip(self.weights, features, strict=True)))


BY_SEGMENT = RiskModel((-5.332, 0.267, LOOP_WEIGHT), -3.577)
"""for :func:`segment_features`"""
BY_WORD = RiskModel((-1.611, 0.279, LOOP_WEIGHT, -0.453, -0.246, -0.272), -0.082)
"""for :func:`word_features`"""


def segment_features(segment: WrittenSegment, gate: float, said: Sequence[str] = ()) -> list[float]:
    """Mean log probability of a segment's tokens, ``gate``'s risk, and the logarithm of a loop's repeats.

    ``gate`` is the logit of the pack's own risk of the stretch; ``said`` are the words before it.
    """
    written = segment.text.split()
    repeats = repetitions([*said, *written])[len(said) :]
    return [*_of_segment(segment, gate), _loop(max(repeats, default=1.0))]


def word_features(segment: WrittenSegment, gate: float, said: Sequence[str] = ()) -> list[list[float]]:
    """Features of each word: the segment's, with the word's own repeats; the logit of its probability, the
    lowest of those next to it and itself, and the mean of those beside it."""
    logits = [logit(word.probability, LARGEST_WORD_LOGIT) for word in segment.words]
    repeats = repetitions([*said, *(word.text for word in segment.words)])[len(said) :]
    whole, rows = _of_segment(segment, gate), list[list[float]]()
    for i, own in enumerate(logits):
        lowest = min(logits[max(0, i - NEXT) : i + 1 + NEXT])
        beside = logits[max(0, i - BESIDE) : i] + logits[i + 1 : i + 1 + BESIDE] or [own]
        rows.append([*whole, _loop(repeats[i]), own, lowest, sum(beside) / len(beside)])
    return rows


def repetitions(words: Sequence[str]) -> list[float]:
    """How often each word is said in a row, alone or in a phrase of at most LONGEST_PERIOD words."""
    keys = ["".join(re.findall(r"\w+", word.lower())) for word in words]
    counts = [1.0] * len(keys)
    for period in range(1, min(LONGEST_PERIOD, len(keys) // 2) + 1):
        begin = 0
        while begin + period < len(keys):
            end = begin
            while end + period < len(keys) and keys[end] == keys[end + period]:
                end += 1
            for place in range(begin, end + period) if end - begin >= period else ():
                counts[place] = max(counts[place], (end + period - begin) / period)
            begin = max(end, begin + 1)
    return counts


def _of_segment(segment: WrittenSegment, gate: float) -> list[float]:
    return [segment.avg_logprob, _bounded(gate, LARGEST_LOGIT)]


def sigmoid(x: float) -> float:
    """The probability of a logit."""
    return 1 / (1 + math.exp(-_bounded(x, 60.0)))


def logit(probability: float, limit: float = LARGEST_LOGIT) -> float:
    """The logit of a probability, at most so large."""
    inside = min(max(probability, 1e-6), 1 - 1e-6)
    return _bounded(math.log(inside / (1 - inside)), limit)


def _loop(repeats: float) -> float:
    return math.log(repeats) if repeats >= FEWEST_REPEATS else 0.0


def _bounded(x: float, limit: float) -> float:
    return max(-limit, min(x, limit))
