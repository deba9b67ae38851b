"""The operator: edit encoder frames in place, h += δ (α, features, gate), in delta form.

Strategies and their sources: ``suppress`` h − α Σ a_f(h) d_f (feature suppression); ``additive``
h − α Σ sign(β_f) ā_f d_f (arXiv 2602.05027 with ā = 1; arXiv 2606.07473 with mean activations);
``direction`` h + α v for one static v, here a signed sum of SAE decoder directions or a dense
baseline. What the SAE fails to reconstruct stays in, because only the change is added.
"""

import math

import torch
from torch import Tensor

from ..errors import AlphaError, PackError
from ..kernels import GateReading, feature_scores, gate_strength, smooth, steer_selected, steer_static
from .doubt import InDoubt, in_doubt
from .pack import Features, SteeringPack

MAX_ALPHA = 100.0
"""far beyond any use, and far from overflow"""


class Operator:
    """A pack made ready for frames of one device and dtype."""

    def __init__(
        self,
        pack: SteeringPack,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        def place(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype)

        def place_features(features: Features) -> Features:
            return Features(features.ids, *(place(t) for t in features[1:]))

        self.metadata = pack.metadata
        self.gate_features = place_features(pack.gate)
        self.gate_weight, self.gate_bias = place(pack.gate_weight), place(pack.gate_bias)
        self.steer_features = place_features(pack.steer)
        weighted = pack.coefficients[:, None] * pack.directions * pack.metadata.alpha_unit
        self.directions = place(weighted)
        self.vector = place(weighted.sum(0))

    def scores(self, h: Tensor) -> Tensor:
        """Smoothed speech logits of frames, [B, T, d] → [B, T] float32."""
        return smooth(self._logits(h), self.metadata.gate_smoothing)

    @torch.no_grad()
    def apply_(self, h: Tensor, alpha: float, when_in_doubt: InDoubt = "ramp") -> GateReading:
        """Edit frames ``h`` [B, T, d] in place; returns the gate's scores and how strongly it opened.

        Windows in doubt (see :func:`.doubt.in_doubt`) get what the gate's ramp gives them, none of the edit
        ("ask") or all of it ("edit"). Windows whose gate is shut are not written to at all.
        Nothing waits for a GPU, so the step can be captured in a CUDA graph.
        """
        if h.shape[-1] != self.metadata.d_in:
            raise PackError(f"the pack edits activations of width {self.metadata.d_in}, not {h.shape[-1]}")
        levels = self.metadata.levels
        scores, strength = gate_strength(
            self._logits(h), self.metadata.gate, self.metadata.gate_smoothing, levels.threshold, levels.ramp,
            alpha,
        )  # fmt: skip
        if when_in_doubt != "ramp" and scores.numel():
            doubtful = in_doubt(scores, self.metadata)[:, None]
            strength = strength.masked_fill(doubtful, alpha if when_in_doubt == "edit" else 0.0)
        if self.metadata.strategy == "suppress":
            steer_selected(h, *self.steer_features[1:], self.directions, strength)
        else:
            steer_static(h, self.vector, strength)
        return GateReading(scores, strength)

    def _logits(self, h: Tensor) -> Tensor:
        return feature_scores(h, *self.gate_features[1:], self.gate_weight, self.gate_bias)


def check_alpha(alpha: float) -> float:
    """``alpha`` as a float; AlphaError unless it is a number from 0 to MAX_ALPHA.

    Below 0 the edit would push noise towards text; code that studies that gives :class:`Operator` such an α.
    """
    try:
        value = float(alpha)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        value = math.nan
    if not 0 <= value <= MAX_ALPHA:
        raise AlphaError(f"steer_alpha must be a number from 0 to {MAX_ALPHA:g}, not {alpha!r}")
    return value
