"""Which frames features fire on, and how far the frames of two features overlap."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from .sparse import shape_of

SAME_IOU = 0.5
"""Two features whose overlap is above this count as the same one."""


def firing(features: csr_matrix) -> csr_matrix:
    """[N, F] int32: 1 where a feature is above 0."""
    ones = (features.data > 0).astype(np.int32)
    found = csr_matrix((ones, features.indices, features.indptr), shape=features.shape)
    found.eliminate_zeros()
    return found


def iou(a: csr_matrix, b: csr_matrix) -> NDArray[np.float32]:
    """Intersection over union of the frames that features fire on: [N, A], [N, B] of :func:`firing` → [A, B].

    Pairs that never fire have 0. One sparse product: N times the square of the features a frame.
    """
    shared = (a.T @ b).toarray().astype(np.float32)
    union = firing_counts(a)[:, None].astype(np.float32) + firing_counts(b).astype(np.float32)
    union -= shared
    return np.divide(shared, union, out=shared, where=union > 0)


def firing_counts(fires: csr_matrix) -> NDArray[np.int64]:
    """[F]: frames on which each feature fires."""
    return np.bincount(fires.indices, minlength=shape_of(fires)[1])
