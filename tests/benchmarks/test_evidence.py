"""The evidence page says what the recorded results say."""

import benchmarks.evidence as evidence


def test_the_page_is_what_the_script_makes_of_the_results() -> None:
    assert evidence.PAGE.read_text(encoding="utf-8") == evidence.page()


def test_every_kind_of_result_is_there_and_losses_are_told() -> None:
    rows = (evidence._sounds(), evidence._speech(), evidence._peers(), evidence._times(), evidence._risks())
    assert all(len(list(made)) >= 3 for made in rows)
    assert any("tiny.en, gaps: takes" in line for line in evidence._losses())
