"""Features of two SAEs matched by the frames they fire on: best match, one to one, duplicates."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix

from ...errors import AnalysisError
from ...sae.autoencoder import SAE
from ..store.common_frames import CommonFrames
from ..store.overlap import SAME_IOU, firing, firing_counts, iou

COPY_IOU = 0.9
"""Two features whose overlap is above this are all but copies."""
SHARED_COSINE = 0.7
"""Decoder rows whose cosine is above this are shared, as in Paulo and Belrose (arXiv 2501.16615)."""
THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))
RATES = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""edges of the strata of firing rates"""
TOP_TWINS = 10


class Stratum(NamedTuple):
    """Features that fire about as often."""

    above: float
    """share of frames, exclusive"""
    up_to: float
    """inclusive"""
    features: int
    coverage: float | None
    """share of them with a best IoU above 0.5; None without features"""


class BestMatches(NamedTuple):
    """Features of one SAE and their best matches."""

    alive: int
    """features that fire on any frame; all shares are of these"""
    best: tuple[float | None, ...]
    """[F] highest IoU with a feature of the other SAE; None for a dead feature"""
    partner: tuple[int | None, ...]
    """[F] the feature that has it"""
    coverage: float
    """share with a best IoU above 0.5"""
    of_firings: float
    """the same, each feature counted as often as it fires"""
    curve: tuple[float, ...]
    """coverage at each of THRESHOLDS"""
    chance: float | None
    """coverage if the other SAE's windows are shuffled; None for a single window"""
    chance_curve: tuple[float, ...] | None
    by_rate: tuple[Stratum, ...]


class OneToOne(NamedTuple):
    """Each feature with at most one of the other SAE, so that the sum of IoUs is highest."""

    pairs: int
    """as many as the SAE with fewer alive features has"""
    coverage: float
    """share of the pairs with an IoU above 0.5"""
    mean_iou: float
    partner: tuple[int | None, ...]
    """[A] of the first SAE's features"""
    iou: tuple[float | None, ...]
    """[A] with that partner"""


class Cosine(NamedTuple):
    """How alike the directions are that features write. Only defined for the same activations."""

    mean_best: float
    """of the first SAE's alive features: mean of the highest cosine with a decoder row of the other"""
    shared: float
    """share with one above 0.7"""
    of_pairs: float | None
    """mean cosine of one-to-one pairs with an IoU above 0.5; None if there are none"""


class Twins(NamedTuple):
    """Two features of one SAE that fire on the same frames."""

    a: int
    b: int
    iou: float


class Duplicates(NamedTuple):
    """Features of one SAE that are alike."""

    sae: str
    tap: str
    features: int
    closest: BestMatches
    """each feature's best match among the others of the same SAE"""
    alike: int
    """pairs with an IoU above 0.5"""
    copies: int
    """pairs with one above 0.9"""
    top: tuple[Twins, ...]
    """the closest"""


def match(
    a: csr_matrix, b: csr_matrix, common: CommonFrames, names: tuple[str, str] = ("a", "b")
) -> tuple[BestMatches, BestMatches, OneToOne]:
    """Features [rows, A] and [rows', B] of two SAEs, by the common frames that they fire on."""
    rows_a, rows_b = common.rows()
    fires_a, fires_b = firing(a)[rows_a], firing(b)[rows_b]
    frames, on_a, on_b = len(rows_a), firing_counts(fires_a), firing_counts(fires_b)
    for name, on in zip(names, (on_a, on_b), strict=True):
        _check_alive(on, name)
    chance: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    if len(common.frames) > 1:
        score = iou(fires_a, firing(b)[common.shuffled_rows()])
        chance = score.max(1), score.max(0)
    score = iou(fires_a, fires_b)
    return (
        _found(score, on_a, frames, chance[0] if chance else None),
        _found(score.T, on_b, frames, chance[1] if chance else None),
        _one_to_one(score, on_a, on_b),
    )


def find_duplicates(features: csr_matrix, name: str, tap: str = "") -> Duplicates:
    """Features [N, F] of one SAE that fire on the same frames."""
    fires = firing(features)
    on = firing_counts(fires)
    _check_alive(on, name)
    score = iou(fires, fires)
    np.fill_diagonal(score, 0)
    rows, columns = (score > SAME_IOU).nonzero()
    above = score[rows, columns][rows < columns]
    pairs = np.stack([rows, columns])[:, rows < columns]
    top = np.argsort(-above, kind="stable")[:TOP_TWINS]
    return Duplicates(
        name,
        tap,
        len(on),
        _found(score, on, len(fires.indptr) - 1),
        len(above),
        int((above > COPY_IOU).sum()),
        tuple(Twins(int(pairs[0, i]), int(pairs[1, i]), round(float(above[i]), 4)) for i in top),
    )


def compare_directions(a: SAE, b: SAE, found: tuple[BestMatches, BestMatches, OneToOne]) -> Cosine:
    """Decoder rows of two SAEs of the same activations; ``found`` is what :func:`match` gave."""
    in_b, in_a, pairs = found
    cosine = decoder_cosine(a, b)
    alive = [np.array([best is not None for best in side.best]) for side in (in_b, in_a)]
    best = cosine[np.ix_(*alive)].max(1)
    same = [
        float(cosine[feature, partner])
        for feature, (partner, score) in enumerate(zip(pairs.partner, pairs.iou, strict=True))
        if partner is not None and score is not None and score > SAME_IOU
    ]
    return Cosine(
        float(best.mean()), float((best > SHARED_COSINE).mean()), float(np.mean(same)) if same else None
    )


def _found(
    score: NDArray[np.float32],
    on: NDArray[np.int64],
    frames: int,
    chance: NDArray[np.float32] | None = None,
) -> BestMatches:
    """``score`` [A, B] of A's features, which fire on ``on`` [A] of the frames."""
    alive, partner, best = on > 0, score.argmax(1), score.max(1)
    stable = best > SAME_IOU
    return BestMatches(
        alive=int(alive.sum()),
        best=tuple(round(float(x), 4) if on else None for x, on in zip(best, alive, strict=True)),
        partner=tuple(
            int(p) if on and x > 0 else None for p, x, on in zip(partner, best, alive, strict=True)
        ),
        coverage=float(stable[alive].mean()),
        of_firings=float(on[stable].sum() / on.sum()),
        curve=_curve(best[alive]),
        chance=None if chance is None else float((chance[alive] > SAME_IOU).mean()),
        chance_curve=None if chance is None else _curve(chance[alive]),
        by_rate=tuple(
            _stratum(low, high, stable[(on > low * frames) & (on <= high * frames)])
            for low, high in pairwise(RATES)
        ),
    )


def _curve(best: NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(float((best > threshold).mean()) for threshold in THRESHOLDS)


def _stratum(above: float, up_to: float, stable: NDArray[np.bool_]) -> Stratum:
    return Stratum(above, up_to, len(stable), float(stable.mean()) if len(stable) else None)


def _one_to_one(score: NDArray[np.float32], on_a: NDArray[np.int64], on_b: NDArray[np.int64]) -> OneToOne:
    alive_a, alive_b = on_a.nonzero()[0], on_b.nonzero()[0]
    rows, columns = one_to_one(score[np.ix_(alive_a, alive_b)])
    rows, columns = alive_a[rows], alive_b[columns]
    matched = score[rows, columns]
    partner = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    of_partner = dict(zip(rows.tolist(), matched.tolist(), strict=True))
    return OneToOne(
        len(matched),
        float((matched > SAME_IOU).mean()),
        float(matched.mean()),
        tuple(partner.get(feature) for feature in range(len(on_a))),
        tuple(of_partner.get(feature) for feature in range(len(on_a))),
    )


def _check_alive(on: NDArray[np.int64], name: str) -> None:
    if not on.any():
        raise AnalysisError(f"no feature of {name} fires on these recordings; encode others")


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
