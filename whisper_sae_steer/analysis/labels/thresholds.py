"""Every feature as a detector of a label: best threshold, F1 and average precision, on sparse columns."""

from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix

from ..store.sparse import shape_of


class BestThresholds(NamedTuple):
    """The best threshold of every feature: it says yes where its activation is at least that."""

    f1: NDArray[np.float64]
    """[F]; 0 for a feature that never fires"""
    threshold: NDArray[np.float64]
    """[F]; the highest of those with the best F1, infinite for a feature that never fires"""
    average_precision: NDArray[np.float64]
    """[F]; as scikit-learn's ``average_precision_score``"""


class Sweep:
    """Activations of every feature in falling order, sorted once for all labels.

    Thresholds are the positive activations. A threshold of zero, which everything passes, is none, but the
    average precision counts it, as scikit-learn does.
    """

    def __init__(self, features: csr_matrix):
        columns = csc_matrix(features)
        columns.eliminate_zeros()
        values = cast("NDArray[np.float32]", columns.data)
        self.units, self.width = shape_of(features)
        self._first = columns.indptr[:-1].astype(np.int64)
        column = np.repeat(np.arange(self.width, dtype=np.int32), np.diff(columns.indptr))
        order = np.lexsort((-values, column))
        value = values[order]
        self._unit = columns.indices[order]
        # equal activations of a feature pass a threshold together: the last of them stands for all
        last = np.ones(len(value), bool)
        last[:-1] = (value[1:] != value[:-1]) | (column[1:] != column[:-1])
        self._end = np.flatnonzero(last)
        self._column, self._value = column[self._end], value[self._end]
        self._yes = self._end + 1 - self._first[self._column]
        self._alive, self._start = np.unique(self._column, return_index=True)

    def best(self, is_label: NDArray[np.bool_]) -> BestThresholds:
        """Best thresholds for one label against the rest: ``is_label`` [units], at least one of them."""
        positives = int(is_label.sum())
        hits = np.concatenate([[0], np.cumsum(is_label[self._unit])])
        right = hits[self._end + 1] - hits[self._first[self._column]]
        f1 = 2 * right / (self._yes + positives)
        precision = np.full(self.width, positives / self.units)
        best = BestThresholds(np.zeros(self.width), np.full(self.width, np.inf), precision)
        if not len(self._start):
            return best
        best.f1[self._alive] = np.maximum.reduceat(f1, self._start)
        at_best = np.flatnonzero(f1 == best.f1[self._column])
        alive, first = np.unique(self._column[at_best], return_index=True)
        best.threshold[alive] = self._value[at_best[first]]
        gained = np.diff(right, prepend=0)
        gained[self._start] = right[self._start]
        area = np.add.reduceat(gained * right / self._yes, self._start)
        found = right[np.append(self._start[1:], len(right)) - 1]
        # what never fires is found last, all at once, at the threshold of zero
        best.average_precision[self._alive] = (
            area + (positives - found) * positives / self.units
        ) / positives
        return best
