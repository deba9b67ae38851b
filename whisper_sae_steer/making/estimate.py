"""How long making a pack will take, from what one window and one training step take here."""

import torch

from ..calibrate.estimate import SILENCE, calibration_seconds, seconds_of, window_seconds
from ..models.taps import WindowEncoder
from ..models.weights import Weights
from ..training.trainee import Trainee
from .audio import Recordings
from .autoencoder import OPTIONS, TAP
from .judge import JUDGED_CLIPS

TRAINING_SHARE = 0.75
"""of the most steps, that are needed as a rule"""
JUDGED_PASSES = 3 * 1.7
"""encodings that each judged clip takes: three ways, and decoding"""


def estimated_seconds(
    weights: Weights, recordings: Recordings, trains: bool, device: torch.device, threads: int
) -> float:
    """Seconds from the first window to the verdict, roughly."""
    encoder = WindowEncoder(weights, TAP, threads=threads, device=device)
    window = window_seconds(encoder)
    judged = sum(min(len(clips), JUDGED_CLIPS) for clips in recordings)
    total = calibration_seconds(window, len(recordings.nonspeech), len(recordings.speech))
    total += window * JUDGED_PASSES * judged
    if trains:
        frames = torch.randn(OPTIONS.batch_size, encoder(SILENCE).shape[-1], device=device)
        trainee = Trainee(frames.shape[1], OPTIONS, device)
        trainee.model.initialise(frames, torch.Generator().manual_seed(0))
        step = seconds_of(lambda: trainee.step(frames, 0))
        total += window * recordings.minutes * 3 + step * TRAINING_SHARE * OPTIONS.steps
    return total
