"""The gate's arithmetic in PyTorch: from speech scores to the share of the edit."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

GateKind = Literal["window", "frame", "none"]
"""whether a window's highest score decides for all of it, each frame for itself, or everything is edited"""


def smooth(scores: Tensor, frames: int) -> Tensor:
    """Centred moving average over time, [B, T] → [B, T]; at the ends over the frames there are."""
    if frames <= 1:
        return scores
    return F.avg_pool1d(scores[:, None], frames, stride=1, padding=frames // 2, count_include_pad=False)[
        :, 0, : scores.shape[1]
    ]


def openness(scores: Tensor, kind: GateKind, threshold: float, ramp: float) -> Tensor:
    """Share of the edit each frame gets, from smoothed speech scores [B, T]: [B, 1 or T] in 0…1.

    Exactly 0 from the threshold on, so that speech passes bit for bit; 1 a ramp's width below it.
    ``window`` looks at the highest score of the window: what deletes words is an edit anywhere near
    speech, also in its pauses and padding.
    """
    if kind == "none":
        return scores.new_ones(len(scores), 1)
    if kind == "window":
        scores = scores.amax(dim=1, keepdim=True)
    return ((threshold - scores) / ramp).clamp(0, 1)
