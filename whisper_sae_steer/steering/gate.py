"""The gate: how sure the selected features are that nobody speaks, and how far the edit opens."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .pack import Features, PackMetadata


def activations(features: Features, h: Tensor) -> Tensor:
    """JumpReLU features of frames: [..., d] → [..., F]."""
    pre = F.linear(h, features.rows, features.bias)
    return pre * (pre > features.threshold)


def smooth(scores: Tensor, frames: int) -> Tensor:
    """Centred moving average over time, [B, T] → [B, T]; at the ends over the frames there are."""
    if frames <= 1:
        return scores
    return F.avg_pool1d(scores[:, None], frames, stride=1, padding=frames // 2, count_include_pad=False)[
        :, 0, : scores.shape[1]
    ]


def openness(scores: Tensor, metadata: PackMetadata) -> Tensor:
    """Share of the edit each frame gets, from smoothed speech scores [B, T]: [B, 1 or T, 1] in 0…1.

    Exactly 0 from the threshold on, so that speech passes bit for bit; 1 a ramp's width below it.
    ``window`` looks at the highest score of the window: what deletes words is an edit anywhere near
    speech, also in its pauses and padding.
    """
    if metadata.gate == "none":
        return torch.ones_like(scores[:, :1, None])
    if metadata.gate == "window":
        scores = scores.amax(dim=1, keepdim=True)
    return ((metadata.gate_threshold - scores) / metadata.gate_ramp).clamp(0, 1)[..., None]
