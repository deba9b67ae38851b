"""What a pack must reach to be installed."""

from dataclasses import replace
from typing import Any

import pytest

from tests.support.small_pack import small_pack
from whisper_sae_steer.making.judge import UNSTEERED, VAD, Judgement, Outcome
from whisper_sae_steer.making.verdict import verdict
from whisper_sae_steer.reports.metrics import Difference, WordErrors, wilson


def outcome(
    texts: int = 0, lost: int = 0, short_lost: int = 0, change: float = 0.0, sounds: int = 60
) -> Outcome:
    return Outcome(
        wilson(texts, sounds), WordErrors(5, 2, 3, 200), Difference(change, 0.0, 0.0, 80), wilson(lost, 80),
        wilson(short_lost, 40), 3.0,
    )  # fmt: skip


def judged(
    after: Outcome, before: int = 20, sounds: int = 60, speakers: int = 100, auc: float = 0.999
) -> Any:
    outcomes = {UNSTEERED: outcome(before, sounds=sounds), VAD: outcome(6, sounds=sounds), "ours": after}
    metadata = replace(
        small_pack().metadata, guarantee={"recordings": speakers}, metrics={"gate": {"auc": auc}}
    )
    return verdict(Judgement(outcomes, sounds, 80, ()), metadata)


def test_a_good_pack_passes():
    found = judged(outcome(1))
    assert found.passed
    assert not found.shortfalls
    assert found.sentence == (
        "This pack is good enough to use: text for 1 of 60 recordings without speech (unsteered 20, Silero"
        " VAD 6), 0 of 80 utterances lost (Silero VAD 0), WER 5.00% (unsteered 5.00%)."
    )


@pytest.mark.parametrize(
    ("options", "shortfall", "advice"),
    [
        ({"after": outcome(11)}, "11 of the 20 sounds with text", "--nonspeech"),
        ({"after": outcome(0), "before": 0}, "nothing to gain", "--nonspeech"),
        ({"after": outcome(1, short_lost=1)}, "1 of 40 short utterances", "--speech"),
        ({"after": outcome(1, lost=2)}, "2 of 80 utterances", "--speech"),
        ({"after": outcome(1, change=0.006)}, "0.60 pp", "--speech"),
        ({"after": outcome(1), "auc": 0.0}, "AUC of 0.000", "sounds with voices"),
        ({"after": outcome(1), "speakers": 19}, "19 speakers", "20 speakers and 20 sounds"),
        ({"after": outcome(1, sounds=19), "before": 9, "sounds": 19}, "19 sounds", "20 sounds"),
    ],
)
def test_what_falls_short_is_told_and_what_would_help(options: dict[str, Any], shortfall: str, advice: str):
    found = judged(**options)
    assert not found.passed
    assert found.sentence.startswith("This pack is not good enough to be installed")
    assert len(found.shortfalls) == 1
    assert shortfall in found.shortfalls[0]
    assert advice in found.advice[0]
