"""Options of training, and what changes with the step."""

import math
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError

ArchitectureName = Literal["topk", "batchtopk", "jumprelu", "matryoshka"]


@dataclass(frozen=True)
class TrainConfig:
    """Options of :func:`.trainer.train`; the same for every tap and seed of a run."""

    architecture: ArchitectureName = "batchtopk"
    """rule that picks features; all are saved as jumprelu, with the threshold met in training"""
    d_sae: int | None = None
    """number of features; expansion times the tap's width if None"""
    expansion: int = 8
    """features for each dimension of the activation"""
    k: int = 50
    """active features a frame: exactly (topk), on average over a batch, or as target (jumprelu)"""
    steps: int = 4000
    """optimiser steps, at most"""
    max_fvu: float | None = None
    """fraction of variance unexplained, on the recordings held back, that is good enough: from there on only
    the learning rate's fall is left; None: all the steps"""
    batch_size: int = 2048
    """frames a step, over all processes"""
    lr: float = 2e-4
    """Adam's learning rate"""
    warmup_share: float = 0.0
    """first share of the steps over which the learning rate rises linearly"""
    decay_share: float = 0.2
    """last share of the steps over which it falls linearly to zero"""
    k_start: int | None = None
    """features a frame at the first step, if not k: it then falls linearly to k"""
    sparsity_share: float = 0.25
    """first share of the steps over which k falls, or jumprelu's sparsity loss comes in"""
    sparsity_coefficient: float = 1.0
    """jumprelu: weight of its sparsity loss against the share of variance unexplained"""
    bandwidth: float = 0.5
    """jumprelu: width of the kernel that thresholds learn by, in units of the first threshold"""
    prefixes: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
    """matryoshka: shares of the features that reconstruct on their own"""
    aux_coefficient: float = 1 / 32
    """weight of the loss that revives dead features"""
    dead_after: int = 200_000
    """a feature is dead when it has not fired for this many frames"""
    seed: int = 0
    """of the order of the frames"""
    buffer_frames: int = 2**18
    """frames shuffled together; twice as many are in memory, at each tap"""
    bf16: bool = False
    """multiply in bfloat16 (autocast); parameters and sums stay float32"""
    compile: bool = False
    """jumprelu: compile its dense loss with torch.compile"""
    checkpoint_every: int = 250
    """steps"""

    def __post_init__(self):
        counts = ("expansion", "k", "steps", "batch_size", "checkpoint_every", "buffer_frames")
        for name in counts:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"lr must be above 0 and finite, not {self.lr}")
        if not 0 <= self.decay_share < 1:
            raise ConfigError(f"decay_share must be at least 0 and below 1, not {self.decay_share}")
        if not self.prefixes or any(not 0 < share <= 1 for share in self.prefixes) or self.prefixes[-1] != 1:
            raise ConfigError(f"prefixes must be shares that rise to 1, not {self.prefixes}")

    def features(self, width: int) -> int:
        """Number of features for activations of this width; ConfigError if k are not to be had."""
        features = self.d_sae or self.expansion * width
        if features < self.k:
            raise ConfigError(f"{features} features are fewer than k = {self.k}")
        return features

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of a step when there will be so many: a trapezoid."""
        rising = (step + 1) / max(1.0, self.warmup_share * self.steps)
        falling = (steps - step) / max(1.0, self.decay_share * steps)
        return self.lr * min(1.0, rising, falling)

    def steps_if_falling_from(self, step: int) -> int:
        """How many steps there will be when the learning rate begins to fall at this one."""
        return min(self.steps, round(step / (1 - self.decay_share)))

    def sparsity_at(self, step: int) -> float:
        """How far sparsity has been tightened, 0…1."""
        return min(1.0, (step + 1) / max(1.0, self.sparsity_share * self.steps))

    def k_at(self, step: int) -> int:
        """Features a frame in a step."""
        if self.k_start is None:
            return self.k
        return round(self.k_start + (self.k - self.k_start) * self.sparsity_at(step))
