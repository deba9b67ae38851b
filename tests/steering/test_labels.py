"""Labels: what the gate says of a segment."""

import math

import pytest
import torch

from tests.support.small_pack import small_pack
from whisper_sae_steer.steering.labels import label_segment


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_labels_read_the_segments_frames():
    metadata = small_pack(speech_calibration=(2.0, -1.0), risk_calibration=(-1.0, 0.5, 0.25)).metadata
    scores = torch.arange(1500, dtype=torch.float32) / 100
    labels = label_segment(scores, 1.0, 2.0, metadata)
    highest, mean = 0.99, (0.50 + 0.99) / 2
    assert labels.speech_prob == pytest.approx(sigmoid(2 * highest - 1))
    assert labels.hallucination_risk == pytest.approx(sigmoid(-highest + 0.5 * mean + 0.25))


@pytest.mark.parametrize(("start", "end"), [(0, 0), (29.98, 30), (31, 40), (-1, 0.01), (5, 4), (0.5, 99)])
@pytest.mark.parametrize("length", [1, 3, 1500])
def test_labels_of_odd_segments_are_probabilities(start: float, end: float, length: int):
    scores = 1e6 * torch.randn(length, generator=torch.Generator().manual_seed(1))
    labels = label_segment(scores, start, end, small_pack().metadata)
    assert all(0 <= value <= 1 for value in labels)
