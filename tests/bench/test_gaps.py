from typing import Any

import pytest

from whisper_sae_steer.bench import gaps
from whisper_sae_steer.reports.metrics import word_errors

GAPS = [(0.0, 2.0), (5.0, 10.0), (14.0, 20.0)]
REFERENCE = "| the cat sat on | good morning to all |"


def segment(start: float, end: float, text: str) -> dict[str, Any]:
    return {"start": start, "end": end, "text": text}


def test_a_recording_worked_by_hand() -> None:
    segments = [
        segment(2.25, 5, " The cat sat."),
        segment(6, 8, " Thank you."),
        segment(10, 13, " Good evening to all."),
        segment(15, 25, " Bye bye."),  # ends in the padding, as Whisper's segments may
    ]
    score = gaps.score(GAPS, REFERENCE, segments, "en", 20.0)
    assert score.words == 4  # thank, you, bye, bye; `evening` stands where speech is
    assert score.minutes == pytest.approx(13 / 60)
    assert (score.boundary_errors, score.boundary_words) == (2, 8)  # on, morning
    assert sorted(score.shifts) == [0, 0, 0.25, 1]


def test_words_of_a_segment_that_stretches_over_a_gap() -> None:
    def words(text: str) -> int:
        segments = [segment(2, 10, text), segment(10, 14, "Good morning to all.")]
        return gaps.score(GAPS, REFERENCE, segments, "en", 20.0).words

    assert words("The cat sat on") == 0, "right words are speech, whatever their times"
    assert words("The cat sad in") == 0, "so are misheard ones beside right ones"
    assert words("Bye bye") == 1, "without a right word they are made up: their middles are 4 and 8"
    assert words("The cat sat on. Oh well thanks bye") == 3, "at 6.5, 7.5, 8.5 and, too near to speech, 9.5"


def test_boundary_words_need_marks_and_may_be_few() -> None:
    said = [segment(2, 5, "the cat sat on good morning to all")]
    assert gaps.score(GAPS, REFERENCE.replace("|", ""), said, "en", 20.0).boundary_words == 0
    score = gaps.score(GAPS, "| one | a b c d e f |", [], "en", 20.0)
    assert (score.boundary_errors, score.boundary_words) == (5, 5), "one a b, e f"
    assert score.shifts == ()


def test_without_a_reference_every_word_in_a_gap_counts() -> None:
    score = gaps.score(GAPS, "", [segment(6, 9, "danke schön")], "de", 20.0)
    assert (score.words, score.boundary_words) == (2, 0)


def test_marks_are_no_words() -> None:
    for language in ("en", "de"):
        errors = word_errors(REFERENCE, "The cat sat on. Good morning to all!", language)
        assert errors is not None
        assert (errors.errors, errors.words) == (0, 8)


def test_summary_and_changes() -> None:
    before = [gaps.GapScore(6, 2.0, 1, 4, (0.1, 0.5)), gaps.GapScore(2, 2.0, 0, 4, (0.3,))]
    after = [gaps.GapScore(0, 2.0, 2, 4, (0.1, 0.5)), gaps.GapScore(2, 2.0, 0, 4, ())]
    total = gaps.summarise(before)
    assert (total["gap_words"], total["gap_minutes"], total["gap_words_per_minute"]) == (8, 4.0, 2.0)
    assert (total["boundary_errors"], total["boundary_words"]) == (1, 8)
    assert total["timestamp_shift_median"] == pytest.approx(0.3)
    assert total["timestamp_shift_p95"] == pytest.approx(0.48)
    changes = gaps.changes(after, before)
    fewer = changes["gap_words_per_minute_change"]
    assert (fewer["value"], fewer["low"], fewer["high"], fewer["n"]) == (-1.5, -3.0, 0.0, 2)
    assert changes["boundary_errors_change"]["value"] == 1 / 8
    unknown = [gaps.GapScore(1, 2.0, 0, 0, ())]
    assert gaps.summarise(unknown)["timestamp_shift_median"] is None
    assert gaps.changes(unknown, unknown)["boundary_errors_change"] is None
