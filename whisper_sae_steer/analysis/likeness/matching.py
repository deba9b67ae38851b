"""Features of two SAEs compared: the frames they fire on, by window, and their decoder directions."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix

from ...errors import AnalysisError
from ...sae.autoencoder import SAE
from ..store.activations import Window
from ..store.sparse import shape_of

SLACK = 2
"""frames by which windows of two encoders may differ: HuBERT gives a frame or two less than Whisper"""


class Spans(NamedTuple):
    """The frames that two stores have in common, window by window."""

    a: NDArray[np.intp]
    """[W] first rows in one store"""
    b: NDArray[np.intp]
    """[W] first rows in the other"""
    frames: NDArray[np.intp]
    """[W]"""

    def rows(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows [N] of the one store and of the other that hold the same audio."""
        return _rows(self.a, self.frames), _rows(self.b, self.frames)

    def shuffled_rows(self, seed: int = 0) -> NDArray[np.intp]:
        """Rows [N] of the other store with each window in the place of another: audio that isn't the same."""
        order = np.random.default_rng(seed).permutation(len(self.frames))
        other = np.empty_like(order)
        other[order] = np.roll(order, 1)
        return _rows(self.b[other], self.frames[other])


def align(a: Sequence[Window], b: Sequence[Window]) -> Spans:
    """Windows of the same recording and start, cut to the common length.

    AnalysisError if the stores are of other recordings: a window is missing or longer by more than 2 frames.
    """
    one, other = _by_recording(a), _by_recording(b)
    for key in (*one, *other):
        lengths = [windows[key].frames if key in windows else 0 for windows in (one, other)]
        if abs(lengths[0] - lengths[1]) > SLACK:
            raise AnalysisError(
                f"the stores hold other audio: {key[0]} at {key[1]:g} s has {lengths[0]} and {lengths[1]}"
                " frames; encode the same recordings into both"
            )
    both = [(one[key], other[key]) for key in one if key in other]
    if not both:
        raise AnalysisError("the stores have no window in common; encode the same recordings into both")
    return Spans(
        np.array([x.first for x, _ in both]),
        np.array([y.first for _, y in both]),
        np.array([min(x.frames, y.frames) for x, y in both]),
    )


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
    union = counts(a)[:, None].astype(np.float32) + counts(b).astype(np.float32)
    union -= shared
    return np.divide(shared, union, out=shared, where=union > 0)


def counts(fires: csr_matrix) -> NDArray[np.int64]:
    """[F]: frames on which each feature fires."""
    return np.bincount(fires.indices, minlength=shape_of(fires)[1])


def one_to_one(score: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns [min(A, B)] of the pairs with the highest sum of scores: the Hungarian method."""
    rows, columns = linear_sum_assignment(score, maximize=True)
    return rows, columns


def decoder_cosine(a: SAE, b: SAE) -> NDArray[np.float32]:
    """[A, B]: cosine of decoder rows."""
    return unit_rows(a) @ unit_rows(b).T


def unit_rows(sae: SAE) -> NDArray[np.float32]:
    """Decoder rows [F, d] of length 1."""
    rows = sae.W_dec.detach().numpy()
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _by_recording(windows: Sequence[Window]) -> dict[tuple[str, float, int], Window]:
    """Windows by recording, start and how often the two came before."""
    seen: Counter[tuple[str, float]] = Counter()
    found: dict[tuple[str, float, int], Window] = {}
    for window in windows:
        key = (window.clip, window.start)
        found[(*key, seen[key])] = window
        seen[key] += 1
    return found


def _rows(first: NDArray[np.intp], frames: NDArray[np.intp]) -> NDArray[np.intp]:
    """The numbers first[i] … first[i] + frames[i] - 1 of every i, in order."""
    ends = frames.cumsum()
    return np.arange(ends[-1]) + np.repeat(first - (ends - frames), frames)
