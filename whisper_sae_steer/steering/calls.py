"""α belongs to one call of transcribe, not to the model: a call's options, and which call a thread is in.

A context variable holds each model's current call, so threads and interleaved lazy generators on one model
each steer with their own α, and two models in one thread don't meet. Outside a call nothing is steered,
unless the model is attached (``attached.py``).
"""

import inspect
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from .batch import SteeredBatch
from .cuts import EXCERPT_GAP_FRAMES, MIN_GAP_FRAMES
from .doubt import InDoubt

T = TypeVar("T")
Method = TypeVar("Method", bound=Callable[..., Any])

EXPLORED_WINDOWS = 8
"""windows kept that were encoded to read the language; one of large-v3 takes 8 MB"""


@dataclass(frozen=True)
class CallOptions:
    """How one call steers. It never changes."""

    alpha: float
    """1 is the calibrated strength, 0 the plain library"""
    steer_language_detection: bool = False
    """read the language from the steered window, not from the window as it is"""
    skip_gaps: bool = False
    """cut windows at long gaps"""
    in_doubt: InDoubt = "ramp"
    scores_only: bool = False
    """edit nothing, but say where people speak"""

    @property
    def sees_windows(self) -> bool:
        """Whether encoded windows are looked at at all."""
        return self.alpha != 0 or self.scores_only


@dataclass(frozen=True, eq=False)
class Call:
    """One call: its options, and a box where each encode of its thread leaves its result."""

    options: CallOptions
    results: deque[SteeredBatch] = field(default_factory=lambda: deque(maxlen=1))
    """of the last encodes, the newest last; a hook inside the encoder has no other way to return them"""
    explored: dict[bytes, Any] = field(default_factory=dict[bytes, Any])
    """encoder output of windows that the language was read from, unedited, by their mel: transcribing takes
    it from here instead of encoding the same mel again"""
    in_excerpt: bool = False
    """whether the audio is an excerpt of the recording (``speech_map.py``)"""
    parts_apart: bool = False
    """whether a window's passages of an excerpt are decoded one by one"""

    @property
    def shortest_gap(self) -> int:
        """Frames without speech that a window is cut at."""
        return EXCERPT_GAP_FRAMES if self.in_excerpt and not self.parts_apart else MIN_GAP_FRAMES

    @property
    def last(self) -> SteeredBatch:
        """Result of the last encode."""
        return self.results[-1]

    def leads_past_gap(self) -> bool:
        """Whether the next window begins behind a gap that the last one was cut at."""
        return bool(self.results) and self.last.cut is not None


class Steers(Protocol):
    """What calls are told apart by: the steerer of a model (``steerer.py``)."""

    def standing_call(self) -> Call | None:
        """The call of a thread that is in none."""
        ...


_calls: ContextVar[Mapping[Steers | None, Call | None]] = ContextVar("steering_calls")


def current(steerer: Steers | None) -> Call | None:
    """The call that this thread is in on the steerer's model, if any."""
    calls = _calls.get({})
    return calls[steerer] if steerer in calls else steerer.standing_call() if steerer else None


@contextmanager
def active(steerer: Steers | None, call: Call | None) -> Generator[Call | None]:
    """Steer every encode inside the block as ``call`` says; None for not at all."""
    token = _calls.set({**_calls.get({}), steerer: call})
    try:
        yield call
    finally:
        _calls.reset(token)


def within(steerer: Steers | None, call: Call | None, items: Iterator[T]) -> Generator[T, None, None]:
    """Draw from a lazy iterator with ``call`` active only while it works."""
    while True:
        with active(steerer, call):
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


def shows_options_of(plain: Callable[..., Any]) -> Callable[[Method], Method]:
    """Let ``help()`` and editors show a wrapper's arguments: ``plain``'s, then its own keyword-only ones."""

    def decorate(method: Method) -> Method:
        own = inspect.signature(method).parameters.values()
        added = [p for p in own if p.kind is p.KEYWORD_ONLY]
        _, *options = inspect.signature(plain).parameters.values()
        rest = [p for p in options if p.kind is p.VAR_KEYWORD]
        shown = [next(iter(own)), *(p for p in options if p not in rest), *added, *rest]
        method.__dict__["__signature__"] = inspect.signature(method).replace(parameters=shown)
        return method

    return decorate
