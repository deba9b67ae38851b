"""The steerer of an attached model: it also steers outside of calls, and counts what it did."""

import threading
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .batch import SteeredBatch
from .calls import Call, CallOptions
from .doubt import InDoubt
from .pack import SteeringPack
from .steerer import Steerer


class Stats(NamedTuple):
    """What an attached model has done so far."""

    windows: int
    """windows of 30 s that were encoded at an α other than 0"""
    steered: int
    """those whose frames were edited"""


class AttachedSteerer(Steerer):
    """A steerer whose own options hold for every encode outside of a call, in any thread."""

    def __init__(self, pack: SteeringPack, alpha: float, in_doubt: InDoubt):
        super().__init__(pack)
        self.options = CallOptions(alpha, in_doubt=in_doubt)
        """frozen, but another α puts new ones in their place"""
        self._here, self._lock = threading.local(), threading.Lock()
        self._windows = 0
        self._steered: dict[torch.device, Tensor] = {}
        """a count on each device: bringing one over would wait for it"""

    def __getstate__(self) -> dict[str, Any]:
        return {"pack": self.pack, "alpha": self.options.alpha, "in_doubt": self.options.in_doubt}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def standing_call(self) -> Call | None:
        """A call of this thread's own, with the attached model's options; None at α = 0."""
        if self.options.alpha == 0:
            return None
        call: Call | None = getattr(self._here, "call", None)
        if call is None or call.options is not self.options:
            call = self._here.call = Call(self.options)
        return call

    def steer(self, h: Tensor, options: CallOptions) -> SteeredBatch:
        """See :meth:`Steerer.steer`; what is edited because the decoder refused it is no new window."""
        batch = super().steer(h, options)
        if not options.scores_only:
            self._count(0 if options.in_doubt == "edit" else len(batch.strength), batch.strength)
        return batch

    def _count(self, windows: int, strength: Tensor) -> None:
        """Nothing waits for a GPU here."""
        steered = (strength != 0).any(1).sum()
        with self._lock:
            self._windows += windows
            self._steered[steered.device] = self._steered.get(steered.device, 0) + steered

    def stats(self) -> Stats:
        """Windows so far; waits for what a GPU still has to do."""
        with self._lock:
            return Stats(self._windows, sum(int(count) for count in self._steered.values()))
