"""Permutation tests of temporal response functions: the EEG of each trial is shifted circularly, and all is
fitted and chosen anew.

A shift keeps the autocorrelation of both sides and breaks only their pairing. Moments of the predictors
stay what they are, and cross-moments at all shifts come from one Fourier transform a trial. For what a
predictor adds to others the residuals of those are shifted and added back to their prediction (Freedman
& Lane 1983, doi:10.1080/07350015.1983.10509354; Winkler et al. 2014, doi:10.1016/j.neuroimage.2014.01.060).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .trf import (
    Array,
    Lags,
    Moments,
    Trial,
    columns_of,
    held_out,
    lagged,
    moments,
    nested_alphas,
    total,
    weights,
)

AT_ONCE = 8_000_000
"""cross-moments of a fold that are held at a time"""


class Tested(NamedTuple):
    """A score of each channel and its p-value."""

    score: Array
    """[channels]: r held out, or what was gained of it"""
    p: Array
    """[channels]: (k + 1) / (n + 1) for k of n permutations that score as high"""


class Null(NamedTuple):
    """The trials and how they are shifted."""

    trials: Sequence[Trial]
    lags: Lags
    shifts: list[NDArray[np.intp]]
    """for each trial [1 + n] frames, the first of them 0"""
    progress: Callable[[int], object]
    """told how many permutations of a test are done"""

    @staticmethod
    def draw(
        trials: Sequence[Trial], lags: Lags, n: int, seed: int, progress: Callable[[int], object]
    ) -> "Null":
        """``n`` shifts, uniform over each trial."""
        rng = np.random.default_rng(seed)
        shifts = [np.r_[0, rng.integers(0, len(trial.y), n)] for trial in trials]
        return Null(trials, lags, shifts, progress)


def alone(null: Null, predictor: int) -> Tested:
    """Does a predictor by itself predict the EEG of held-out recordings? Each permutation chooses a ridge."""
    columns = columns_of([predictor], null.lags)
    scores: list[Array] = []
    for folds in _versions(null, columns, None):
        scores.append(held_out(folds, nested_alphas(folds, null.lags), null.lags))
        null.progress(len(scores[-1]))
    return _tested(np.concatenate(scores))


def gained(null: Null, base: Sequence[int], added: Sequence[Sequence[int]]) -> list[Tested]:
    """What each set of predictors adds to those of ``base``, in r on held-out recordings.

    The ridge parameters are those that the baseline chooses on the EEG as measured: they do not depend
    on what is added, so that they may stay the same in all permutations.
    """
    lags = null.lags
    below = columns_of(base, lags)
    observed = [fold.of(below) for fold in moments(null.trials, lags)]
    alphas = nested_alphas(observed, lags)
    fits = _predicted(null, base, observed, alphas[:, 0])
    everything = sorted({*base, *(i for more in added for i in more)})
    scores: list[list[Array]] = [[] for _ in added]
    for folds in _versions(null, columns_of(everything, lags), fits):
        fixed = np.repeat(alphas, len(folds[0].y), 1)
        within = {predictor: i for i, predictor in enumerate(everything)}
        lower = held_out(_subset(folds, [within[i] for i in base], lags), fixed, lags)
        for found, more in zip(scores, added, strict=True):
            full = _subset(folds, [within[i] for i in (*base, *more)], lags)
            found.append(held_out(full, fixed, lags) - lower)
            null.progress(len(lower))
    return [_tested(np.concatenate(found)) for found in scores]


def _predicted(null: Null, base: Sequence[int], folds: Sequence[Moments], alphas: Array) -> list[Array]:
    """What the baseline explains of each trial's EEG [T, channels], as far as it holds on other folds.

    Predictions are held out, and each channel's are scaled by the slope of the EEG on them, from 0 to 1. What
    is fitted to noise would count as explained otherwise, and gains where nothing responds as significant.
    """
    w = [
        weights(total([*folds[:i], *folds[i + 1 :]]), float(alpha), null.lags)[:, 0]
        for i, alpha in enumerate(alphas)
    ]
    number = {fold: i for i, fold in enumerate(sorted({trial.fold for trial in null.trials}))}
    fits = [lagged(trial.x[:, list(base)], null.lags) @ w[number[trial.fold]] for trial in null.trials]
    centred = [fit - fit.mean(0) for fit in fits]
    power = np.sum([(fit**2).sum(0) for fit in centred], 0)
    common = np.sum([(fit * trial.y).sum(0) for fit, trial in zip(centred, null.trials, strict=True)], 0)
    slope = np.clip(common / np.maximum(power, 1e-300), 0, 1)
    return [slope * fit for fit in fits]


def _tested(scores: Array) -> Tested:
    """Of [1 + n, channels], the first as measured."""
    return Tested(scores[0], (scores >= scores[0] - 1e-12).sum(0) / len(scores))


def _subset(folds: Sequence[Moments], predictors: Sequence[int], lags: Lags) -> list[Moments]:
    columns = columns_of(predictors, lags)
    return [fold.of(columns) for fold in folds]


def _versions(null: Null, columns: NDArray[np.intp], fits: Sequence[Array] | None) -> Iterator[list[Moments]]:
    """Moments of each fold with the EEG as measured and shifted, some shifts at a time.

    ``columns`` are whole predictors; ``fits`` [T, channels] a trial stay in place, what is left is shifted.
    """
    lags = null.lags
    predictors = columns[:: lags.number] // lags.number
    trials = [trial._replace(x=trial.x[:, predictors]) for trial in null.trials]
    parts = fits or [np.zeros(()) for _ in trials]
    still = moments(trials, lags)
    residuals = [trial.y - part for trial, part in zip(trials, parts, strict=True)]
    spectra = [np.fft.rfft(residual, axis=0) for residual in residuals]
    channels, count = trials[0].y.shape[1], len(null.shifts[0])
    step = max(1, AT_ONCE // (len(columns) * channels))
    for start in range(0, count, step):
        some = [shifts[start : start + step] for shifts in null.shifts]
        versions = len(some[0])
        shape = (len(still), len(predictors), lags.number, versions, channels)
        xy, yy = np.zeros(shape), np.zeros((len(still), versions, channels))
        number = {fold: i for i, fold in enumerate(sorted({trial.fold for trial in trials}))}
        for trial, residual, spectrum, shifts, part in zip(
            trials, residuals, spectra, some, parts, strict=True
        ):
            fold = number[trial.fold]
            for i in range(len(predictors)):
                xy[fold, i] += _cross_moments(trial.x[:, i], residual, spectrum, shifts, lags)
            yy[fold] += (residual**2).sum(0)
            if fits:
                xy[fold] += (lagged(trial.x, lags).T @ part).reshape(
                    len(predictors), lags.number, 1, channels
                )
                both: Array = np.fft.irfft(np.fft.rfft(part, axis=0).conj() * spectrum, len(residual), axis=0)
                yy[fold] += (part**2).sum(0) + 2 * both[shifts]
        yield [
            fold._replace(
                y=np.repeat(fold.y, versions, 0), yy=yy[i], xy=xy[i].reshape(-1, versions, channels)
            )
            for i, fold in enumerate(still)
        ]


def _cross_moments(
    x: Array, y: Array, spectrum: NDArray[np.complex128], shifts: NDArray[np.intp], lags: Lags
) -> Array:
    """Σ_t x[t - lag] · y[(t + shift) mod T] over t ≥ lag: [lags, shifts, channels]."""
    length = len(y)
    circular: Array = np.fft.irfft(np.fft.rfft(x).conj()[:, None] * spectrum, length, axis=0)
    at = shifts + np.arange(lags.first, lags.last + 1)[:, None]
    found = circular[at % length]
    if lags.last:  # less what t < lag adds: the trial's end wrapped round to its beginning
        ends = np.zeros((lags.number, lags.last))
        for i, lag in enumerate(range(lags.first, lags.last + 1)):
            ends[i, :lag] = x[length - lag :]
        wrapped = y[(shifts + np.arange(lags.last)[:, None]) % length]
        found -= np.tensordot(ends, wrapped, 1)
    return found
