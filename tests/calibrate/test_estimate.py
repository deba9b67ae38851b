"""The forecast of a calibration."""

from pathlib import Path

import pytest

from tests.support.real_models import weights
from whisper_sae_steer.calibrate.estimate import (
    STEERING_PASSES,
    calibration_seconds,
    forecast,
    in_words,
    window_seconds,
)
from whisper_sae_steer.models.taps import WindowEncoder


def test_more_recordings_take_longer_and_speech_longest():
    alone = calibration_seconds(0.5, 0, 0)
    assert alone == 0.5 * STEERING_PASSES
    assert alone < calibration_seconds(0.5, 100, 0) < calibration_seconds(0.5, 0, 100)


def test_a_window_is_timed_without_its_warming_up():
    seen: list[int] = []

    class Slow(WindowEncoder):
        def __call__(self, audio: object) -> object:  # pyright: ignore
            seen.append(1)
            return super().__call__(audio)  # pyright: ignore

    assert 0 < window_seconds(Slow(weights("tiny.en"), threads=1)) < 10
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(5, "about a minute"), (95, "about 2 minutes"), (5300, "about 88 minutes"), (9000, "about 2.5 hours")],
)
def test_times_are_told_in_words(seconds: float, words: str):
    assert in_words(seconds) == words
    assert forecast(seconds, Path("mine.work")).startswith(f"This takes {words}; stopped, the same command")
