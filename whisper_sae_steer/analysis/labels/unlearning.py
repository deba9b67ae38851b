"""Unlearning: how many features must go before a label can't be told from the rest (arXiv 2602.05027).

Features are set to zero in the order of their Fisher score for the label, and a classifier is fitted anew
on what is left, until its balanced accuracy on groups held back is near chance. How many it takes says how
redundant the label is; what erasing them does to the other labels says how separable.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ...calibrate.selection import FrameSample, fit_logistic
from ..store.labelling import LabelledUnits
from ..store.sparse import columns_of, fires_anywhere, rows_of, shape_of
from .probing import Fold, deal, predict, score, sparse_probe
from .ranking import RANKINGS, best_first, fisher_scores

REST = ""
"""what the others are called"""


class ErasureStep(NamedTuple):
    """The classifier after some features were erased."""

    erased: int
    balanced_accuracy: float
    interval: tuple[float, float]
    """95%, by bootstrap over groups"""


class ErasureGoal(NamedTuple):
    """What it takes to come down to some balanced accuracy."""

    accuracy: float
    erased: int
    """the fewest features, of the steps tried, after which the label is at or below it"""
    others: float | None
    """balanced accuracy among the other labels without those features; None with fewer than two others"""


class Erasure(NamedTuple):
    """Erasing in one order."""

    gone: ErasureGoal
    """near chance"""
    halved: ErasureGoal
    """midway between the accuracy before and 0.5"""
    curve: tuple[ErasureStep, ...]
    """in order of features erased, from none on"""


class Unlearned(NamedTuple):
    """What it takes to erase one label."""

    label: str
    units: int
    groups: int
    alive: int
    """features that fired; none of the others can be erased"""
    features: int
    before: ErasureStep
    others_before: float | None
    """balanced accuracy among the other labels with all features"""
    first: tuple[int, ...]
    """ids of the ten features that go first, by all units"""
    fisher: Erasure | None
    """None if the label could not be told from the rest before"""
    random: Erasure | None
    """the same in random order"""


def unlearn(
    features: csr_matrix,
    units: LabelledUnits,
    label: str,
    chance: float = 0.55,
    folds: int = 5,
    tick: Callable[[], object] = lambda: None,
) -> Unlearned:
    """Erase one label from features [n, F] of labelled units [n]; it is gone at or below ``chance``.

    ``tick`` is called after each step.
    """
    concept = _LabelAgainstRest(features, units, label, folds)
    before = concept.step({}, 0)
    found = before.balanced_accuracy > chance
    erased = {name: concept.erase(name, before, chance, tick) for name in ("fisher", "random") if found}
    is_label = units.labels == label
    return Unlearned(
        label=label,
        units=int(is_label.sum()),
        groups=len(set(units.groups[is_label].tolist())),
        alive=concept.alive,
        features=shape_of(features)[1],
        before=before,
        others_before=concept.others({}, 0),
        first=tuple(best_first(fisher_scores(features, concept.one.labels))[:10].tolist()),
        fisher=erased.get("fisher"),
        random=erased.get("random"),
    )


def descend(
    step: Callable[[int], ErasureStep],
    before: ErasureStep,
    alive: int,
    goals: Sequence[float],
    precision: float = 0.02,
) -> tuple[ErasureStep, ...]:
    """For each goal, erase 1, 2, 4, … features until a step is at or below it, then halve the gap.

    The counts are exact to ``precision`` of themselves, as far as accuracy falls with each feature. With
    all ``alive`` erased it must be at or below all goals.
    """
    steps = {0: before}

    def above(count: int, goal: float) -> bool:
        if count not in steps:
            steps[count] = step(count)
        return steps[count].balanced_accuracy > goal

    for goal in goals:
        low, high = 0, 1
        while above(high, goal) and high < alive:
            low, high = high, min(2 * high, alive)
        while high - low > max(1, precision * high):
            middle = (low + high) // 2
            low, high = (middle, high) if above(middle, goal) else (low, middle)
    return tuple(sorted(steps.values()))


Orders = dict[int, NDArray[np.intp]]
"""order of erasing by number of the fold; each is ranked on the other folds"""


class _LabelAgainstRest:
    """One label against the rest, on folds of all labels."""

    def __init__(self, features: csr_matrix, units: LabelledUnits, label: str, folds: int):
        self.features, self.units = features, units
        self.folds = list(deal(units, folds))
        is_label = units.labels == label
        self.one = units._replace(labels=np.where(is_label, label, REST))
        self._fires = fires_anywhere(features)
        self.alive = int(self._fires.sum())
        self._label = label

    def orders(self, name: str) -> Orders:
        """Features in the order they go, those that never fire last."""
        orders: Orders = {}
        for number, fold in enumerate(self.folds):
            score_of = RANKINGS[name]
            scores = score_of(rows_of(self.features, fold.fit), self.one.labels[fold.fit])
            orders[number] = best_first(np.where(self._fires, scores, -1))
        return orders

    def erase(self, name: str, before: ErasureStep, chance: float, tick: Callable[[], object]) -> Erasure:
        """Erase in one order until the label is gone."""
        orders = self.orders(name)
        halfway = (before.balanced_accuracy + 0.5) / 2

        def step(count: int) -> ErasureStep:
            tick()
            return self.step(orders, count)

        curve = descend(step, before, self.alive, (halfway, chance))

        def reached(goal: float) -> ErasureGoal:
            count = min(step.erased for step in curve if step.balanced_accuracy <= goal)
            return ErasureGoal(goal, count, self.others(orders, count))

        return Erasure(reached(chance), reached(halfway), curve)

    def step(self, orders: Orders, count: int) -> ErasureStep:
        """The classifier on what is left after ``count`` features went."""
        predicted = np.full_like(self.one.labels, REST)
        for number, fold in enumerate(self.folds):
            left = self._left(orders, number, count)
            predicted[fold.test] = np.where(
                _classify(left, self.one.labels == self._label, fold), self._label, REST
            )
        result = score(self.one, predicted)
        return ErasureStep(count, result.balanced_accuracy, result.balanced_interval)

    def others(self, orders: Orders, count: int) -> float | None:
        """Balanced accuracy among the other labels on what is left."""
        rest = self.units.labels != self._label
        if len(set(self.units.labels[rest].tolist())) < 2:
            return None
        predicted = self.units.labels.copy()
        for number, fold in enumerate(self.folds):
            without = Fold(fold.fit[rest[fold.fit]], fold.test[rest[fold.test]])
            left = self._left(orders, number, count)
            predicted[without.test] = predict(sparse_probe(), left, self.units.labels, without)
        return score(self.units.take(rest), predicted[rest]).balanced_accuracy

    def _left(self, orders: Orders, number: int, count: int) -> csr_matrix:
        return columns_of(self.features, np.sort(orders[number][count:])) if count else self.features


def _classify(features: csr_matrix, is_label: NDArray[np.bool_], fold: Fold) -> NDArray[np.bool_]:
    """Fit on one part of a fold, predict the other; without any feature that fires, no."""
    fit = rows_of(features, fold.fit)
    if not fit.nnz:
        return np.zeros(len(fold.test), bool)
    model = fit_logistic(FrameSample(fit, is_label[fold.fit]))
    return rows_of(features, fold.test) @ model.weight + model.bias > 0
