"""What the rows of a bench say: rates on non-speech, word errors on speech, with intervals.

Every metric compares like with like: published figures use other definitions of a hallucination
under the same name, so each one is spelled out in DEFINITIONS and printed with the table.
"""

import warnings
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import jiwer
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import DegenerateDataWarning, binomtest, bootstrap
from sklearn.metrics import roc_auc_score
from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

from ..models.greedy import RawWindow

DEFINITIONS = {
    "FPR_text": "share of non-speech clips where transcribe() with the library's default settings "
    "leaves at least one letter or digit after Whisper's normaliser",
    "FPR_raw": "share of non-speech clips where greedy decoding of the first 30 s, thresholds off, "
    "leaves at least one letter or digit after Whisper's normaliser",
    "FPR_nsp": "share of non-speech clips with no_speech_prob < 0.5 in the first 30 s "
    "(AudioSAE, arXiv 2602.05027)",
    "HR_keep": "share of non-speech clips with no_speech_prob < 0.6 or avg_logprob > -1 in the "
    "greedy first 30 s (arXiv 2606.07473); a confident window counts even if its text is empty",
    "chars_per_minute": "letters and digits written a minute of non-speech audio, after Whisper's normaliser",
    "WER": "word errors of all clips over their reference words, after Whisper's normaliser "
    "(EnglishTextNormalizer for English, BasicTextNormalizer for other languages); clips whose "
    "reference is empty are left out",
    "FRR": "share of utterances that had text at α = 0 and have none",
    "gap_words": "words written into the gaps of recordings with gaps. A segment's words are spread "
    "evenly over its time; one counts if its middle lies in a gap, more than 0.5 s from speech, and "
    "jiwer aligns it with no reference word (an insertion), or with another word while no word of "
    "its segment is right",
    "gap_words_per_minute": "gap_words over the minutes of all gaps",
    "boundary_errors": "deletions and substitutions among the last two reference words before and the "
    "first two after each gap, jiwer aligning the whole recording",
    "timestamp_shift": "seconds between each onset (offset) of speech at a gap and the nearest start "
    "(end) of a segment: median and 95th percentile",
    "wall_ratio": "time spent in transcribe() over that at α = 0, summed over the same clips",
    "speech_prob_auc": "area under the ROC curve of the segments' speech_prob, segments of speech "
    "clips against those of non-speech clips",
    "hallucination_risk_auc": "the same for hallucination_risk, non-speech against speech",
    "interval": "95%: Wilson score for rates, paired bootstrap over clips (2000 resamples, seed "
    "0) for differences to α = 0",
}

_DRAWN_AT_ONCE = 2**18
"""Clips that a bootstrap holds in memory at once, over all resamples."""


class Rate(NamedTuple):
    """A share `k / n` with its 95% Wilson interval; NaN where n is 0."""

    k: int
    n: int
    rate: float
    low: float
    high: float


class Difference(NamedTuple):
    """A paired difference with its 95% bootstrap interval, over n clips; NaN where n is 0."""

    value: float
    low: float
    high: float
    n: int


class WordErrors(NamedTuple):
    """Word errors of one utterance, or summed over many."""

    substitutions: int
    deletions: int
    insertions: int
    words: int
    """Words of the reference."""

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Word error rate; NaN without reference words."""
        return self.errors / self.words if self.words else float("nan")


def wilson(k: int, n: int) -> Rate:
    """A rate with its 95% Wilson score interval, which holds at 0 of n and n of n too."""
    if n == 0:
        return Rate(0, 0, float("nan"), float("nan"), float("nan"))
    interval: Any = binomtest(k, n).proportion_ci(method="wilson")
    return Rate(k, n, k / n, float(interval.low), float(interval.high))


def bootstrap_difference(
    after: ArrayLike,
    before: ArrayLike,
    weights: ArrayLike | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """Interval of Σ after / Σ weights − Σ before / Σ weights when the clips are drawn again.

    All arguments hold one number a clip, in the same order: 0 or 1 for a rate (weights None: one
    each), or word errors with the reference's words as weights for a word error rate.
    """
    change = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    count = len(change)
    weight = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    if weight.sum() == 0:
        return Difference(float("nan"), float("nan"), float("nan"), count)
    value = float(_change_per_weight(change, weight))
    if count == 1:  # drawn again it is the same clip, which scipy refuses to draw from
        return Difference(value, value, value, count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # resamples without any weight have no rate
        drawn: Any = bootstrap(
            (change, weight),
            _change_per_weight,
            n_resamples=resamples,
            batch=max(1, _DRAWN_AT_ONCE // count),
            vectorized=True,
            paired=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    low, high = np.nanpercentile(drawn.bootstrap_distribution, [2.5, 97.5])
    return Difference(value, float(low), float(high), count)


def word_error_change(
    after: Sequence[WordErrors | None], before: Sequence[WordErrors | None], field: str = "errors"
) -> Difference:
    """By how much the rate of a field of WordErrors changes; utterances without reference words don't count.

    One entry an utterance, in the same order; see :func:`bootstrap_difference`.
    """
    known = [(a, b) for a, b in zip(after, before, strict=True) if a and b]
    return bootstrap_difference(
        [getattr(a, field) for a, _ in known],
        [getattr(b, field) for _, b in known],
        [b.words for _, b in known],
    )


@lru_cache(2**16)  # tables ask for the same texts many times, and the English one is slow
def normalise(text: str, language: str = "") -> str:
    """Whisper's normaliser: the English one for English and for non-speech (language "")."""
    return _normaliser(language in ("", "en"))(text)


def characters(text: str, language: str = "") -> int:
    """Letters and digits that are left after the normaliser; 0 means the text says nothing."""
    return sum(character.isalnum() for character in normalise(text, language))


def has_text(text: str, language: str = "") -> bool:
    """Whether at least one letter or digit is left after Whisper's normaliser."""
    return characters(text, language) > 0


def not_flagged(raw: RawWindow) -> bool:
    """FPR_nsp counts this window: Whisper does not call it silent."""
    return raw["no_speech_prob"] < 0.5


def kept(raw: RawWindow) -> bool:
    """HR_keep counts this window: Whisper's own rule would keep its text."""
    return raw["no_speech_prob"] < 0.6 or raw["avg_logprob"] > -1


def word_errors(reference: str, hypothesis: str, language: str = "en") -> WordErrors | None:
    """Word errors of one utterance after the normaliser; None if the reference is then empty."""
    reference = normalise(reference, language).strip()
    if not reference:
        return None
    counts = jiwer.process_words(reference, normalise(hypothesis, language))
    return WordErrors(
        counts.substitutions,
        counts.deletions,
        counts.insertions,
        counts.hits + counts.substitutions + counts.deletions,
    )


def total(errors: Sequence[WordErrors]) -> WordErrors:
    """Sum over utterances: the corpus' word errors."""
    return WordErrors(*(sum(column) for column in zip((0, 0, 0, 0), *errors, strict=True)))


def auc(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """Area under the ROC curve: how often a positive scores above a negative; None without both."""
    if not positive or not negative:
        return None
    labels: NDArray[np.int8] = np.repeat(np.array([1, 0], dtype=np.int8), [len(positive), len(negative)])
    return float(roc_auc_score(labels, [*positive, *negative]))


@cache
def _normaliser(english: bool) -> EnglishTextNormalizer | BasicTextNormalizer:
    # the English one reads a dictionary of spellings when it is built: once is enough
    return EnglishTextNormalizer() if english else BasicTextNormalizer()


def _change_per_weight(
    change: NDArray[np.float64], weight: NDArray[np.float64], axis: int = -1
) -> NDArray[np.float64]:
    """Σ change / Σ weight along an axis; NaN where the weights add up to 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        total = weight.sum(axis=axis)
        return np.where(total > 0, change.sum(axis=axis) / total, np.nan)
