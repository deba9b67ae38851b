"""What a store alone says about every feature: how often and where it fires, and what is like it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from tqdm import tqdm

from ...sae.autoencoder import SAE
from ..likeness.comparison import unit_rows
from ..store.activations import ActivationStore, Window
from ..store.overlap import firing, firing_counts, iou
from ..store.sparse import product, summing

Related = list[tuple[int, float]]
AT_ONCE = 512
"""features compared with all others at once"""


class FeatureFigures(NamedTuple):
    """FeatureFigures of F features over D domains and L labels, all counted in frames of 20 ms."""

    frames: NDArray[np.int64]
    """[F] in which each fires"""
    most: NDArray[np.float32]
    """[F] highest activation"""
    mean: NDArray[np.float64]
    """[F] activation where it fires; 0 for a dead feature"""
    domains: tuple[str, ...]
    domain_frames: NDArray[np.int64]
    """[D]"""
    domain_rates: NDArray[np.float64]
    """[D, F] share of the domain's frames in which it fires"""
    labels: tuple[str, ...]
    label_rates: NDArray[np.float64]
    """[L, F]"""
    information: NDArray[np.float64]
    """[L, F] what the label adds to the mutual information, in bits, of firing and labels"""

    @property
    def alive(self) -> NDArray[np.intp]:
        """Features that fire at least once."""
        return self.frames.nonzero()[0]


def figures(store: ActivationStore, features: csr_matrix) -> FeatureFigures:
    """Count ``features`` [rows, F] of the store's frames."""
    fires = firing(features)
    frames = firing_counts(fires)
    total = np.asarray(features.sum(0), dtype=np.float64).ravel()
    domains, in_domain, domain_rates = _rates(fires, store.windows, [w.domain for w in store.windows])
    labels, in_label, label_rates = _rates(fires, store.windows, [w.label for w in store.windows])
    return FeatureFigures(
        frames=frames,
        most=features.max(0).toarray().ravel().astype(np.float32),
        mean=total / np.maximum(frames, 1),
        domains=domains,
        domain_frames=in_domain,
        domain_rates=domain_rates,
        labels=labels,
        label_rates=label_rates,
        information=_information(label_rates, in_label),
    )


def fires_together(features: csr_matrix, alive: NDArray[np.intp], most: int) -> list[Related]:
    """For each alive feature the others with the highest IoU of the frames in which they fire."""
    fires = firing(features)[:, alive]
    found: list[Related] = []
    for start in tqdm(range(0, len(alive), AT_ONCE), desc="firing together", unit="block"):
        found += _highest(iou(fires[:, start : start + AT_ONCE], fires), alive, start, most)
    return found


def points_alike(sae: SAE, alive: NDArray[np.intp], most: int) -> list[Related]:
    """For each alive feature the others with the highest cosine of decoder rows."""
    rows = unit_rows(sae)[alive]
    found: list[Related] = []
    for start in range(0, len(alive), AT_ONCE):
        found += _highest(rows[start : start + AT_ONCE] @ rows.T, alive, start, most)
    return found


def _rates(
    fires: csr_matrix, windows: Sequence[Window], names: Sequence[str]
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.float64]]:
    """Distinct names, their frames, and the share of them in which each feature fires."""
    distinct, numbers = np.unique(names, return_inverse=True)
    lengths = [window.frames for window in windows]
    frames = np.bincount(numbers, lengths, len(distinct)).astype(np.int64)
    fired = product(summing(np.repeat(numbers, lengths), len(distinct)), fires)
    return tuple(distinct.tolist()), frames, fired / np.maximum(frames, 1)[:, None]


def _information(rates: NDArray[np.float64], frames: NDArray[np.int64]) -> NDArray[np.float64]:
    """Terms [L, F] of the mutual information of "fires in a frame" and "the frame's label", in bits."""
    share = (frames / frames.sum())[:, None]
    overall = (share * rates).sum(0)
    terms = np.zeros_like(rates)
    for given, without in ((rates, overall), (1 - rates, 1 - overall)):
        ratio = np.divide(given, without, out=np.ones_like(given), where=(given > 0) & (without > 0))
        terms += share * given * np.log2(ratio)
    return terms


def _highest(score: NDArray[np.float32], alive: NDArray[np.intp], start: int, most: int) -> list[Related]:
    """The highest positive scores of each row [A]; row i is feature ``start + i`` of the alive ones."""
    score[np.arange(len(score)), np.arange(start, start + len(score))] = 0
    order = np.argsort(-score, axis=1, kind="stable")[:, :most]
    return [
        [(int(alive[j]), round(float(row[j]), 4)) for j in best if row[j] > 0]
        for row, best in zip(score, order, strict=True)
    ]
