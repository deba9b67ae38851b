"""Matryoshka BatchTopK: the first features alone must reconstruct, too (Bussmann et al., arXiv 2503.17547).

Features come out ordered from general to specific: a small prefix holds what explains most, and later ones
can't absorb it.
"""

from itertools import pairwise

from torch import Tensor

from ...kernels import sparse_autoencode
from ...kernels.topk_reference import Selection
from .batchtopk import BatchTopKSAE


class MatryoshkaSAE(BatchTopKSAE):
    """BatchTopK over all features, with the mean of every prefix's loss."""

    def reconstruct(self, x: Tensor, selection: Selection) -> list[Tensor]:
        edges = [0, *(round(share * len(self.w_enc)) for share in self.options.prefixes)]
        total, reconstructions = self.b_dec, list[Tensor]()
        for first, last in pairwise(edges):
            inside = ((selection.cols >= first) & (selection.cols < last)).nonzero()[:, 0]
            part = Selection(selection.rows[inside], selection.cols[inside] - first, selection.values[inside])
            group = slice(first, last)
            alone = sparse_autoencode(
                x, self.w_enc[group], self.b_enc[group], self.w_dec[group], self.b_dec, part
            )
            total = total + (alone - self.b_dec)
            reconstructions.append(total)
        return reconstructions
