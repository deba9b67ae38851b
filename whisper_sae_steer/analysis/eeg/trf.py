"""Temporal response functions (TRFs): ridge regression of EEG on predictors at several lags.

The model of Lalor et al. 2009 and Crosse et al. 2016 (doi:10.3389/fnhum.2016.00604):
``y[t, channel] = Σ_predictor Σ_lag w[predictor, lag, channel] · x[t - lag, predictor] + noise``. Fits and
scores need only second moments of each fold. Permutations leave most of those as they are, which
makes thousands of refits affordable (see permutations); tests compare with mne's ReceptiveField and with
scikit-learn's Ridge. Kernels that are shown are ReceptiveField's own.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from ...audio.units import ENCODER_FRAMES_PER_SECOND
from ...errors import AnalysisError

Array = NDArray[np.float64]
RATE = ENCODER_FRAMES_PER_SECOND
"""samples a second: one a frame of the encoder"""
ALPHAS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""ridge parameters to choose from, for standardised predictors, a frame"""


class Lags(NamedTuple):
    """From ``first`` to ``last`` frames after the stimulus, both included."""

    first: int
    last: int

    @property
    def number(self) -> int:
        return self.last - self.first + 1

    @property
    def seconds(self) -> Array:
        return np.arange(self.first, self.last + 1) / RATE


class Trial(NamedTuple):
    """Predictors and EEG while one recording was played, and shortly after."""

    x: Array
    """[T, predictors]"""
    y: Array
    """[T, channels]"""
    fold: int


class Moments(NamedTuple):
    """Sums over frames of lagged predictors (p columns: all lags of the first, all of the second, …) and
    of N versions of the EEG."""

    n: float
    x: Array
    """[p]"""
    xx: Array
    """[p, p]"""
    y: Array
    """[N, channels]"""
    yy: Array
    """[N, channels]: of squares"""
    xy: Array
    """[p, N, channels]"""

    def of(self, columns: NDArray[np.intp]) -> "Moments":
        """Those of some columns of the predictors."""
        return self._replace(x=self.x[columns], xx=self.xx[np.ix_(columns, columns)], xy=self.xy[columns])

    def version(self, which: NDArray[np.bool_]) -> "Moments":
        """Those of some versions of the EEG."""
        return self._replace(y=self.y[which], yy=self.yy[which], xy=self.xy[:, which])

    def centred(self) -> tuple[Array, Array, Array]:
        """xx, xy and yy about the means."""
        xx = self.xx - np.outer(self.x, self.x) / self.n
        xy = self.xy - self.x[:, None, None] * (self.y / self.n)
        return xx, xy, self.yy - self.y**2 / self.n


def total(parts: Sequence[Moments]) -> Moments:
    """Moments of several folds together."""

    def plus(a: Moments, b: Moments) -> Moments:
        return Moments(a.n + b.n, a.x + b.x, a.xx + b.xx, a.y + b.y, a.yy + b.yy, a.xy + b.xy)

    return reduce(plus, parts)


def columns_of(predictors: Sequence[int], lags: Lags) -> NDArray[np.intp]:
    """The columns of some predictors at all lags."""
    return np.concatenate([np.arange(i * lags.number, (i + 1) * lags.number) for i in predictors])


def lagged(x: Array, lags: Lags) -> Array:
    """[T, predictors] → [T, p]: each predictor at each lag, 0 before the trial begins."""
    columns = np.zeros((len(x), x.shape[1], lags.number))
    for i, lag in enumerate(range(lags.first, lags.last + 1)):
        columns[lag:, :, i] = x[: len(x) - lag]
    return columns.reshape(len(x), -1)


def moments(trials: Sequence[Trial], lags: Lags) -> list[Moments]:
    """The moments of each fold, N = 1."""
    folds: dict[int, list[Moments]] = {}
    for trial in trials:
        x, y = lagged(trial.x, lags), trial.y
        found = Moments(len(x), x.sum(0), x.T @ x, y.sum(0)[None], (y**2).sum(0)[None], (x.T @ y)[:, None])
        folds.setdefault(trial.fold, []).append(found)
    return [total(folds[fold]) for fold in sorted(folds)]


def weights(train: Moments, alpha: float, lags: Lags) -> Array:
    """TRFs [p, N, channels] in units of y per unit of x, with a free intercept.

    Predictors are standardised by their variance in ``train``; minimises, per frame, the squared error plus
    ``alpha`` times the squared weights of the standardised predictors.
    """
    xx, xy, _ = train.centred()
    variance = np.repeat(np.diag(xx).reshape(-1, lags.number).mean(1), lags.number)
    penalty = np.where(variance > 0, alpha * variance, 1.0)  # a predictor that never fires weighs nothing
    factor = cho_factor(xx + np.diag(penalty), overwrite_a=True, check_finite=False)
    flat: Any = cho_solve(factor, xy.reshape(len(xy), -1), overwrite_b=True, check_finite=False)
    return np.asarray(flat).reshape(xy.shape)


def correlation(w: Array, test: Moments) -> Array:
    """Pearson's r [N, channels] of prediction and EEG; 0 where either is constant."""
    xx, xy, yy = test.centred()
    covariance = np.einsum("pnc,pnc->nc", w, xy)
    power = np.einsum("pnc,pnc->nc", w, (xx @ w.reshape(len(w), -1)).reshape(w.shape))
    spread = np.sqrt(np.maximum(power, 0) * np.maximum(yy, 0))
    return np.divide(covariance, spread, out=np.zeros_like(covariance), where=spread > 1e-12)


def choose_alpha(folds: Sequence[Moments], lags: Lags) -> Array:
    """For each version of the EEG the ridge parameter [N] with the best r, mean over folds and channels."""
    scores = np.zeros((len(ALPHAS), folds[0].y.shape[0]))
    for i, test in enumerate(folds):
        train = total([*folds[:i], *folds[i + 1 :]])
        for j, alpha in enumerate(ALPHAS):
            scores[j] += correlation(weights(train, alpha, lags), test).mean(1)
    return np.array(ALPHAS)[scores.argmax(0)]


def held_out(folds: Sequence[Moments], alphas: Array, lags: Lags) -> Array:
    """r [N, channels] on each fold of TRFs fitted on the others, mean over folds; ``alphas``: [folds, N]."""
    scores = np.zeros((len(folds), *folds[0].y.shape))
    for i, test in enumerate(folds):
        train = total([*folds[:i], *folds[i + 1 :]])
        for alpha in np.unique(alphas[i]):
            which = alphas[i] == alpha
            w = weights(train.version(which), float(alpha), lags)
            scores[i, which] = correlation(w, test.version(which))
    return scores.mean(0)


def nested_alphas(folds: Sequence[Moments], lags: Lags) -> Array:
    """For each fold the ridge parameter that cross-validation inside the others chooses: [folds, N].

    AnalysisError for fewer than three folds: two to choose on, one to test.
    """
    if len(folds) < 3:
        raise AnalysisError(
            f"nested cross-validation needs 3 different recordings, not {len(folds)}; present more of them"
        )
    return np.array([choose_alpha([*folds[:i], *folds[i + 1 :]], lags) for i in range(len(folds))])


def kernels(trials: Sequence[Trial], lags: Lags, alpha: float) -> Array:
    """TRFs [channels, predictors, lags] of mne's ReceptiveField on all trials, joined.

    Units of y per standard deviation of a predictor; ``alpha`` is a frame's, as in :func:`weights`.
    """
    import mne
    from mne.decoding import ReceptiveField

    x, y = (np.concatenate([getattr(trial, part) for trial in trials]) for part in ("x", "y"))
    spread = x.std(0)
    x = (x - x.mean(0)) / np.where(spread > 0, spread, 1)
    span = lags.first / RATE, lags.last / RATE
    with mne.use_log_level("ERROR"):
        model: Any = ReceptiveField(*span, RATE, estimator=alpha * len(x), scoring="corrcoef")
        return np.asarray(model.fit(x, y).coef_)
