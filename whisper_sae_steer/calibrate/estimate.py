"""How long a calibration will take, from what a window takes here, and what a command says of it at once."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..audio.units import WINDOW_SAMPLES
from ..models.taps import WindowEncoder
from ..models.weights import Weights

SILENCE = [np.zeros(WINDOW_SAMPLES, dtype=np.float32)]
NONSPEECH_WINDOWS, SPEECH_WINDOWS = 1.05, 3.2
"""encoded for each recording: an utterance also in noise, as a short piece, and as such in long noise"""
STEERING_PASSES = 900
"""decoder passes over a window, gradients and searches among them, in windows' encodings"""


def window_seconds(encoder: WindowEncoder) -> float:
    """Seconds that one window of 30 s takes to encode: what this machine does at the moment counts."""
    return seconds_of(lambda: encoder(SILENCE))


def calibration_seconds(window: float, sounds: int, utterances: int) -> float:
    """Seconds of a calibration of so many recordings, roughly, where a window takes ``window`` seconds."""
    return window * (NONSPEECH_WINDOWS * sounds + SPEECH_WINDOWS * utterances + STEERING_PASSES)


def recordings_line(weights: Weights, sounds: int, utterances: int) -> str:
    """What a command works on."""
    counts = f"{sounds} recordings without speech, {utterances} with"
    return f"{weights.name} ({weights.source}): {counts}"


def forecast(seconds: float, work: Path) -> str:
    """How long it takes and where it goes on."""
    return f"This takes {in_words(seconds)}; stopped, the same command goes on. Work is kept in {work}."


def in_words(seconds: float) -> str:
    """About so many minutes or hours."""
    minutes = max(1, round(seconds / 60))
    if minutes >= 90:
        return f"about {seconds / 3600:.1f} hours"
    return f"about {minutes} minutes" if minutes > 1 else "about a minute"


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock time of the second of two calls: the first one warms up."""
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
