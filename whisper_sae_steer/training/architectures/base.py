"""What the architectures share: parameters, reconstruction loss, AuxK, dead features, unit norms.

Frames are scaled to a mean norm of √d, so that learning rate and thresholds mean the same at every tap;
the result has the scale folded in. Losses are shares of the variance of the first frames seen, a constant,
so that the mean of several processes' losses is the loss of their batches together.
"""

from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn

from ...kernels import sparse_autoencode
from ...kernels.topk_reference import Selection, topk_rows
from ...sae.autoencoder import SAE, SAEConfig
from ..config import TrainConfig

THRESHOLD_RATE = 0.01
"""of the running mean of the smallest activation kept"""
GRADIENT_NORM = 1e-3
"""of all parameters together; nearly always reached, as dictionary_learning's 1 is for summed squared errors:
the first steps' gradients are so large that Adam's second moments would slow the next thousand"""


class Losses(NamedTuple):
    """What a step makes small, and what tells how it goes; all scalars."""

    total: Tensor
    fvu: Tensor
    """share of the variance that is not explained"""
    l0: Tensor
    """active features a frame"""
    aux: Tensor
    """share of the residual that the dead features leave unexplained; 0 if none is dead"""


class TrainingSAE(nn.Module):
    """An SAE with what training needs; subclasses say which features fire."""

    scale: Tensor
    variance: Tensor
    threshold: Tensor
    since_fired: Tensor
    """[d_sae] frames since a feature last fired"""

    def __init__(self, d_in: int, config: TrainConfig):
        super().__init__()
        self.options = config
        features = config.features(d_in)
        self.w_enc = nn.Parameter(torch.zeros(features, d_in))
        self.b_enc = nn.Parameter(torch.zeros(features))
        self.w_dec = nn.Parameter(torch.zeros(features, d_in))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("since_fired", torch.zeros(features, dtype=torch.int64))
        self._fired: Tensor | None = None
        self._smallest: Tensor | None = None

    @torch.no_grad()
    def initialise(self, sample: Tensor, generator: torch.Generator) -> None:
        """Random unit decoder rows, the encoder their transpose, b_dec the sample's geometric median."""
        x = sample.float()
        self.scale.fill_(x.shape[1] ** 0.5 / x.norm(dim=-1).mean())
        x = x * self.scale
        rows = torch.randn(self.w_dec.shape, generator=generator)
        self.w_dec.copy_(rows / rows.norm(dim=-1, keepdim=True))
        self.w_enc.copy_(self.w_dec)
        self.b_dec.copy_(geometric_median(x))
        self.variance.fill_((x - x.mean(0)).square().sum(-1).mean())

    def forward(self, frames: Tensor, step: int) -> Losses:
        """Losses of raw frames [N, d] in a step."""
        x = frames.float() * self.scale
        selection = self.select(x - self.b_dec, self.options.k_at(step))
        self.observe(selection)
        reconstructions = self.reconstruct(x, selection)
        errors = [x - one for one in reconstructions]
        losses = torch.stack([error.square().sum(-1).mean() for error in errors]) / self.variance
        aux = self.aux_loss(x, errors[-1].detach())
        total = losses.mean() + self.options.aux_coefficient * aux
        l0 = x.new_tensor(len(selection.values) / len(x))
        return Losses(total, losses[-1].detach(), l0, aux.detach())

    def select(self, centred: Tensor, k: int) -> Selection:
        """The activations that fire: centred frames [N, d] → entries."""
        raise NotImplementedError

    def reconstruct(self, x: Tensor, selection: Selection) -> list[Tensor]:
        """Reconstructions [N, d] that the loss averages over; the last is the full one."""
        return [sparse_autoencode(x, self.w_enc, self.b_enc, self.w_dec, self.b_dec, selection)]

    def aux_loss(self, x: Tensor, error: Tensor) -> Tensor:
        """AuxK (Gao et al., arXiv 2406.04093): how much of the residual the dead features leave."""
        dead = (self.since_fired > self.options.dead_after).nonzero()[:, 0]
        if not len(dead):
            return x.new_zeros(())
        with torch.no_grad():
            pre = torch.addmm(self.b_enc[dead], x - self.b_dec, self.w_enc[dead].T).float()
            chosen = topk_rows(pre, min(x.shape[1] // 2, len(dead))).selection()
            chosen = chosen._replace(cols=dead[chosen.cols])
        guess = sparse_autoencode(x, self.w_enc, self.b_enc, self.w_dec, self.b_dec, chosen)
        return (error - (guess - self.b_dec)).square().sum() / error.square().sum()

    @torch.no_grad()
    def observe(self, selection: Selection) -> None:
        """Remember who fired, and the smallest activation, until :meth:`after_step`."""
        self._fired = torch.zeros_like(self.since_fired, dtype=torch.bool)
        self._fired[selection.cols] = True
        if len(selection.values):
            self._smallest = selection.values.min().float()

    @torch.no_grad()
    def before_step(self) -> None:
        """Take from the decoder's gradient what would only change the rows' norms; clip all gradients."""
        assert self.w_dec.grad is not None
        parallel = (self.w_dec.grad * self.w_dec).sum(-1, keepdim=True)
        self.w_dec.grad.addcmul_(parallel, self.w_dec, value=-1)
        nn.utils.clip_grad_norm_(self.parameters(), GRADIENT_NORM)

    @torch.no_grad()
    def after_step(self, frames: int) -> None:
        """Unit decoder rows again; count dead features and follow the threshold, for all processes."""
        self.w_dec /= self.w_dec.norm(dim=-1, keepdim=True)
        assert self._fired is not None
        smallest = self.threshold.clone() if self._smallest is None else self._smallest
        if distributed.is_initialized():
            fired = self._fired.to(torch.uint8)
            distributed.all_reduce(fired, distributed.ReduceOp.MAX)
            distributed.all_reduce(smallest, distributed.ReduceOp.SUM)
            self._fired, smallest = fired.bool(), smallest / distributed.get_world_size()
        self.since_fired.add_(frames).masked_fill_(self._fired, 0)
        rate = torch.where(self.threshold > 0, THRESHOLD_RATE, 1.0)
        self.threshold += rate * (smallest - self.threshold)
        self._fired = self._smallest = None

    def thresholds(self) -> Tensor:
        """Inference thresholds [d_sae] of scaled activations."""
        return self.threshold.expand(len(self.b_enc))

    @torch.no_grad()
    def finished(self, config: SAEConfig, sample: Tensor) -> SAE:
        """The trained SAE as a JumpReLU over raw frames such as ``sample`` [N, d], float32, on the CPU."""
        sae = SAE(config)
        sae.W_enc.copy_(self.w_enc.T)
        sae.b_enc.copy_(self.b_enc)
        sae.W_dec.copy_(self.w_dec)
        sae.b_dec.copy_(self.b_dec)
        sae.threshold.copy_(self.thresholds())
        sae.fold_input_scale(float(self.scale))
        return sae


def geometric_median(x: Tensor, iterations: int = 20) -> Tensor:
    """Weiszfeld's algorithm over rows."""
    median = x.mean(0)
    for _ in range(iterations):
        weight = 1 / (x - median).norm(dim=-1, keepdim=True).clamp_min(1e-6)
        median = (weight * x).sum(0) / weight.sum()
    return median
