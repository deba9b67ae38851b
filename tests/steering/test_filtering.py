"""What filter_risk leaves out, and keeps apart."""

from typing import Any

import pytest

from whisper_sae_steer.errors import RiskError
from whisper_sae_steer.steering.filtering import check_filter_risk, part_by_risk


def word(text: str, start: float, risk: float) -> dict[str, Any]:
    return {"word": text, "start": start, "end": start + 0.5, "probability": 0.5, "hallucination_risk": risk}


def segment(*words: dict[str, Any], risk: float = 0.5) -> dict[str, Any]:
    text = "".join(w["word"] for w in words)
    fields: dict[str, Any] = {"id": 3, "start": 0.0, "end": 9.0, "text": text, "hallucination_risk": risk}
    return fields | {"words": list(words)} if words else fields


def test_words_are_parted_and_times_follow_them():
    said = segment(
        word(" Thanks.", 0.0, 0.9), word(" So", 2.0, 0.1), word(" it", 3.0, 0.2), word(" is", 4.0, 0.95)
    )
    kept, filtered = part_by_risk(said, 0.9)
    assert kept is not None
    assert filtered is not None
    assert (kept["text"], kept["start"], kept["end"]) == (" So it", 2.0, 3.5)
    assert kept["hallucination_risk"] == pytest.approx(0.15)
    assert (filtered["text"], filtered["start"], filtered["end"]) == (" Thanks. is", 0.0, 4.5)
    assert (kept["id"], filtered["id"]) == (3, 3)


def test_a_segment_of_one_kind_stays_as_it_is():
    said = segment(word(" So", 2.0, 0.1))
    assert part_by_risk(said, 0.5) == (said, None)
    assert part_by_risk(said, 0.05) == (None, said)


def test_without_words_the_segment_counts():
    whole = segment(risk=0.6)
    assert part_by_risk(whole, 0.5) == (None, whole)
    assert part_by_risk(whole, 0.7) == (whole, None)
    assert part_by_risk(whole | {"words": None}, 0.7).filtered is None


@pytest.mark.parametrize(
    ("threshold", "steers"), [(0.0, True), (1.1, True), (float("nan"), True), (0.9, False)]
)
def test_thresholds_that_cannot_be_applied_are_refused(threshold: float, steers: bool):
    with pytest.raises(RiskError, match="filter_risk"):
        check_filter_risk(threshold, steers)


def test_no_threshold_needs_nothing():
    check_filter_risk(None, steers=False)
