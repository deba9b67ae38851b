"""Features of an SAE on the frames held back, and how many of them an SAE of another seed has, too."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix, vstack
from torch import Tensor

from ..analysis.likeness.comparison import match
from ..analysis.store.common_frames import CommonFrames
from ..sae.autoencoder import SAE

ENCODED_AT_ONCE = 2048
MOST_FRAMES = 200_000
"""held back, that two SAEs are compared on"""


class SharedFeatures(NamedTuple):
    """How far two SAEs have the same features; None where an SAE has no live one."""

    found: float | None
    """share of an SAE's live features whose best match in the other fires on the same frames: an IoU above
    0.5; mean of both directions"""
    of_firings: float | None
    """the same, each feature counted as often as it fires"""
    one_to_one: float | None
    """share of the pairs above 0.5 when no feature is used twice (Hungarian method)"""


@torch.no_grad()
def sparse_features(sae: SAE, frames: Tensor) -> csr_matrix:
    """Frames [N, d] → features [N, F]."""
    blocks = frames.split(ENCODED_AT_ONCE)
    return csr_matrix(vstack([csr_matrix(sae.encode(block.float()).numpy()) for block in blocks]))


def shared_features(a: csr_matrix, b: csr_matrix) -> SharedFeatures:
    """Compare features [N, A] and [N, B] of the same frames, as ``analyze stability`` does."""
    if not a.nnz or not b.nnz:
        return SharedFeatures(None, None, None)
    start, frames = np.zeros(1, np.intp), np.array([len(a.indptr) - 1])
    in_b, in_a, pairs = match(a, b, CommonFrames(start, start, frames))
    return SharedFeatures(
        (in_b.coverage + in_a.coverage) / 2, (in_b.of_firings + in_a.of_firings) / 2, pairs.coverage
    )


def first_frames(batches: Iterator[Tensor]) -> Tensor:
    """At most ``MOST_FRAMES`` of all frames, [N, d]."""
    taken, count = list[Tensor](), 0
    for batch in batches:
        taken.append(batch[: MOST_FRAMES - count])
        count += len(taken[-1])
        if count == MOST_FRAMES:
            break
    return torch.cat(taken)
