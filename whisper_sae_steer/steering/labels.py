"""Labels of a stretch of audio by the gate, and of what the decoder wrote for it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ..audio.units import ENCODER_FRAME_SECONDS
from .metadata import PackMetadata
from .risk import BY_SEGMENT, BY_WORD, WrittenSegment, segment_features, sigmoid, word_features

STEP_SECONDS = 0.1
"""from one value of a timeline to the next"""
SPAN_SECONDS = 1.0
"""around each value that it is judged over: probabilities are calibrated for segments of 1 s and more"""


class Labels(NamedTuple):
    """What is to be thought of one segment."""

    speech_prob: float
    """probability that someone speaks in it"""
    hallucination_risk: float
    """share of its words that were made up, as far as one can tell"""


class SegmentLabels(NamedTuple):
    """The same, and of each word."""

    segment: Labels
    word_risks: Sequence[float]
    """probability of each word that it was made up; none without word timestamps"""


def label_stretch(scores: Tensor, start: float, end: float, metadata: PackMetadata) -> Labels:
    """Labels of any stretch of a window, by its smoothed speech scores [T] alone.

    ``start`` and ``end`` are seconds from the start of the window; the risk is that of text written there.
    """
    speech, risk = _logits(scores, start, end, metadata)
    return Labels(sigmoid(speech), sigmoid(risk))


def label_moment(scores: Tensor, seconds: float, metadata: PackMetadata) -> Labels:
    """Labels of SPAN_SECONDS around a moment ``seconds`` into a window, by its smoothed speech scores [T]."""
    return label_stretch(scores, seconds - SPAN_SECONDS / 2, seconds + SPAN_SECONDS / 2, metadata)


def label_segment(
    segment: WrittenSegment, scores: Tensor, metadata: PackMetadata, said: Sequence[str] = ()
) -> SegmentLabels:
    """Labels of a segment from its window's scores [T], and the risk of each of its words.

    ``said`` are the words before it, for loops. The segment's risk is the mean of its words', or is read from
    the segment alone where words have no times.
    """
    speech, gate = _logits(scores, segment.start, segment.end, metadata)
    words = [BY_WORD(row) for row in word_features(segment, gate, said)]
    whole = sum(words) / len(words) if words else BY_SEGMENT(segment_features(segment, gate, said))
    return SegmentLabels(Labels(sigmoid(speech), whole), words)


def _logits(scores: Tensor, start: float, end: float, metadata: PackMetadata) -> tuple[float, float]:
    """Of speech and of risk, by the pack's calibration."""
    first = min(max(0, int(start / ENCODER_FRAME_SECONDS)), len(scores) - 1)
    span = scores[first : max(first + 1, math.ceil(end / ENCODER_FRAME_SECONDS))]
    highest, mean = float(span.max()), float(span.mean())
    slope, offset = metadata.speech_calibration
    by_highest, by_mean, constant = metadata.risk_calibration
    return slope * highest + offset, by_highest * highest + by_mean * mean + constant
