"""The sound around activations in numbers and words: mean log-mel, its loudest bands, its course in time."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix
from tqdm import tqdm

from ...audio.units import ENCODER_FRAME_SECONDS, SAMPLE_RATE
from ..store.sparse import shape_of

DECIBELS = 40.0
"""in 1 of Whisper's log-mel"""
LOW_HZ, HIGH_HZ = 500.0, 2000.0
"""where low ends and high begins"""
CLEAR_DB = 3.0
"""what counts as louder, quieter or a change over time"""
FLAT_DB = 1.0
"""no band stands out by more: the sound is broad"""
LEVEL_WORDS = ("loud", "quiet")
BAND_WORDS = ("low", "middle", "high", "broad")
COURSE_WORDS = ("onset", "end", "burst", "sustained")
OFFSETS = tuple(range(-24, 25, 2))
"""Frames from an activation at which its surroundings are averaged: half a second each way."""
AT_ACTIVATION = 2
"""Frames from an activation that still count as the activation itself."""
BESIDE = 15
"""Frames before and after an activation between which its sound rises: 0.3 s."""
FAR_AWAY = 20
"""Frames from an activation from which on its sound is that of the surroundings: 0.4 s."""


class SoundSummary(NamedTuple):
    """A mean log-mel in a few numbers. Levels are relative to the mean of all frames."""

    peak_hz: float
    """band that stands out most from the others"""
    low_hz: float
    """where the bands that stand out at least half as much begin, without a gap"""
    high_hz: float
    """and end"""
    centroid_hz: float
    """mean band on the mel scale, weighted by how much each stands out"""
    level_db: float
    """mean over all bands at the activation"""
    rise_db: float
    """mean over all bands in the 0.3 s from the activation on minus the 0.3 s before"""
    contrast_db: float
    """the activation minus what is 0.4 to 0.5 s away from it"""
    words: str
    """of LEVEL_WORDS (or none), BAND_WORDS and COURSE_WORDS, separated by spaces"""


def mean_mels(
    features: csr_matrix, mel: NDArray[np.float16], numbers: NDArray[np.intp], offsets: Sequence[int]
) -> NDArray[np.float32]:
    """Activation-weighted mean log-mel at offsets from the frame, minus the mean of all frames: [F, O, 80].

    ``features`` [N, F], ``mel`` [N, 80], ``numbers`` [N] of the windows the frames belong to. 0 where a
    feature never fires, or never with that offset inside the window.
    """
    by_feature = csr_matrix(features.T)
    centred = mel - mel.mean(0, dtype=np.float64).astype(np.float32)
    # one more column of ones adds up the weights
    surroundings = np.concatenate([centred, np.ones((len(mel), 1), np.float32)], axis=1)
    rows = np.arange(len(mel))
    means = np.zeros((shape_of(features)[1], len(offsets), mel.shape[1]), np.float32)
    for i, offset in enumerate(tqdm(offsets, desc="mean log-mel", unit="offset")):
        there = np.clip(rows + offset, 0, len(mel) - 1)
        inside = (there == rows + offset) & (numbers[there] == numbers)
        total = by_feature @ (surroundings[there] * inside[:, None])
        means[:, i] = total[:, :-1] / np.maximum(total[:, -1:], np.finfo(np.float32).tiny)
    return means


def describe_sound(difference: NDArray[np.float32], offsets: Sequence[int]) -> SoundSummary:
    """Numbers and words of a mean log-mel [O, 80] relative to the average."""
    decibels, at, hz = DECIBELS * difference.astype(np.float64), np.asarray(offsets), band_hz()
    spectrum, course = decibels[np.abs(at) <= AT_ACTIVATION].mean(0), decibels.mean(1)
    level = float(spectrum.mean())
    relative = spectrum - level
    peak = int(relative.argmax())
    first, last = _run_around(relative >= 0.5 * relative[peak], peak)
    louder = np.maximum(relative, np.finfo(np.float64).tiny)
    centroid = float(np.interp(louder @ np.arange(len(hz)) / louder.sum(), np.arange(len(hz)), hz))
    after, before = (at >= 0) & (at <= BESIDE), (at < 0) & (at >= -BESIDE)
    rise = float(course[after].mean() - course[before].mean())
    near, far = np.abs(at) <= AT_ACTIVATION, np.abs(at) >= FAR_AWAY
    contrast = float(course[near].mean() - course[far].mean())
    words = [
        *(["loud"] if level > CLEAR_DB else ["quiet"] if level < -CLEAR_DB else []),
        "broad" if relative[peak] < FLAT_DB else band_word(float(hz[peak])),
        course_word(rise, contrast),
    ]
    return SoundSummary(
        peak_hz=round(float(hz[peak]), 1),
        low_hz=round(float(hz[first]), 1),
        high_hz=round(float(hz[last]), 1),
        centroid_hz=round(centroid, 1),
        level_db=round(level, 2),
        rise_db=round(rise, 2),
        contrast_db=round(contrast, 2),
        words=" ".join(words),
    )


def band_word(hz: float) -> str:
    """low, middle or high."""
    return "low" if hz < LOW_HZ else "high" if hz > HIGH_HZ else "middle"


def course_word(rise: float, contrast: float) -> str:
    """onset, end, burst or sustained, of how the level changes (dB)."""
    if abs(rise) > CLEAR_DB:
        return "onset" if rise > 0 else "end"
    return "burst" if abs(contrast) > CLEAR_DB else "sustained"


@cache
def band_hz() -> NDArray[np.float64]:
    """Middles of Whisper's 80 mel bands in Hz, [80]."""
    filters = np.asarray(FeatureExtractor().mel_filters, np.float64)
    return filters @ np.linspace(0, SAMPLE_RATE / 2, filters.shape[1]) / filters.sum(1)


def activation_seconds(features: csr_matrix, numbers: NDArray[np.intp]) -> NDArray[np.float64]:
    """Mean length of an uninterrupted activation, [F]; 0 for a dead feature. None outlasts its window."""
    by_feature = csc_matrix(features)
    by_feature.sort_indices()
    rows, counts = by_feature.indices, np.diff(by_feature.indptr)
    column = np.repeat(np.arange(len(counts)), counts)
    goes_on = np.zeros(len(rows), dtype=bool)
    goes_on[1:] = (
        (column[1:] == column[:-1]) & (rows[1:] == rows[:-1] + 1) & (numbers[rows[1:]] == numbers[rows[:-1]])
    )
    runs = np.bincount(column[~goes_on], minlength=len(counts))
    return counts * ENCODER_FRAME_SECONDS / np.maximum(runs, 1)


def _run_around(holds: NDArray[np.bool_], at: int) -> tuple[int, int]:
    """First and last of the places around ``at`` that hold without a gap."""
    gaps = np.flatnonzero(~holds)
    before, after = gaps[gaps < at], gaps[gaps > at]
    return int(before[-1]) + 1 if len(before) else 0, int(after[0]) - 1 if len(after) else len(holds) - 1
