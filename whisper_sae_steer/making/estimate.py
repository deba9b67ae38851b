"""How long making a pack will take, from what one window and one training step take here."""

import time
from collections.abc import Callable

import numpy as np
import torch

from ..audio.units import WINDOW_SAMPLES
from ..models.taps import WindowEncoder
from ..models.weights import Weights
from ..training.trainer import Trainee
from .audio import Recordings
from .autoencoder import OPTIONS, TAP
from .judge import JUDGED_CLIPS

WINDOWS_A_CLIP = {"nonspeech": 1.05, "speech": 3.2}
"""encoded for calibration: an utterance also in noise, as a short piece, and as such in long noise"""
TRAINING_SHARE = 0.75
"""of the most steps, that are needed as a rule"""
STEERING_PASSES = 900
"""decoder passes over a window, gradients and searches among them, in windows' encodings"""
JUDGED_PASSES = 3 * 1.7
"""encodings that each judged clip takes: three ways, and decoding"""


def estimated_seconds(
    weights: Weights, recordings: Recordings, trains: bool, device: torch.device, threads: int
) -> float:
    """Seconds from the first window to the verdict, roughly: what this machine does at the moment counts."""
    encoder = WindowEncoder(weights, TAP, threads=threads, device=device)
    silence = [np.zeros(WINDOW_SAMPLES, dtype=np.float32)]
    window = _seconds(lambda: encoder(silence))
    windows = sum(
        WINDOWS_A_CLIP[kind] * len(clips)
        for kind, clips in zip(("nonspeech", "speech"), recordings, strict=True)
    )
    judged = sum(min(len(clips), JUDGED_CLIPS) for clips in recordings)
    total = window * (windows + STEERING_PASSES + JUDGED_PASSES * judged)
    if trains:
        frames = torch.randn(OPTIONS.batch_size, encoder(silence).shape[-1], device=device)
        trainee = Trainee(frames.shape[1], OPTIONS, device)
        trainee.model.initialise(frames, torch.Generator().manual_seed(0))
        step = _seconds(lambda: trainee.step(frames, 0))
        total += window * recordings.minutes * 3 + step * TRAINING_SHARE * OPTIONS.steps
    return total


def in_words(seconds: float) -> str:
    """About so many minutes or hours."""
    minutes = seconds / 60
    return f"about {minutes:.0f} minutes" if minutes < 90 else f"about {minutes / 60:.1f} hours"


def _seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of the second of two calls: the first one warms up."""
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
