"""Steering outside of calls: what an attached model does until it is told otherwise."""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .calls import Call, Steerer, current
from .pack import SteeringPack


class Stats(NamedTuple):
    """What an attached model has done so far."""

    windows: int
    """windows of 30 s that were encoded at an α other than 0"""
    steered: int
    """those whose frames were edited"""


class StandingSteerer(Steerer):
    """A steerer that steers every encode, with state of its own in each thread.

    ``asks_decoder`` if windows in doubt can wait for what the decoder says, see ``doubt.py``.
    """

    def __init__(self, pack: SteeringPack, alpha: float, asks_decoder: bool):
        super().__init__(pack)
        self.alpha = alpha
        self._asks_decoder = asks_decoder
        self._here, self._lock = threading.local(), threading.Lock()
        self._windows = 0
        self._steered: dict[torch.device, Tensor] = {}
        """a count on each device: bringing one over would wait for it"""

    def __getstate__(self) -> dict[str, Any]:
        return {"pack": self.pack, "alpha": self.alpha, "asks_decoder": self._asks_decoder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def standing(self) -> Call | None:
        if self.alpha == 0:
            return None
        call: Call | None = getattr(self._here, "call", None)
        if call is None or call.alpha != self.alpha:
            call = self._here.call = Call(self.alpha, asks_decoder=self._asks_decoder)
        return call

    def __call__(self, h: Tensor) -> None:
        super().__call__(h)
        call = current(self)
        if call is not None and call.strength is not None:
            self._count(len(call.strength), call.strength)

    def steer_in_full(self, call: Call, rows: Sequence[int], h: Tensor) -> Tensor:
        h = super().steer_in_full(call, rows, h)
        assert call.strength is not None
        self._count(0, call.strength[list(rows)])
        return h

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
