"""α belongs to one call of transcribe, not to the model: the state of a call, and who is calling now.

A context variable holds each model's current call, so threads and interleaved lazy generators on one
model each steer with their own α, and two models in one thread don't meet. Outside a call nothing is
steered.
"""

import inspect
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor

from .doubt import Answer, in_doubt
from .operator import Labels, Steering
from .pack import SteeringPack
from .seek import Plan

MAX_LISTENED = 8
"""windows kept; of large-v3 one takes 8 MB"""
T = TypeVar("T")
Method = TypeVar("Method", bound=Callable[..., Any])


class Call:
    """One call of transcribe: its options, and what the gate saw in the last encoded windows."""

    def __init__(
        self,
        alpha: float,
        steer_language_detection: bool = False,
        skip_gaps: bool = False,
        asks_decoder: bool = False,
    ):
        self.alpha = alpha
        self.steer_language_detection = steer_language_detection
        self.skip_gaps = skip_gaps
        self.share_in_doubt = 0.0 if asks_decoder else None
        """see :meth:`Steering.apply_`; a call that asks the decoder lets windows in doubt through at first"""
        self.scores: Tensor | None = None
        """[B, T] smoothed speech scores of the last encode"""
        self.strength: Tensor | None = None
        """[B, 1 or T] how strongly its frames were edited"""
        self.encoded: Any = None
        """the last encode's output, as the back end holds it"""
        self.asked = False
        """whether the decoder was asked about the windows in doubt among these"""
        self.decided: Any = None
        """the same after that: windows that nobody speaks in are steered"""
        self.plan: Plan | None = None
        """what to do with the window at hand, if it has a gap"""
        self.listened: dict[bytes, Any] = {}
        """windows encoded to read the language, unedited, by their mel; transcribing takes them from here"""

    def for_language(self) -> "Call | None":
        """The call to detect the language in: it leaves the windows of this one alone, and those in doubt."""
        if self.alpha == 0:
            return None
        return (
            Call(self.alpha, asks_decoder=True) if self.steer_language_detection else Listener(self.listened)
        )

    @contextmanager
    def steers_in_full(self) -> Generator[None]:
        """Inside the block windows in doubt are steered in full: the decoder was asked, and heard nobody."""
        asking, self.share_in_doubt = self.share_in_doubt, 1.0
        try:
            yield
        finally:
            self.share_in_doubt = asking


class Listener(Call):
    """A call that edits nothing and only hears where people speak."""

    def __init__(self, listened: dict[bytes, Any]):
        super().__init__(0.0)
        self.heard: list[Tensor] = []
        """smoothed speech scores [T] of every window encoded"""
        self.listened = listened

    def keep(self, mel: bytes, encoded: Any) -> None:
        """Leave a window for transcribing, unless there are many."""
        if len(self.listened) < MAX_LISTENED:
            self.listened[mel] = encoded


class Steerer:
    """Applies one pack to a model's encoder output on whatever device and dtype it comes in."""

    def __init__(self, pack: SteeringPack):
        self.pack = pack
        self._placed: dict[tuple[torch.device, torch.dtype], Steering] = {}

    def __call__(self, h: Tensor) -> None:
        """Edit ``h`` [B, 1500, d] in place if a call is active, and leave the scores with the call."""
        call = current(self)
        if isinstance(call, Listener):
            call.heard.extend(self._place(h).scores(h))
        if call is None or call.alpha == 0:
            return
        call.scores, call.strength = self._place(h).apply_(h, call.alpha, call.share_in_doubt)
        call.asked = False

    def _place(self, h: Tensor) -> Steering:
        """The pack on the device and in the dtype of frames."""
        key = (h.device, h.dtype)
        if key not in self._placed:
            self._placed[key] = Steering(self.pack, h.device, h.dtype)
        return self._placed[key]

    def steer_in_full(self, call: Call, rows: Sequence[int], h: Tensor) -> Tensor:
        """Edit windows in doubt after all, in place [R, 1500, d]: the decoder heard nobody."""
        assert call.strength is not None
        call.strength[list(rows)] = self._place(h).apply_(h, call.alpha, 1.0).strength
        return h

    def hook(self, _module: torch.nn.Module, _inputs: tuple[Tensor, ...], output: Any) -> None:
        """Forward hook; a method, so that a copied or pickled model hooks its own steerer.

        The output is frames, or, in transformers, a tuple or ModelOutput that begins with them.
        """
        self(output if isinstance(output, Tensor) else output[0])

    def standing(self) -> Call | None:
        """The call of a thread that is in none; see ``standing.py``."""
        return None

    def nobody_speaks(self, call: Call) -> list[bool]:
        """Whether the gate is fully open, for each window of the call's last encode."""
        assert call.strength is not None
        if self.pack.metadata.gate != "window":
            return [False] * len(call.strength)
        return (call.strength[:, 0] == call.alpha).tolist()

    def in_doubt(self, call: Call) -> list[bool]:
        """Whether the decoder is to be asked, for each window of the call's last encode."""
        assert call.scores is not None
        if call.share_in_doubt != 0 or call.asked:
            return [False] * len(call.scores)
        return in_doubt(call.scores, self.pack.metadata).tolist()

    def believes(self, call: Call, row: int, answer: Answer) -> bool:
        """Whether the decoder's answer about a window of the last encode, one in doubt, stays.

        Where the gate leans to speech, only repetition speaks against it.
        """
        assert call.scores is not None
        leans_to_speech = bool(call.scores[row].amax() >= self.pack.metadata.gate_threshold)
        return answer.is_varied() and (leans_to_speech or answer.is_likely(self.pack.metadata.stock_texts))

    def labels(self, scores: Tensor, start: float, end: float) -> Labels:
        """See :meth:`Steering.labels`."""
        return next(iter(self._placed.values())).labels(scores, start, end)


_calls: ContextVar[Mapping[Steerer | None, Call | None]] = ContextVar("steering_calls")


def current(steerer: Steerer | None) -> Call | None:
    """The call that this thread is in on the steerer's model, if any."""
    calls = _calls.get({})
    return calls[steerer] if steerer in calls else steerer.standing() if steerer else None


@contextmanager
def active(steerer: Steerer | None, call: Call | None) -> Generator[Call | None]:
    """Steer every encode inside the block as ``call`` says; None for not at all."""
    token = _calls.set({**_calls.get({}), steerer: call})
    try:
        yield call
    finally:
        _calls.reset(token)


def within(steerer: Steerer | None, call: Call | None, items: Iterator[T]) -> Generator[T, None, None]:
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
