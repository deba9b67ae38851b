"""One of the SAEs that are trained together: its name, its model with the optimiser, its curves."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from .architectures import ARCHITECTURES, Losses, TrainingSAE
from .config import TrainConfig
from .logs import HistoryPoint


class Member(NamedTuple):
    """One of the SAEs that are trained together."""

    tap: str
    seed: int
    setting: str = ""
    """name of its options, where they differ from others'"""

    @property
    def name(self) -> str:
        name = f"{self.tap}-seed{self.seed}"
        return f"{self.setting}-{name}" if self.setting else name


class Progress(NamedTuple):
    """How far a training is."""

    step: int
    """steps done"""
    steps: int
    """how many there will be: those of the options, or fewer once the SAEs are good enough"""

    def of(self, config: TrainConfig) -> "Progress":
        """That of an SAE with these options, which may take fewer steps than others beside it."""
        return self._replace(steps=min(self.steps, config.steps))


class Trainee:
    """One SAE with its optimiser and curves, at its start."""

    def __init__(self, d_in: int, config: TrainConfig, device: torch.device):
        self.config = config
        self.model: TrainingSAE = ARCHITECTURES[config.architecture](d_in, config).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.lr, fused=True)
        self.history: list[HistoryPoint] = []
        self._parallel: DistributedDataParallel | None = None

    def step(self, frames: Tensor, step: int, steps: int | None = None) -> Losses:
        """One optimiser step of ``steps``, or the options', on this process's share of a batch, [N, d]."""
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=self.config.bf16):
            losses: Losses = self._forward(frames, step)
        self.optimizer.zero_grad()
        losses.total.backward()
        self.model.before_step()
        self.optimizer.param_groups[0]["lr"] = self.config.lr_at(step, steps or self.config.steps)
        self.optimizer.step()
        self.model.after_step(self.config.batch_size)
        return losses

    def _forward(self, frames: Tensor, step: int) -> Any:
        if not distributed.is_initialized():
            return self.model(frames, step)
        if self._parallel is None:  # only now: it spreads the first process's parameters
            self._parallel = DistributedDataParallel(self.model)
        return self._parallel(frames, step)

    def add_point(self, losses: Losses, progress: Progress) -> HistoryPoint:
        """Add a point to the curves."""
        done = progress.step
        dead = int((self.model.since_fired > self.config.dead_after).sum())
        point = HistoryPoint(
            done, done * self.config.batch_size, float(losses.fvu), float(losses.l0), dead,
            self.config.lr_at(done - 1, progress.steps), float(self.model.thresholds().detach().mean()),
            float(losses.aux),
        )  # fmt: skip
        self.history.append(point)
        return point

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": [list(point) for point in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = [HistoryPoint(*point) for point in state["history"]]
