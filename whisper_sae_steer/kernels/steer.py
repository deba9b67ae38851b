"""The steering step in Triton: three launches, one read of h for the gate and one read and write to edit.

Half precision multiplies as it is and sums in float32. float32 multiplies in three TF32 products
("tf32x3"), which are right to float32's rounding; one TF32 product would be faster but could decide
differently from the CPU whether a feature near its threshold fires. Block sizes come from a fixed table
rather than an autotuner, so that a first call takes no minute and a process without a GPU can import.
Meaning, shapes and dtypes of every function are those of ``steer_reference.py``.
"""
# a kernel's parameters are pointers and numbers that Triton types
# pyright: reportMissingParameterType=false

from functools import cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import steer_reference
from .gate import GateKind
from .steer_reference import GateReading
from .tiles import power_of_2_over, tiles_over

MAX_FEATURES = {2: 1024, 4: 256}
"""features that one tile of accumulators holds, by bytes a number; more are edited in PyTorch"""


class SteerBlocks(NamedTuple):
    """How a kernel cuts its work, by name of its constants."""

    BLOCK_T: int
    BLOCK_F: int
    BLOCK_D: int
    num_warps: int
    num_stages: int


def feature_scores(
    h: Tensor, rows: Tensor, bias: Tensor, threshold: Tensor, weight: Tensor, gate_bias: Tensor
) -> Tensor:
    batch, frames, width = h.shape
    logits = h.new_empty((batch, frames), dtype=torch.float32)
    if logits.numel():
        blocks = blocks_for(h, len(rows))
        grid = (batch * tiles_over(frames, blocks.BLOCK_T),)
        launch(
            _feature_scores, grid,
            h, rows, bias.contiguous(), threshold.contiguous(), weight.contiguous(), gate_bias, logits,
            frames, *h.stride(), *rows.stride(),
            D=width, F=len(rows), PRECISION=precision(h), **blocks._asdict(),
        )  # fmt: skip
    return logits


def gate_strength(
    logits: Tensor, kind: GateKind, smoothing: int, threshold: float, ramp: float, alpha: float
) -> GateReading:
    batch, frames = logits.shape
    smoothing = max(1, smoothing)
    near = power_of_2_over(smoothing)
    scores = torch.empty_like(logits, memory_format=torch.contiguous_format)
    strength = torch.empty_like(scores if kind == "frame" else scores[:, :1])
    if logits.numel():
        launch(
            _gate_strength, (batch,),
            logits, scores, strength, frames, *logits.stride(), threshold, ramp, alpha,
            KIND=kind, SMOOTHING=smoothing, NEAR=near, BLOCK_T=max(16, min(1024, 8192 // near)),
            num_warps=8,
        )  # fmt: skip
    return GateReading(scores, strength)


def steer_selected(
    h: Tensor, rows: Tensor, bias: Tensor, threshold: Tensor, directions: Tensor, strength: Tensor
) -> Tensor:
    if len(rows) > MAX_FEATURES.get(h.element_size(), 0):
        return steer_reference.steer_selected(h, rows, bias, threshold, directions, strength)
    batch, frames, width = h.shape
    if batch and frames and len(rows):
        blocks = blocks_for(h, len(rows), whole=True)
        grid = (batch * tiles_over(frames, blocks.BLOCK_T),)
        launch(
            _steer_selected, grid,
            h, rows, bias.contiguous(), threshold.contiguous(), directions, strength,
            frames, *h.stride(), *rows.stride(), *directions.stride(), *strength_strides(strength),
            D=width, F=len(rows), PRECISION=precision(h), **blocks._asdict(),
        )  # fmt: skip
    return h


def steer_static(h: Tensor, vector: Tensor, strength: Tensor) -> Tensor:
    batch, frames, width = h.shape
    if batch and frames:
        block_d = min(1024, power_of_2_over(width))
        block_t = max(1, 4096 // block_d)
        grid = (batch * tiles_over(frames, block_t), tiles_over(width, block_d))
        launch(
            _steer_static, grid,
            h, vector, strength, frames, *h.stride(), vector.stride(0), *strength_strides(strength),
            D=width, BLOCK_T=block_t, BLOCK_D=block_d, num_warps=4,
        )  # fmt: skip
    return h


def blocks_for(h: Tensor, features: int, whole: bool = False) -> SteerBlocks:
    """Blocks for frames ``h`` and so many features; ``whole`` keeps all features of a frame in one tile.

    A window or two must spread over all processors, where it is the launch that costs; many windows want
    tall tiles, because every tile fetches the feature rows again.
    """
    frames = h.shape[0] * h.shape[1]
    block_t = next(tall for most, tall in ((4096, 16), (16384, 64), (float("inf"), 128)) if frames <= most)
    block_f = max(16, power_of_2_over(features))
    if not whole:
        block_f = min(block_f, 256)
    half = h.element_size() == 2
    # what the registers hold without spilling: three products of float32 need more than one of float16
    accumulators = 32768 if half else 8192 if block_f <= 128 else 4096
    block_t = max(16, min(block_t, accumulators // block_f))
    wide = block_t * block_f > (8192 if half else 2048)
    roomy = shared_memory(h.device) >= 160 * 1024  # A100, H100 and later; gaming cards have 64 to 100 KiB
    block_d = (64 if roomy and block_f <= 256 else 32) if half else 32
    if block_f > 256:
        block_d = 16
    return SteerBlocks(block_t, block_f, block_d, num_warps=8 if wide else 4, num_stages=3 if roomy else 2)


@cache
def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that one block of threads may use."""
    if device.type != "cuda":  # the interpreter
        return 0
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin


def precision(h: Tensor) -> str:
    return "tf32x3" if h.dtype == torch.float32 else "ieee"


def strength_strides(strength: Tensor) -> tuple[int, int]:
    """[B, 1] reads as [B, T]."""
    return strength.stride(0), 0 if strength.shape[1] == 1 else strength.stride(1)


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    kernel[grid](*args, enable_fp_fusion=True, **options)  # Triton warns where this isn't said


@triton.jit
def _tile(tensor, window, t, stride_b, stride_t):
    # 64 windows of large are 123 million numbers, and batches may be larger: offsets are 64 bits
    return tensor + window.to(tl.int64) * stride_b + t.to(tl.int64)[:, None] * stride_t


@triton.jit
def _preactivations(frames, inside, rows, bias, f, stride_d, stride_rf, stride_rd,
                    D: tl.constexpr, F: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_F: tl.constexpr,
                    BLOCK_D: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    pre = tl.zeros((BLOCK_T, BLOCK_F), tl.float32)
    for start in range(0, D, BLOCK_D):
        k = start + tl.arange(0, BLOCK_D)
        x = tl.load(frames + k[None, :] * stride_d, mask=inside[:, None] & (k < D)[None, :], other=0.0)
        w = tl.load(rows + f[None, :] * stride_rf + k[:, None] * stride_rd,
                    mask=(f < F)[None, :] & (k < D)[:, None], other=0.0)  # fmt: skip
        pre = tl.dot(x, w, pre, input_precision=PRECISION)
    return pre + tl.load(bias + f, mask=f < F, other=0.0).to(tl.float32)[None, :]


@triton.jit
def _jumprelu(pre, threshold, f, F: tl.constexpr):
    least = tl.load(threshold + f, mask=f < F, other=0.0).to(tl.float32)
    acts = pre * (pre > least[None, :]).to(tl.float32)
    return tl.where((f < F)[None, :], acts, 0.0)  # infinity times a padded row's 0 would be NaN


@triton.jit
def _feature_scores(h, rows, bias, threshold, weight, gate_bias, logits, frames,
                    stride_b, stride_t, stride_d, stride_rf, stride_rd,
                    D: tl.constexpr, F: tl.constexpr, PRECISION: tl.constexpr,
                    BLOCK_T: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    blocks = tl.cdiv(frames, BLOCK_T)
    window = tl.program_id(0) // blocks
    t = tl.program_id(0) % blocks * BLOCK_T + tl.arange(0, BLOCK_T)
    tile = _tile(h, window, t, stride_b, stride_t)
    total = tl.zeros((BLOCK_T,), tl.float32) + tl.load(gate_bias).to(tl.float32)
    for first in range(0, F, BLOCK_F):
        f = first + tl.arange(0, BLOCK_F)
        pre = _preactivations(tile, t < frames, rows, bias, f, stride_d, stride_rf, stride_rd,
                              D, F, BLOCK_T, BLOCK_F, BLOCK_D, PRECISION)  # fmt: skip
        by = tl.load(weight + f, mask=f < F, other=0.0).to(tl.float32)
        total += tl.sum(_jumprelu(pre, threshold, f, F) * by[None, :], 1)
    tl.store(logits + window.to(tl.int64) * frames + t, total, mask=t < frames)


@triton.jit
def _gate_strength(logits, scores, strength, frames, stride_b, stride_t, shut_from, ramp, alpha,
                   KIND: tl.constexpr, SMOOTHING: tl.constexpr, NEAR: tl.constexpr,
                   BLOCK_T: tl.constexpr):  # fmt: skip
    window = tl.program_id(0).to(tl.int64)
    highest = tl.full((BLOCK_T,), float("-inf"), tl.float32)
    for start in range(0, frames, BLOCK_T):
        t = start + tl.arange(0, BLOCK_T)
        first = t - SMOOTHING // 2
        near = first[:, None] + tl.arange(0, NEAR)[None, :]
        inside = (near >= 0) & (near < tl.minimum(first + SMOOTHING, frames)[:, None])
        values = tl.load(logits + window * stride_b + near.to(tl.int64) * stride_t, mask=inside, other=0.0)
        count = tl.minimum(first + SMOOTHING, frames) - tl.maximum(first, 0)
        score = tl.sum(values, 1) / tl.maximum(count, 1).to(tl.float32)
        tl.store(scores + window * frames + t, score, mask=t < frames)
        if KIND == "frame":
            tl.store(
                strength + window * frames + t, alpha * _openness(score, shut_from, ramp), mask=t < frames
            )
        # a maximum that keeps NaN, as PyTorch's does
        highest = tl.where((t < frames) & ((score > highest) | (score != score)), score, highest)
    if KIND == "window":
        top = tl.max(highest, 0)
        is_nan = tl.sum((highest != highest).to(tl.int32), 0) != 0
        top = tl.where(is_nan, float("nan"), top)
        tl.store(strength + window, alpha * _openness(top, shut_from, ramp))
    if KIND == "none":
        tl.store(strength + window, alpha)


@triton.jit
def _openness(score, shut_from, ramp):
    share = (shut_from - score) / ramp
    return tl.where(share < 0, 0.0, tl.where(share > 1, 1.0, share))  # NaN stays


@triton.jit
def _strength(strength, window, t, frames, stride_sb, stride_st):
    at = strength + window.to(tl.int64) * stride_sb + t.to(tl.int64) * stride_st
    return tl.load(at, mask=t < frames, other=0.0)


@triton.jit
def _steer_selected(h, rows, bias, threshold, directions, strength, frames,
                    stride_b, stride_t, stride_d, stride_rf, stride_rd, stride_df, stride_dd,
                    stride_sb, stride_st,
                    D: tl.constexpr, F: tl.constexpr, PRECISION: tl.constexpr,
                    BLOCK_T: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    blocks = tl.cdiv(frames, BLOCK_T)
    window = tl.program_id(0) // blocks
    t = tl.program_id(0) % blocks * BLOCK_T + tl.arange(0, BLOCK_T)
    by = _strength(strength, window, t, frames, stride_sb, stride_st)
    opened = tl.abs(by) > 0  # NaN isn't
    if tl.max(opened.to(tl.int32), 0) == 0:
        return
    tile = _tile(h, window, t, stride_b, stride_t)
    f = tl.arange(0, BLOCK_F)
    pre = _preactivations(tile, t < frames, rows, bias, f, stride_d, stride_rf, stride_rd,
                          D, F, BLOCK_T, BLOCK_F, BLOCK_D, PRECISION)  # fmt: skip
    acts = _jumprelu(pre, threshold, f, F).to(h.dtype.element_ty)
    for start in range(0, D, BLOCK_D):  # the tile's second reading comes from L2
        k = start + tl.arange(0, BLOCK_D)
        write = tl.load(directions + f[:, None] * stride_df + k[None, :] * stride_dd,
                        mask=(f < F)[:, None] & (k < D)[None, :], other=0.0)  # fmt: skip
        change = tl.dot(acts, write, input_precision=PRECISION) * by[:, None]
        inside = opened[:, None] & (k < D)[None, :]
        x = tl.load(tile + k[None, :] * stride_d, mask=inside, other=0.0)
        edited = (x.to(tl.float32) + change).to(h.dtype.element_ty)
        tl.store(tile + k[None, :] * stride_d, edited, mask=inside)


@triton.jit
def _steer_static(h, vector, strength, frames, stride_b, stride_t, stride_d, stride_v, stride_sb, stride_st,
                  D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    blocks = tl.cdiv(frames, BLOCK_T)
    window = tl.program_id(0) // blocks
    t = tl.program_id(0) % blocks * BLOCK_T + tl.arange(0, BLOCK_T)
    by = _strength(strength, window, t, frames, stride_sb, stride_st)
    opened = tl.abs(by) > 0  # NaN isn't
    if tl.max(opened.to(tl.int32), 0) == 0:
        return
    k = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    at = _tile(h, window, t, stride_b, stride_t) + k[None, :] * stride_d
    inside = opened[:, None] & (k < D)[None, :]
    x = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(vector + k * stride_v, mask=k < D, other=0.0).to(tl.float32)
    tl.store(at, (x + by[:, None] * v[None, :]).to(h.dtype.element_ty), mask=inside)
