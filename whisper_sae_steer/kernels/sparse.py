"""Weighted sums and dot products of gathered rows in Triton; see ``sparse_reference.py`` for their meaning.

One program owns one row of the result, and walks its entries in order: no atomics, so the same bits every
time. Tiles are 32 entries by 128 columns: wide enough for whole cache lines in half precision, and narrow
enough that a feature which fires in every frame is shared among several programs.
"""
# a kernel's parameters are pointers and numbers that Triton types
# pyright: reportMissingParameterType=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import sparse_reference
from .steer import launch
from .tiles import tiles_over

ENTRIES, COLUMNS = 32, 128


def gather_sum(table: Tensor, starts: Tensor, index: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
    if weights.dtype == torch.float64:
        return sparse_reference.gather_sum(table, starts, index, weights, bias)
    rows, width = len(starts) - 1, table.shape[1]
    out = weights.new_empty((rows, width), dtype=weights.dtype if bias is None else bias.dtype)
    if out.numel():
        launch(
            _gather_sum, (rows, tiles_over(width, COLUMNS)),
            table, starts, index.contiguous(), weights.contiguous(),
            out if bias is None else bias.contiguous(), out, width, *table.stride(),
            HAS_BIAS=bias is not None, ENTRIES=ENTRIES, COLUMNS=COLUMNS, num_warps=4,
        )  # fmt: skip
    return out


def gather_dot(table: Tensor, starts: Tensor, index: Tensor, frames: Tensor) -> Tensor:
    if frames.dtype == torch.float64:
        return sparse_reference.gather_dot(table, starts, index, frames)
    out = frames.new_empty(len(index), dtype=torch.float32)
    if out.numel():
        launch(
            _gather_dot, (len(frames),),
            table, starts, index.contiguous(), frames, out, table.shape[1], *table.stride(), *frames.stride(),
            ENTRIES=ENTRIES, COLUMNS=COLUMNS, num_warps=4,
        )  # fmt: skip
    return out


@triton.jit
def _gather_sum(table, starts, index, weights, bias, out, width, stride_t, stride_d,
                HAS_BIAS: tl.constexpr, ENTRIES: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    row = tl.program_id(0)
    d = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    end = tl.load(starts + row + 1)
    total = tl.zeros((ENTRIES, COLUMNS), tl.float32)
    for first in range(tl.load(starts + row), end, ENTRIES):
        e = first + tl.arange(0, ENTRIES)
        source = tl.load(index + e, mask=e < end, other=0).to(tl.int64)
        weight = tl.load(weights + e, mask=e < end, other=0.0).to(tl.float32)
        values = tl.load(table + source[:, None] * stride_t + d[None, :] * stride_d,
                         mask=(e < end)[:, None] & (d < width)[None, :], other=0.0)  # fmt: skip
        total += weight[:, None] * values.to(tl.float32)
    result = tl.sum(total, axis=0)
    if HAS_BIAS:
        result += tl.load(bias + d, mask=d < width, other=0.0).to(tl.float32)
    tl.store(out + row.to(tl.int64) * width + d, result.to(out.dtype.element_ty), mask=d < width)


@triton.jit
def _gather_dot(table, starts, index, frames, out, width, stride_t, stride_d, stride_n, stride_nd,
                ENTRIES: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    row = tl.program_id(0)
    frame = frames + row.to(tl.int64) * stride_n
    end = tl.load(starts + row + 1)
    for first in range(tl.load(starts + row), end, ENTRIES):
        e = first + tl.arange(0, ENTRIES)
        source = tl.load(index + e, mask=e < end, other=0).to(tl.int64)
        total = tl.zeros((ENTRIES, COLUMNS), tl.float32)
        for start in range(0, width, COLUMNS):
            d = start + tl.arange(0, COLUMNS)
            values = tl.load(table + source[:, None] * stride_t + d[None, :] * stride_d,
                             mask=(e < end)[:, None] & (d < width)[None, :], other=0.0)  # fmt: skip
            x = tl.load(frame + d * stride_nd, mask=d < width, other=0.0)
            total += values.to(tl.float32) * x.to(tl.float32)[None, :]
        tl.store(out + e, tl.sum(total, axis=1).to(out.dtype.element_ty), mask=e < end)
