"""Labels of a segment: what the gate says of the stretch that it covers."""

import math
from typing import NamedTuple

from torch import Tensor

from ..audio.units import ENCODER_FRAME_SECONDS
from .pack import PackMetadata


class Labels(NamedTuple):
    """What the gate says of one segment."""

    speech_prob: float
    """probability that someone speaks in it"""
    hallucination_risk: float
    """probability that its text was invented"""


def label_segment(scores: Tensor, start: float, end: float, metadata: PackMetadata) -> Labels:
    """Labels of a segment from its window's smoothed speech scores [T].

    ``start`` and ``end`` are seconds from the start of the window.
    """
    first = min(max(0, int(start / ENCODER_FRAME_SECONDS)), len(scores) - 1)
    span = scores[first : max(first + 1, math.ceil(end / ENCODER_FRAME_SECONDS))]
    highest, mean = float(span.max()), float(span.mean())
    slope, offset = metadata.speech_calibration
    by_highest, by_mean, constant = metadata.risk_calibration
    return Labels(
        _sigmoid(slope * highest + offset),
        _sigmoid(by_highest * highest + by_mean * mean + constant),
    )


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, x))))
