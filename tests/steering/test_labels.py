"""Labels: what the gate says of a segment."""

import math

import pytest
import torch

from tests.support.small_pack import small_pack
from whisper_sae_steer.steering.labels import label_segment, label_stretch
from whisper_sae_steer.steering.risk import BY_SEGMENT, BY_WORD, WrittenSegment, WrittenWord


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_labels_read_the_segments_frames():
    metadata = small_pack(speech_calibration=(2.0, -1.0), risk_calibration=(-1.0, 0.5, 0.25)).metadata
    scores = torch.arange(1500, dtype=torch.float32) / 100
    labels = label_stretch(scores, 1.0, 2.0, metadata)
    highest, mean = 0.99, (0.50 + 0.99) / 2
    assert labels.speech_prob == pytest.approx(sigmoid(2 * highest - 1))
    assert labels.hallucination_risk == pytest.approx(sigmoid(-highest + 0.5 * mean + 0.25))


@pytest.mark.parametrize(("start", "end"), [(0, 0), (29.98, 30), (31, 40), (-1, 0.01), (5, 4), (0.5, 99)])
@pytest.mark.parametrize("length", [1, 3, 1500])
def test_labels_of_odd_segments_are_probabilities(start: float, end: float, length: int):
    scores = 1e6 * torch.randn(length, generator=torch.Generator().manual_seed(1))
    labels = label_stretch(scores, start, end, small_pack().metadata)
    assert all(0 <= value <= 1 for value in labels)


def written(*probabilities: float, text: str = " so it is") -> WrittenSegment:
    words = [WrittenWord(f" {i}", p) for i, p in enumerate(probabilities)]
    return WrittenSegment(1.0, 2.0, text, -0.3, words)


def test_a_segments_risk_is_the_mean_of_its_words():
    scores = torch.full((1500,), 5.0)
    labels = label_segment(written(0.99, 0.9, 0.05), scores, small_pack().metadata)
    assert len(labels.word_risks) == 3
    assert labels.word_risks[0] < labels.word_risks[2]
    assert labels.segment.hallucination_risk == pytest.approx(sum(labels.word_risks) / 3)
    assert labels.segment.speech_prob == label_stretch(scores, 1.0, 2.0, small_pack().metadata).speech_prob


def test_without_words_the_risk_is_read_from_the_segment():
    metadata = small_pack(risk_calibration=(-1.0, 0.0, 0.5)).metadata
    labels = label_segment(written(), torch.full((1500,), 2.0), metadata)
    assert not labels.word_risks
    assert labels.segment.hallucination_risk == pytest.approx(BY_SEGMENT([-0.3, -1.5, 0.0]))


def test_a_loop_is_heard_across_segments():
    scores, metadata = torch.full((1500,), 5.0), small_pack().metadata
    plain = label_segment(written(0.9, text=" Thanks."), scores, metadata)
    looped = label_segment(written(text=" Thanks."), scores, metadata, ["Thanks."] * 7)
    assert looped.segment.hallucination_risk > 0.5 > plain.segment.hallucination_risk
    assert BY_WORD.weights[2] > 0
