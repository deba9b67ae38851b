"""Sparse matrices of features: what scipy does, with types."""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix


def shape_of(features: csr_matrix) -> tuple[int, int]:
    """Rows and features."""
    return cast("tuple[int, int]", features.shape)


def rows_of(features: csr_matrix, which: NDArray[Any]) -> csr_matrix:
    """Some rows, by number or by mask [rows]."""
    return csr_matrix(cast(Any, features)[which])


def columns_of(features: csr_matrix, which: NDArray[Any]) -> csr_matrix:
    """Some features, by number or by mask [F]."""
    return csr_matrix(cast(Any, features)[:, which])


def fires_anywhere(features: csr_matrix) -> NDArray[np.bool_]:
    """Whether each feature is above zero in any row: [F]."""
    positive = features.indices[features.data > 0]
    return np.bincount(positive, minlength=shape_of(features)[1]) > 0


def summing(place: NDArray[np.intp], places: int) -> csr_matrix:
    """[P, n] int32: times rows [n, …], the sum of those of each place 0 … P − 1 in ``place`` [n]."""
    ones = np.ones(len(place), np.int32)
    return csr_matrix((ones, (place, np.arange(len(place)))), shape=(places, len(place)))


def averaging(place: NDArray[np.intp]) -> csr_matrix:
    """[P, n]: times values [n, …], the mean of those of each place 0 … P − 1 in ``place`` [n]."""
    weight = (1 / np.bincount(place))[place]
    return csr_matrix((weight, (place, np.arange(len(place)))))


def product(left: csr_matrix, right: csr_matrix) -> NDArray[np.float64]:
    """Their product, dense."""
    return np.asarray(cast(Any, left @ right).todense(), np.float64)
