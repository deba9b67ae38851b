"""k-sparse probing (arXiv 2305.01610): how well few features tell labels apart, on groups held back.

Groups are dealt to folds. For each fold the others rank the features and fit a logistic probe on the best
k; what it predicts of the fold is scored. So every unit is predicted once, by a probe that hasn't seen its
recording or speaker.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler
from tqdm import tqdm

from ..store.labelling import LabelledUnits
from ..store.sparse import columns_of, fires_anywhere, rows_of, shape_of
from .ranking import RANKINGS, best_first

KS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
RESAMPLES = 1000
"""bootstrap samples of groups"""
Matrix = csr_matrix | NDArray[np.float32]


class ProbeScore(NamedTuple):
    """How good predictions are; intervals are 95%, by bootstrap over groups."""

    accuracy: float
    accuracy_interval: tuple[float, float]
    balanced_accuracy: float
    """mean of the labels' recalls"""
    balanced_interval: tuple[float, float]
    recall: dict[str, float]
    """accuracy on the units of each label"""


class ProbePoint(NamedTuple):
    """A probe on the k best features."""

    ranking: str
    k: int
    score: ProbeScore


@dataclass(frozen=True)
class Probing:
    """Probes on features, on all of the dense activations, and what always saying one label gets."""

    points: tuple[ProbePoint, ...]
    everything: ProbeScore
    """all features that fired on the other folds"""
    dense: ProbeScore
    majority: ProbeScore
    """the label most frequent on the other folds"""
    alive: int
    """features that fired on these units"""
    features: int
    width: int
    """of the dense activations"""
    counts: dict[str, int]
    """units of each label"""
    groups: int


class Fold(NamedTuple):
    """Places of units [n] to fit on and to predict."""

    fit: NDArray[np.intp]
    test: NDArray[np.intp]


def probe_curve(
    features: csr_matrix,
    dense: NDArray[np.float32],
    units: LabelledUnits,
    ks: Sequence[int] = KS,
    folds: int = 5,
    rankings: Sequence[str] = tuple(RANKINGS),
) -> Probing:
    """Probes on the best k of features [n, F], and on dense activations [n, d], of labelled units [n]."""
    labels = units.labels
    alive = int(fires_anywhere(features).sum())
    ks = sorted({k for k in ks if k < alive})
    predicted = {(ranking, k): labels.copy() for ranking in rankings for k in ks}
    everything, of_dense, majority = labels.copy(), labels.copy(), labels.copy()
    with tqdm(total=folds * (len(predicted) + 2), desc="probe", unit="probe") as progress:
        for fold in deal(units, folds):
            fit_labels = labels[fold.fit]
            for ranking in rankings:
                order = best_first(RANKINGS[ranking](rows_of(features, fold.fit), fit_labels))
                for k in ks:
                    chosen = columns_of(features, order[:k]).toarray()
                    predicted[ranking, k][fold.test] = predict(sparse_probe(), chosen, labels, fold)
                    progress.update()
            everything[fold.test] = predict(sparse_probe(), features, labels, fold)
            of_dense[fold.test] = predict(dense_probe(), dense, labels, fold)
            majority[fold.test] = most_frequent(fit_labels)
            progress.update(2)
    return Probing(
        points=tuple(ProbePoint(*key, score(units, guess)) for key, guess in predicted.items()),
        everything=score(units, everything),
        dense=score(units, of_dense),
        majority=score(units, majority),
        alive=alive,
        features=shape_of(features)[1],
        width=dense.shape[1],
        counts=dict(zip(*(a.tolist() for a in np.unique(labels, return_counts=True)), strict=True)),
        groups=len(set(units.groups.tolist())),
    )


def deal(units: LabelledUnits, folds: int, seed: int = 0) -> Iterator[Fold]:
    """Deal the groups to folds, each label's as evenly as can be."""
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fit, test in splitter.split(np.zeros(len(units.labels)), units.labels, units.groups):
        yield Fold(fit, test)


def sparse_probe() -> Pipeline:
    """Of features: scaled to at most 1, so that one that fires rarely isn't blown up and zero stays zero."""
    return make_pipeline(MaxAbsScaler(), LogisticRegression(max_iter=500, tol=1e-3))


def dense_probe() -> Pipeline:
    """Of dense activations: mean 0, deviation 1."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, tol=1e-3))


def predict(probe: Pipeline, values: Matrix, labels: NDArray[np.str_], fold: Fold) -> NDArray[np.str_]:
    """Fit a probe on a fold's first part, predict its second."""
    rows = cast(Any, values)
    return probe.fit(rows[fold.fit], labels[fold.fit]).predict(rows[fold.test])


def most_frequent(labels: NDArray[np.str_]) -> str:
    names, counts = np.unique(labels, return_counts=True)
    return str(names[counts.argmax()])


def score(units: LabelledUnits, predicted: NDArray[np.str_], seed: int = 0) -> ProbeScore:
    """Score predictions [n]."""
    names, label = np.unique(units.labels, return_inverse=True)
    groups, group = np.unique(units.groups, return_inverse=True)
    shape = len(groups), len(names)
    counts, right = np.zeros(shape), np.zeros(shape)
    np.add.at(counts, (group, label), 1)
    np.add.at(right, (group, label), predicted == units.labels)
    drawn = np.random.default_rng(seed).multinomial(len(groups), [1 / len(groups)] * len(groups), RESAMPLES)
    recall = right.sum(0) / counts.sum(0)
    accuracies, balanced = _accuracies(drawn @ counts, drawn @ right)
    return ProbeScore(
        float(right.sum() / counts.sum()),
        _interval(accuracies),
        float(recall.mean()),
        _interval(balanced),
        dict(zip(names.tolist(), recall.tolist(), strict=True)),
    )


def _accuracies(
    counts: NDArray[np.float64], right: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Accuracy and balanced accuracy of resamples [B, C]; a label that wasn't drawn is left out of its."""
    drawn = counts > 0
    recall = np.divide(right, counts, out=np.zeros_like(right), where=drawn)
    return right.sum(1) / counts.sum(1), recall.sum(1) / drawn.sum(1)


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
