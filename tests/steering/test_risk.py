"""Features of the risk: words, their neighbours, loops."""

import math
from typing import Any

import pytest

from whisper_sae_steer.steering.risk import (
    LARGEST_LOGIT,
    LARGEST_WORD_LOGIT,
    WrittenSegment,
    WrittenWord,
    repetitions,
    segment_features,
    word_features,
    written_segment,
)


def segment(*words: tuple[str, float]) -> WrittenSegment:
    text = "".join(text for text, _ in words)
    return WrittenSegment(0.0, 3.0, text, -0.25, [WrittenWord(*word) for word in words])


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_a_word_is_seen_beside_its_neighbours():
    rows = word_features(segment((" a", 0.9), (" b", 0.5), (" c", 0.8), (" d", 0.6)), gate=-2.0)
    assert rows[0] == pytest.approx([-0.25, -2.0, 0.0, logit(0.9), 0.0, (0.0 + logit(0.8)) / 2])
    assert rows[3] == pytest.approx([-0.25, -2.0, 0.0, logit(0.6), logit(0.6), (0.0 + logit(0.8)) / 2])
    assert word_features(segment(), gate=0.0) == []


def test_a_word_alone_is_its_own_neighbour():
    assert word_features(segment((" a", 0.9)), gate=0.0)[0][3:] == pytest.approx([logit(0.9)] * 3)


@pytest.mark.parametrize(("probability", "gate"), [(0.0, -math.inf), (1.0, math.inf)])
def test_features_stay_finite(probability: float, gate: float):
    (row,) = word_features(segment((" a", probability)), gate)
    assert abs(row[1]) == LARGEST_LOGIT
    assert abs(row[3]) == LARGEST_WORD_LOGIT


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("no no no", [3, 3, 3]),
        ("No, no! NO", [3, 3, 3]),
        ("one two three", [1, 1, 1]),
        ("so thank you thank you thank you then", [1, 3, 3, 3, 3, 3, 3, 1]),
        ("a b a b c c", [2, 2, 2, 2, 2, 2]),
        ("", []),
    ],
)
def test_repetitions_are_counted_alone_and_in_phrases(text: str, counts: list[float]):
    assert repetitions(text.split()) == counts


def test_three_times_is_speech_and_more_is_a_loop():
    def loop(times: int) -> float:
        return segment_features(WrittenSegment(0.0, 2.0, " no" * times, -0.3), 0.0)[2]

    assert loop(3) == 0.0
    assert loop(8) == pytest.approx(math.log(8))
    across = segment_features(WrittenSegment(0.0, 2.0, " no no", -0.3), 0.0, said=["no"] * 6)
    assert across[2] == pytest.approx(math.log(8))


def test_a_segment_is_read_from_either_librarys_dict():
    fields: dict[str, Any] = {"start": 31.0, "end": 33.0, "text": " so", "avg_logprob": -0.4, "words": None}
    assert written_segment(fields, 30.0) == WrittenSegment(1.0, 3.0, " so", -0.4, [])
    fields["words"] = [{"word": " so", "start": 31.0, "end": 31.5, "probability": 0.7}]
    assert written_segment(fields, 30.0).words == [WrittenWord(" so", 0.7)]
