"""α belongs to one call of transcribe, not to the model: the state of a call, and who is calling now.

A context variable holds the current call, so threads and interleaved lazy generators on one model each
steer with their own α. Outside a call nothing is steered.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch import Tensor

from .pack import SteeringPack
from .steering import Labels, Steering

T = TypeVar("T")


class Call:
    """One call of transcribe: its options, and what the gate saw in the last encoded windows."""

    def __init__(self, alpha: float, steer_language_detection: bool = True):
        self.alpha = alpha
        self.steer_language_detection = steer_language_detection
        self.scores: Tensor | None = None
        """[B, T] smoothed speech scores of the last encode"""


_current: ContextVar[Call | None] = ContextVar("steering_call", default=None)


def current() -> Call | None:
    """The call that this thread is in, if any."""
    return _current.get()


@contextmanager
def active(call: Call | None) -> Generator[Call | None]:
    """Steer every encode inside the block as ``call`` says; None for not at all."""
    token = _current.set(call)
    try:
        yield call
    finally:
        _current.reset(token)


def within(call: Call, items: Iterator[T]) -> Generator[T, None, None]:
    """Draw from a lazy iterator with ``call`` active only while it works."""
    while True:
        with active(call):
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


class Steerer:
    """Applies one pack to a model's encoder output on whatever device and dtype it comes in."""

    def __init__(self, pack: SteeringPack):
        self.pack = pack
        self._placed: dict[tuple[torch.device, torch.dtype], Steering] = {}

    def __call__(self, h: Tensor) -> None:
        """Edit ``h`` [B, 1500, d] in place if a call is active, and leave the scores with the call."""
        call = _current.get()
        if call is None or call.alpha == 0:
            return
        key = (h.device, h.dtype)
        if key not in self._placed:
            self._placed[key] = Steering(self.pack, h.device, h.dtype)
        call.scores = self._placed[key].apply_(h, call.alpha)

    def labels(self, scores: Tensor, start: float, end: float) -> Labels:
        """See :meth:`Steering.labels`."""
        return next(iter(self._placed.values())).labels(scores, start, end)
