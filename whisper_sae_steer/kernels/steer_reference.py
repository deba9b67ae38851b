"""The steering step in PyTorch, for CPUs and as the meaning of the Triton kernels in ``steer.py``.

A window is worked on at a time, in buffers that stay in the cache: on two cores a step costs little more
than its one thin matrix product.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .gate import GateKind, openness, smooth


class GateReading(NamedTuple):
    """What the gate says of a batch of windows."""

    scores: Tensor
    """[B, T] float32, smoothed speech logits"""
    strength: Tensor
    """[B, 1 or T] float32, α times the gate's openness; 0 or NaN leaves frames as they are"""


def feature_scores(
    h: Tensor, rows: Tensor, bias: Tensor, threshold: Tensor, weight: Tensor, gate_bias: Tensor
) -> Tensor:
    """Speech logits of frames, before smoothing: [B, T, d] → [B, T] float32.

    ``JumpReLU(h @ rows.T + bias) @ weight + gate_bias`` with rows [F, d], bias, threshold and weight
    [F] and gate_bias [], in h's dtype and device; JumpReLU(x) is ``x * (x > threshold)``, so a NaN stays.
    """
    logits = h.new_empty(h.shape[:2])
    pre = h.new_empty(h.shape[1], len(rows))
    fires = torch.empty_like(pre)
    for window, out in zip(h, logits, strict=True):
        torch.mv(_activations(window, rows, bias, threshold, pre, fires), weight, out=out)
    return logits.add_(gate_bias).float()


def gate_strength(
    logits: Tensor, kind: GateKind, smoothing: int, threshold: float, ramp: float, alpha: float
) -> GateReading:
    """Average the logits [B, T] over ``smoothing`` frames and say how strongly to edit: ``openness``."""
    if not logits.numel():
        return GateReading(logits, logits if kind == "frame" else logits[:, :1])
    scores = smooth(logits, smoothing)
    return GateReading(scores, alpha * openness(scores, kind, threshold, ramp))


def steer_selected(
    h: Tensor, rows: Tensor, bias: Tensor, threshold: Tensor, directions: Tensor, strength: Tensor
) -> Tensor:
    """Add ``strength * JumpReLU(h @ rows.T + bias) @ directions`` to h [B, T, d], in place.

    rows and directions [F, d], bias and threshold [F]; strength [B, 1 or T], float32. Frames whose
    strength is 0 or NaN keep every bit, and windows of such frames are neither computed nor written.
    """

    def edit(frames: Tensor, by: Tensor) -> None:
        # a 0 ends odd rows: PyTorch's bfloat16 product on CPUs with AMX takes in what comes next, times 0
        pre = frames.new_zeros(len(frames), len(rows) + len(rows) % 2)[:, : len(rows)]
        acts = _activations(frames, rows, bias, threshold, pre, torch.empty_like(pre))
        frames.addmm_(acts.mul_(by), directions)

    return _edit_open_frames(h, strength, edit)


def steer_static(h: Tensor, vector: Tensor, strength: Tensor) -> Tensor:
    """Add ``strength * vector`` to h [B, T, d], in place; see :func:`steer_selected`. vector [d]."""

    def edit(frames: Tensor, by: Tensor) -> None:
        frames.addcmul_(by, vector)

    return _edit_open_frames(h, strength, edit)


def _activations(
    frames: Tensor, rows: Tensor, bias: Tensor, threshold: Tensor, pre: Tensor, fires: Tensor
) -> Tensor:
    """Features of frames [T, d] in ``pre`` [T, F]; ``fires`` is scratch of its shape.

    The mask is in floats: PyTorch multiplies those an order of magnitude faster than bools.
    """
    torch.addmm(bias, frames, rows.T, out=pre)
    return pre.mul_(torch.gt(pre, threshold, out=fires))


def _edit_open_frames(h: Tensor, strength: Tensor, edit: Callable[[Tensor, Tensor], None]) -> Tensor:
    """``edit(frames [N, d], strength [1 or N, 1])`` in place, window by window, where strength isn't 0."""
    opened = strength.abs() > 0  # NaN isn't
    whole, strength = opened.all(1).tolist(), strength.to(h.dtype)[..., None]
    for i in opened.any(1).nonzero()[:, 0].tolist():
        if whole[i]:
            edit(h[i], strength[i])
        else:  # adding 0 would turn -0 into 0
            frames = h[i][opened[i]]
            edit(frames, strength[i][opened[i]])
            h[i][opened[i]] = frames
    return h
