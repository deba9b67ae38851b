"""JumpReLU: each feature fires above a threshold it learns (Rajamanoharan et al., arXiv 2407.14435).

The thresholds' gradients are estimated through a rectangle kernel around them. The sparsity loss is the
squared relative distance of L0 from k (ibid., appendix: target L0), so k means the same as elsewhere.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ...kernels.topk_reference import Selection
from ..config import TrainConfig
from .base import Losses, TrainingSAE

FIRST_L0 = 4
"""thresholds start where this many times k features fire"""


class JumpReLUSAE(TrainingSAE):
    """Learned thresholds, [d_sae], as exponentials so that they stay positive."""

    bandwidth: Tensor

    def __init__(self, d_in: int, config: TrainConfig):
        super().__init__(d_in, config)
        self.log_threshold = nn.Parameter(torch.zeros(len(self.b_enc)))
        self.register_buffer("bandwidth", torch.ones(()))
        self._dense = torch.compile(dense_losses) if config.compile else dense_losses

    @torch.no_grad()
    def initialise(self, sample: Tensor, generator: torch.Generator) -> None:
        super().initialise(sample, generator)
        x = sample[:4096].float() * self.scale
        acts = F.linear(x - self.b_dec, self.w_enc).relu().flatten()
        keep = min(FIRST_L0 * self.options.k * len(x), acts.numel())
        first = acts.topk(keep).values[-1].clamp_min(1e-3)
        self.log_threshold.fill_(float(first.log()))
        self.bandwidth.fill_(self.options.bandwidth * first)

    def forward(self, frames: Tensor, step: int) -> Losses:
        x = frames.float() * self.scale
        parameters = (self.w_enc, self.b_enc, self.w_dec, self.b_dec, self.log_threshold)
        error, l0, fired = self._dense(x, *parameters, self.bandwidth)
        self._fired = fired
        fvu = error.square().sum(-1).mean() / self.variance
        sparsity = (l0 / self.options.k_at(step) - 1).square()
        aux = self.aux_loss(x, error.detach())
        coefficient = self.options.sparsity_coefficient * self.options.sparsity_at(step)
        total = fvu + coefficient * sparsity + self.options.aux_coefficient * aux
        return Losses(total, fvu.detach(), l0.detach(), aux.detach())

    def thresholds(self) -> Tensor:
        return self.log_threshold.exp()

    def observe(self, selection: Selection) -> None:
        raise NotImplementedError("a JumpReLU has no selection")


def dense_losses(
    x: Tensor, w_enc: Tensor, b_enc: Tensor, w_dec: Tensor, b_dec: Tensor, log_threshold: Tensor,
    bandwidth: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Error [N, d], L0 and which features fired [d_sae]."""
    pre = F.linear(x - b_dec, w_enc, b_enc).float()
    threshold = log_threshold.exp()
    acts: Tensor = _Jump.apply(pre.relu(), threshold, bandwidth)  # type: ignore[assignment]
    steps: Tensor = _Step.apply(pre, threshold, bandwidth)  # type: ignore[assignment]
    return x - (acts @ w_dec + b_dec), steps.sum(-1).mean(), (pre > threshold).any(0)


class _Jump(torch.autograd.Function):
    """z · H(z - θ), with eq. 11 of the paper for θ."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: Tensor) -> Tensor:
        ctx.save_for_backward(z, threshold, bandwidth)
        return z * (z > threshold)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        z, threshold, bandwidth = ctx.saved_tensors
        inside = (z - threshold).abs() < bandwidth / 2
        return grad * (z > threshold), -(threshold / bandwidth) * (grad * inside).sum(0), None


class _Step(torch.autograd.Function):
    """H(z - θ), with eq. 12 of the paper for θ."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: Tensor) -> Tensor:
        ctx.save_for_backward(z, threshold, bandwidth)
        return (z > threshold).to(z.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        z, threshold, bandwidth = ctx.saved_tensors
        inside = (z - threshold).abs() < bandwidth / 2
        return None, -(grad * inside).sum(0) / bandwidth, None
