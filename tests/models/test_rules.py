"""Whisper's own rules, against both libraries' code."""

import pytest

from whisper_sae_steer.models.rules import SilenceRule, average_logprob


@pytest.mark.parametrize(
    ("rule", "no_speech_prob", "avg_logprob", "skipped"),
    [
        (SilenceRule(), 0.7, -1.2, True),
        (SilenceRule(), 0.7, -0.9, False),
        (SilenceRule(), 0.5, -2.0, False),
        (SilenceRule(None), 0.9, -9.0, False),
        (SilenceRule(0.6, None), 0.7, 0.0, True),
    ],
)
def test_whispers_own_rule(rule: SilenceRule, no_speech_prob: float, avg_logprob: float, skipped: bool):
    assert rule(no_speech_prob, avg_logprob) is skipped


def test_at_the_thresholds_themselves_it_decides_as_the_libraries():
    """Both skip above the one threshold, unless above the other."""
    rule = SilenceRule(0.6, -1.0)
    assert not rule(0.6, -2.0)
    assert rule(0.61, -1.0)


def test_the_average_counts_the_end_of_text():
    """The sum over 4 tokens and the end of text is -10, which CTranslate2 divides by 4 to the penalty."""
    assert average_logprob(-2.5, 4) == pytest.approx(-2)
    assert average_logprob(-10 / 4**0.5, 4, length_penalty=0.5) == pytest.approx(-2)
