"""The steerer of a model: applies its pack to whatever the model encodes, as the call at hand says."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .batch import SteeredBatch
from .calls import Call, CallOptions, current
from .doubt import verdicts
from .labels import Labels, SegmentLabels, label_moment, label_segment, label_stretch
from .operator import Operator
from .pack import SteeringPack
from .risk import WrittenSegment


class Steerer:
    """Applies one pack to a model's encoder output on whatever device and dtype it comes in."""

    def __init__(self, pack: SteeringPack):
        self.pack = pack
        self._placed: dict[tuple[torch.device, torch.dtype], Operator] = {}

    def __call__(self, h: Tensor) -> SteeredBatch | None:
        """Steer frames ``h`` [B, 1500, d] in place, if this thread's call asks for it.

        The result is also left with the call.
        """
        call = current(self)
        if call is None or not call.options.sees_windows:
            return None
        batch = self.steer(h, call.options)
        call.results.append(batch)
        return batch

    def steer(self, h: Tensor, options: CallOptions) -> SteeredBatch:
        """Edit frames ``h`` [B, 1500, d] in place as ``options`` say."""
        placed = self._place(h)
        if options.scores_only:
            scores = placed.scores(h)
            strength = torch.zeros_like(scores[:, :1])
        else:
            scores, strength = placed.apply_(h, options.alpha, options.in_doubt)
        return SteeredBatch(h, scores, strength, verdicts(scores, self.pack.metadata, options.in_doubt))

    def edit_refused_windows(self, frames: Tensor, rows: Sequence[int], options: CallOptions) -> Tensor:
        """A copy of frames [B, 1500, d] with those windows edited in full: the decoder heard nobody there."""
        frames = frames.clone()
        frames[list(rows)] = self.steer(frames[list(rows)], replace(options, in_doubt="edit")).frames
        return frames

    def hook(self, _module: torch.nn.Module, _inputs: tuple[Tensor, ...], output: Any) -> None:
        """Forward hook; a method, so that a copied or pickled model hooks its own steerer.

        The output is frames, or, in transformers, a tuple or ModelOutput that begins with them.
        """
        self(output if isinstance(output, Tensor) else output[0])

    def standing_call(self) -> Call | None:
        """The call of a thread that is in none: None, so that nothing is steered."""
        return None

    def label_stretch(self, scores: Tensor, start: float, end: float) -> Labels:
        """Labels of ``start``…``end`` seconds into a window, from the window's scores [T] alone."""
        return label_stretch(scores, start, end, self.pack.metadata)

    def label_moment(self, scores: Tensor, seconds: float) -> Labels:
        """Labels of the second around a moment of a window, from the window's scores [T] alone."""
        return label_moment(scores, seconds, self.pack.metadata)

    def label_segment(
        self, segment: WrittenSegment, scores: Tensor, said: Sequence[str] = ()
    ) -> SegmentLabels:
        """Labels of a segment and its words, from its window's scores [T]; ``said`` are words before it."""
        return label_segment(segment, scores, self.pack.metadata, said)

    def _place(self, h: Tensor) -> Operator:
        """The pack on the device and in the dtype of frames."""
        key = (h.device, h.dtype)
        if key not in self._placed:
            self._placed[key] = Operator(self.pack, h.device, h.dtype)
        return self._placed[key]
