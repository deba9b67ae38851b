"""Temporal response functions of features against one listener's EEG, and tests of them.

For each feature: the correlation of EEG with what a ridge regression on the lagged feature predicts on
recordings it was not fitted on (nested cross-validation), what the feature adds to the broadband
envelope, permutation p-values of both, and its response over the lags.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ...errors import AnalysisError
from ..store.activations import ActivationStore
from .permutations import Null, Tested, alone, gained
from .recordings import Eeg, cut, envelope, rows_played
from .trf import RATE, Array, Lags, Trial, columns_of, kernels, moments, nested_alphas

FALSE_DISCOVERY_RATE = 0.05
ENVELOPE, SUM = "envelope", "sum of the features"
"""names of the predictors that are no feature"""


@dataclass(frozen=True)
class EegConfig:
    """How responses are estimated and tested."""

    first_lag: float = 0.0
    """seconds after the stimulus, at least 0"""
    last_lag: float = 0.5
    """seconds"""
    low: float = 1.0
    """band of EEG and predictors, Hz"""
    high: float = 15.0
    """Hz, below 25"""
    folds: int = 5
    """outer folds, over recordings; the ridge parameter is chosen within the others"""
    n_permutations: int = 1000
    """circular shifts of each trial; the smallest p-value is 1 / (1 + n)"""
    over: Literal["envelope", "others"] = "envelope"
    """what a feature must add to: the envelope, or the envelope and the other features chosen (slower)"""
    seed: int = 0
    """of the shifts"""

    def __post_init__(self):
        if not 0 <= self.first_lag < self.last_lag <= 2:
            raise AnalysisError("lags must go from at least 0 to at most 2 seconds")
        if self.folds < 3 or self.n_permutations < 1:
            raise AnalysisError("it takes at least 3 folds and 1 permutation")


class Measured(NamedTuple):
    """A score of each channel."""

    score: list[float]
    """Pearson's r on held-out recordings, mean over folds, or how much was gained of it"""
    p: list[float]
    """(k + 1) / (n + 1) for k of n permutations that reach the score"""
    q: list[float]
    """p corrected for all channels and features (Benjamini–Hochberg)"""


class Response(NamedTuple):
    """Of one predictor."""

    name: str
    feature: int | None
    rate: float | None
    """share of the frames played that the feature fires on; 0: dead, and nothing else is known"""
    alone: Measured | None
    gain: Measured | None
    """over the envelope, or over the envelope and the other features"""
    kernel: list[list[float]] | None
    """[channels][lags]: µV per standard deviation, all predictors fitted together on all trials"""


class EegResult(NamedTuple):
    """Result of :func:`eeg`."""

    sae: str
    channels: tuple[str, ...]
    positions: dict[str, tuple[float, float, float]]
    """of electrodes, in metres; empty if unknown"""
    trials: int
    recordings: int
    minutes: float
    lags: list[float]
    """seconds"""
    config: EegConfig
    responses: tuple[Response, ...]
    """envelope, each feature, sum of the features"""
    joint: Measured
    """what all features together add to the envelope"""
    alone: tuple[int, ...]
    """features that predict some channel (q < 0.05)"""
    beyond: tuple[int, ...]
    """features that add to ``config.over`` at some channel (q < 0.05)"""


def eeg(
    store: ActivationStore,
    eegs: Sequence[Eeg],
    features: Sequence[int],
    sae: str | None = None,
    config: EegConfig = EegConfig(),
) -> EegResult:
    """Responses of one listener's EEG to features of a stored SAE. All files must have the same channels.

    AnalysisError for features that don't exist or are all dead, for fewer than three recordings, and
    from :func:`.recordings.cut`.
    """
    if len({one.channels for one in eegs}) != 1:
        raise AnalysisError("the EEG files have different channels; choose common ones with --channels")
    name = store.choose(sae)
    values, rates = _activations(store, eegs, features, name)
    alive = [i for i, rate in enumerate(rates) if rate]
    if not alive:
        raise AnalysisError("none of the features fires on what was heard; choose others with --features")
    live = values[:, alive]
    predictors = np.column_stack([envelope(store.mel()), live, live.sum(1)])
    lags = Lags(round(config.first_lag * RATE), round(config.last_lag * RATE))
    trials = cut(eegs, store, predictors, lags, (config.low, config.high), config.folds)
    single, gains, joint = _tests(trials, lags, len(alive), config)
    found = _responses(features, rates, alive, single, gains, _kernels(trials, lags, len(alive)))
    played = {event.clip for one in eegs for event in one.events}
    return EegResult(
        sae=name,
        channels=eegs[0].channels,
        positions=eegs[0].positions,
        trials=len(trials),
        recordings=len(played),
        minutes=sum(len(trial.y) for trial in trials) / RATE / 60,
        lags=lags.seconds.tolist(),
        config=config,
        responses=found,
        joint=joint,
        alone=_significant(found, "alone"),
        beyond=_significant(found, "gain"),
    )


def _responses(
    features: Sequence[int],
    rates: Sequence[float],
    alive: Sequence[int],
    single: Sequence[Measured | None],
    gains: Sequence[Measured | None],
    shown: Array,
) -> tuple[Response, ...]:
    """Of the envelope, the features that fire (``alive``, by place), the dead ones, and their sum.

    ``single`` and ``gains`` are of the envelope, each live feature and the sum; ``shown`` [channels,
    1 + live, lags] are the kernels of all of these but the sum.
    """
    responses = [Response(ENVELOPE, None, None, single[0], gains[0], shown[:, 0].tolist())]
    for at, i in enumerate(alive, 1):
        name, kernel = f"feature {features[i]}", shown[:, at].tolist()
        responses.append(Response(name, features[i], rates[i], single[at], gains[at], kernel))
    dead = [feature for i, feature in enumerate(features) if i not in alive]
    responses += [Response(f"feature {feature}", feature, 0.0, None, None, None) for feature in dead]
    return (*responses, Response(SUM, None, None, single[-1], gains[-1], None))


def most_frequent(
    store: ActivationStore, eegs: Sequence[Eeg], count: int, sae: str | None = None
) -> list[int]:
    """The features that fire on the most frames of what was played, the most frequent first."""
    firing = np.bincount(store.features(sae)[rows_played(eegs, store)].indices)
    return [int(i) for i in (-firing).argsort(kind="stable")[:count] if firing[i]]


def _activations(
    store: ActivationStore, eegs: Sequence[Eeg], features: Sequence[int], sae: str
) -> tuple[NDArray[np.float64], list[float]]:
    """Features of all rows [rows, n], and the share of frames played that each fires on."""
    matrix: Any = store.features(sae)
    wrong = [i for i in features if not 0 <= i < matrix.shape[1]]
    if wrong or len(set(features)) < len(features):
        raise AnalysisError(f"features must be different numbers from 0 to {matrix.shape[1] - 1}")
    values = np.asarray(matrix[:, list(features)].toarray(), np.float64)
    return values, (values[rows_played(eegs, store)] > 0).mean(0).tolist()


def _tests(
    trials: Sequence[Trial], lags: Lags, count: int, config: EegConfig
) -> tuple[list[Measured | None], list[Measured | None], Measured]:
    """Of envelope, features and their sum: alone, and what they add; and what all features add together."""
    features, last = range(1, count + 1), count + 1
    steps = (2 * count + 4) * (config.n_permutations + 1)
    with tqdm(total=steps, desc="permutations", unit="fit", unit_scale=True) as progress:
        null = Null.draw(trials, lags, config.n_permutations, config.seed, progress.update)
        single = [alone(null, i) for i in range(count + 2)]
        if config.over == "envelope":
            *gains, total, joint = gained(null, [0], [*([i] for i in features), [last], [*features]])
        else:
            total, joint = gained(null, [0], [[last], [*features]])
            gains = [gained(null, [i for i in range(count + 1) if i != one], [[one]])[0] for one in features]
    return (
        [*_corrected(single[:1]), *_corrected(single[1:-1]), *_corrected(single[-1:])],
        [None, *_corrected(gains), *_corrected([total])],
        _corrected([joint])[0],
    )


def _corrected(tests: Sequence[Tested]) -> list[Measured]:
    from mne.stats import fdr_correction

    p = np.array([test.p for test in tests])
    q: Array = fdr_correction(p)[1]
    return [
        Measured(test.score.tolist(), test.p.tolist(), each.tolist())
        for test, each in zip(tests, q, strict=True)
    ]


def _kernels(trials: Sequence[Trial], lags: Lags, count: int) -> Array:
    """[channels, 1 + count, lags]: of the envelope and the features together, without their sum."""
    joint = [trial._replace(x=trial.x[:, : count + 1]) for trial in trials]
    alphas = nested_alphas(
        [fold.of(columns_of(range(count + 1), lags)) for fold in moments(joint, lags)], lags
    )
    return kernels(joint, lags, float(np.median(alphas)))


def _significant(responses: Sequence[Response], of: Literal["alone", "gain"]) -> tuple[int, ...]:
    found: list[int] = []
    for response in responses:
        measured: Measured | None = getattr(response, of)
        if response.feature is not None and measured and min(measured.q) < FALSE_DISCOVERY_RATE:
            found.append(response.feature)
    return tuple(found)
