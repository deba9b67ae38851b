"""Batch-wide top-k and the sparse forward/backward that make CPU training affordable.

A dense step costs five products of [N, d]·[d, F]. The pre-activations are needed in full, and their
gradient is quickest in full; the reconstruction and both weights' gradients touch only the k·N
activations that survive of N·F.
"""

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


class Selection(NamedTuple):
    """The k·N surviving activations of a batch, sorted by row."""

    rows: Tensor
    cols: Tensor
    values: Tensor


def batch_topk(pre: Tensor, k: int, guess: float) -> Selection:
    """The k·N largest positive entries of ``pre`` [N, F], exactly.

    ``guess`` is a value expected below the k·N-th largest: only entries above it are sorted. When
    too few lie above, all positive ones are.
    """
    keep = k * len(pre)
    mask = pre > max(guess, 0.0)
    if guess > 0 and int(mask.sum()) < keep:
        mask = pre > 0
    rows, cols = mask.nonzero(as_tuple=True)
    values = pre[rows, cols]
    if len(values) > keep:
        chosen = values.topk(keep, sorted=False).indices.sort().values
        rows, cols, values = rows[chosen], cols[chosen], values[chosen]
    return Selection(rows, cols, values)


class SparseAutoencode(torch.autograd.Function):
    """Reconstruction from selected activations, with gradients for all four parameter tensors.

    Equal to ``scatter(values) @ W_dec + b_dec`` where values = ((x - b_dec) @ W_enc + b_enc) at the
    selected entries. W_enc is passed transposed, [F, d]: rows are contiguous, as W_dec's are.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_enc: Tensor, b_enc: Tensor, w_dec: Tensor, b_dec: Tensor,
        selection: Selection,
    ) -> Tensor:  # fmt: skip
        rows, cols, values = selection
        acts = _csr(rows, cols, values, (len(x), len(w_dec)))
        ctx.save_for_backward(x, w_enc, w_dec, b_dec, rows, cols, values)
        return torch.addmm(b_dec.expand(len(x), -1), acts, w_dec)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, w_enc, w_dec, b_dec, rows, cols, values = ctx.saved_tensors
        shape = (len(w_dec), len(x))
        order = cols.argsort()
        rows_by_col, cols_sorted = rows[order], cols[order]
        # one more dense product beats gathering k·N pairs of rows
        grad_values = (grad @ w_dec.T)[rows_by_col, cols_sorted]
        grad_w_dec = _csr(cols_sorted, rows_by_col, values[order], shape) @ grad
        grad_b_enc = w_dec.new_zeros(len(w_dec)).index_add_(0, cols_sorted, grad_values)
        grad_w_enc = _csr(cols_sorted, rows_by_col, grad_values, shape) @ (x - b_dec)
        grad_b_dec = grad.sum(0) - grad_b_enc @ w_enc
        return None, grad_w_enc, grad_b_enc, grad_w_dec, grad_b_dec, None


def _csr(rows: Tensor, cols: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Sparse CSR matrix from entries sorted by row."""
    starts = torch.zeros(shape[0] + 1, dtype=torch.int64)
    starts[1:] = torch.bincount(rows, minlength=shape[0]).cumsum(0)
    return torch.sparse_csr_tensor(starts, cols, values, shape, check_invariants=False)
