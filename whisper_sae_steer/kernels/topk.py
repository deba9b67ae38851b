"""Exact top-k in Triton; see ``topk_reference.py`` for its meaning.

A frame's top-k takes two launches. The first multiplies, and instead of writing pre-activations appends
those above the guess to a short list a frame. The second finds the k-th largest of each list by bisection
over its bits, and ranks the survivors. A list entry is one 64-bit key, the value's bits above the inverted
column, so that comparing keys orders by value, then by column. Frames whose list overflowed, or stayed too
short, are computed again in PyTorch; to know whether there are any, the host waits for the GPU once.

A batch's top-k compacts what lies above the guess in two passes over the pre-activations, row by row, and
leaves the rest, a few entries for each kept, to PyTorch.
"""
# a kernel's parameters are pointers and numbers that Triton types
# pyright: reportMissingParameterType=false

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import linear

from . import topk_reference
from .sparse_reference import read_dtype
from .steer import launch, precision, shared_memory
from .tiles import power_of_2_over, tiles_over
from .topk_reference import Selection, TopK

FALLBACK_ENTRIES = 2**27
"""pre-activations that a fallback holds at once: 512 MiB"""
SAMPLED_FRAMES = 128


class TopKBlocks(NamedTuple):
    """How the product is cut, by name of the kernel's constants."""

    BLOCK_N: int
    BLOCK_F: int
    BLOCK_D: int
    num_warps: int
    num_stages: int


@torch.no_grad()
def topk_encode(x: Tensor, w_enc: Tensor, b_enc: Tensor, k: int, guess: float | Tensor = 0.0) -> TopK:
    if x.dtype == torch.float64:
        return topk_reference.topk_encode(x, w_enc, b_enc, k, guess)
    n, features = len(x), len(w_enc)
    x, w_enc = x.to(read_dtype(x)), w_enc.to(read_dtype(x))
    if not isinstance(guess, Tensor) and guess <= 0:
        guess = estimated_guess(x, w_enc, b_enc, k)
    floor = torch.as_tensor(guess, dtype=torch.float32, device=x.device).clamp_min(0).expand(n)
    capacity = power_of_2_over(4 * k)
    keys = torch.empty((n, capacity), dtype=torch.int64, device=x.device)
    counts = torch.zeros(n, dtype=torch.int32, device=x.device)
    values = torch.empty((n, k), dtype=torch.float32, device=x.device)
    indices = torch.empty((n, k), dtype=torch.int64, device=x.device)
    if n:
        blocks = blocks_for(x)
        launch(
            _candidates, (tiles_over(n, blocks.BLOCK_N) * tiles_over(features, blocks.BLOCK_F),),
            x, w_enc, b_enc.contiguous(), floor, counts, keys, n, features,
            *x.stride(), *w_enc.stride(), *floor.stride(),
            D=x.shape[1], CAPACITY=capacity, PRECISION=precision(x), **blocks._asdict(),
        )  # fmt: skip
        launch(
            _ranked, (n,), keys, counts, values, indices, k, CAPACITY=capacity,
            PLACES=power_of_2_over(k), num_warps=min(8, max(1, capacity // 256)),
        )  # fmt: skip
    again = (counts > capacity) | ((counts < k) & (floor > 0))
    rows = again.nonzero()[:, 0]
    if len(rows):
        _recompute(rows, x, w_enc, b_enc, floor, TopK(values, indices))
    return TopK(values, indices)


def estimated_guess(x: Tensor, w_enc: Tensor, b_enc: Tensor, k: int) -> Tensor:
    """A number that nearly every frame's k-th largest exceeds, from frames spread over the batch."""
    sample = x[:: max(1, len(x) // SAMPLED_FRAMES)]
    if not len(sample):
        return x.new_zeros((), dtype=torch.float32)
    kth = topk_reference.preactivations(sample, w_enc, b_enc).topk(k, dim=1).values[:, -1]
    return 0.9 * kth.nan_to_num(0.0).quantile(0.02).clamp_min(0)


@torch.no_grad()
def batch_topk(pre: Tensor, k: int, guess: float = 0.0) -> Selection:
    if pre.dtype == torch.float64:
        return topk_reference.batch_topk(pre, k, guess)
    keep = k * len(pre)
    found, values = _above(pre, max(float(guess), 0.0))
    if guess > 0 and len(found) < keep:
        found, values = _above(pre, 0.0)
    return topk_reference.keep_largest(found, values, keep, pre.shape[1])


@torch.no_grad()
def batch_topk_encode(x: Tensor, w_enc: Tensor, b_enc: Tensor, k: int, guess: float = 0.0) -> Selection:
    return batch_topk(linear(x, w_enc.to(x.dtype), b_enc.to(x.dtype)), k, guess)


def blocks_for(x: Tensor) -> TopKBlocks:
    if x.element_size() == 4:
        return TopKBlocks(64, 128, 32, num_warps=4, num_stages=2)
    if shared_memory(x.device) >= 200 * 1024:  # H100 and later
        return TopKBlocks(128, 256, 64, num_warps=8, num_stages=4)
    return TopKBlocks(128, 128, 32, num_warps=8, num_stages=3)


def _recompute(rows: Tensor, x: Tensor, w_enc: Tensor, b_enc: Tensor, floor: Tensor, out: TopK) -> None:
    """Fill in the results of these frames from their pre-activations in full."""
    for some in rows.split(max(1, FALLBACK_ENTRIES // max(1, len(w_enc)))):
        pre = topk_reference.preactivations(x[some], w_enc, b_enc)
        out.values[some], out.indices[some] = topk_reference.topk_rows(pre, out.values.shape[1], floor[some])


def _above(pre: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Ascending flat positions and values of the entries above ``floor``."""
    n, features = pre.shape
    ends = torch.zeros(n + 1, dtype=torch.int64, device=pre.device)
    if not pre.numel():
        return ends[:0], pre.new_empty(0)
    launch(_count, (n,), pre, floor, ends[1:], features, *pre.stride(), BLOCK_F=1024, num_warps=4)
    ends = ends.cumsum(0)
    found = torch.empty(int(ends[-1]), dtype=torch.int64, device=pre.device)
    values = pre.new_empty(len(found))
    if len(found):
        launch(
            _compact,
            (n,),
            pre,
            floor,
            ends,
            found,
            values,
            features,
            *pre.stride(),
            BLOCK_F=1024,
            num_warps=4,
        )
    return found, values


@triton.jit
def _candidates(x, w_enc, b_enc, floor, counts, keys, n, features,
                stride_xn, stride_xd, stride_wf, stride_wd, stride_floor, D: tl.constexpr,
                CAPACITY: tl.constexpr, PRECISION: tl.constexpr,
                BLOCK_N: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    # programs that follow each other share their frames; all feature rows stay in the second-level cache
    tiles = tl.cdiv(features, BLOCK_F)
    row = tl.program_id(0) // tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    f = tl.program_id(0) % tiles * BLOCK_F + tl.arange(0, BLOCK_F)
    frames = x + row.to(tl.int64)[:, None] * stride_xn
    weights = w_enc + f.to(tl.int64)[None, :] * stride_wf
    pre = tl.zeros((BLOCK_N, BLOCK_F), tl.float32)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        left = tl.load(frames + d[None, :] * stride_xd, mask=(row < n)[:, None] & (d < D)[None, :], other=0.0)
        right = tl.load(weights + d[:, None] * stride_wd,
                        mask=(f < features)[None, :] & (d < D)[:, None], other=0.0)  # fmt: skip
        pre = tl.dot(left, right, pre, input_precision=PRECISION)
    least = tl.load(floor + row * stride_floor, mask=row < n, other=float("inf"))
    # a quarter at a time, so that keys and places fit into registers beside the sums
    low, high = _halves(pre, BLOCK_N, BLOCK_F)
    first, second = _halves(low, BLOCK_N, BLOCK_F // 2)
    third, fourth = _halves(high, BLOCK_N, BLOCK_F // 2)
    column = tl.program_id(0) % tiles * BLOCK_F + tl.arange(0, BLOCK_F // 4)
    _append(first, row, column, b_enc, least, counts, keys, features, CAPACITY)
    _append(second, row, column + BLOCK_F // 4, b_enc, least, counts, keys, features, CAPACITY)
    _append(third, row, column + BLOCK_F // 2, b_enc, least, counts, keys, features, CAPACITY)
    _append(fourth, row, column + BLOCK_F // 4 * 3, b_enc, least, counts, keys, features, CAPACITY)


@triton.jit
def _halves(tile, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    return tl.split(tile.reshape(ROWS, 2, COLUMNS // 2).permute(0, 2, 1))


@triton.jit
def _append(pre, row, f, b_enc, least, counts, keys, features, CAPACITY: tl.constexpr):
    pre += tl.load(b_enc + f, mask=f < features, other=0.0).to(tl.float32)[None, :]
    alive = (pre > least[:, None]) & (f < features)[None, :]
    counters = counts + row[:, None] + tl.zeros_like(f)[None, :]
    place = tl.atomic_add(counters, 1, mask=alive, sem="relaxed")
    key = (pre.to(tl.int32, bitcast=True).to(tl.int64) << 32) | (0x7FFFFFFF - f)[None, :].to(tl.int64)
    tl.store(keys + row.to(tl.int64)[:, None] * CAPACITY + place, key, mask=alive & (place < CAPACITY))


@triton.jit
def _ranked(keys, counts, values, indices, k,
            CAPACITY: tl.constexpr, PLACES: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    slot = tl.arange(0, CAPACITY)
    filled = slot < tl.load(counts + row)
    key = tl.load(keys + row * CAPACITY + slot, mask=filled, other=0)
    bits, column = (key >> 32).to(tl.int32), (key & 0x7FFFFFFF).to(tl.int32)
    smallest = _kth_largest(bits, filled, k)
    above = bits > smallest  # an empty slot's bits are 0, a filled one's are not
    tied = filled & (bits == smallest)
    room = k - tl.sum(above.to(tl.int32))
    if tl.sum(tied.to(tl.int32)) > room:
        tied &= column >= _kth_largest(column, tied, room)
    kept = (above | tied).to(tl.int32)
    tl.store(keys + row * CAPACITY + tl.cumsum(kept) - 1, key, mask=kept > 0)
    tl.debug_barrier()  # the k keys are back in memory before other threads read them
    place = tl.arange(0, PLACES)
    many = tl.sum(kept)
    mine = tl.load(keys + row * CAPACITY + place, mask=place < many, other=0)
    rank = tl.sum((mine[None, :] > mine[:, None]).to(tl.int32), axis=1)
    rank = tl.where(place < many, rank, place)
    column = tl.where(place < many, 0x7FFFFFFF - (mine & 0x7FFFFFFF), 0)
    value = (mine >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    tl.store(values + row * k + rank, value, mask=place < k)
    tl.store(indices + row * k + rank, column, mask=place < k)


@triton.jit
def _kth_largest(numbers, mask, k):
    """The k-th largest of the non-negative int32 under the mask, 0 if there are fewer than k."""
    found = tl.zeros((), tl.int32)
    for step in range(31):
        trial = found | (1 << (30 - step))
        found = tl.where(tl.sum((mask & (numbers >= trial)).to(tl.int32)) >= k, trial, found)
    return found


@triton.jit
def _count(pre, floor, counts, features, stride_n, stride_f, BLOCK_F: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    found = tl.zeros((BLOCK_F,), tl.int32)
    for start in range(0, features, BLOCK_F):
        f = start + tl.arange(0, BLOCK_F)
        value = tl.load(pre + row * stride_n + f * stride_f, mask=f < features, other=0.0)
        found += (value.to(tl.float32) > floor).to(tl.int32)
    tl.store(counts + row, tl.sum(found).to(tl.int64))


@triton.jit
def _compact(pre, floor, starts, found, values, features, stride_n, stride_f,
             BLOCK_F: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    place = tl.load(starts + row)
    for start in range(0, features, BLOCK_F):
        f = start + tl.arange(0, BLOCK_F)
        value = tl.load(pre + row * stride_n + f * stride_f, mask=f < features, other=0.0)
        above = (value.to(tl.float32) > floor).to(tl.int32)
        slot = place + tl.cumsum(above) - 1
        tl.store(found + slot, row * features + f, mask=above > 0)
        tl.store(values + slot, value, mask=above > 0)
        place += tl.sum(above)
