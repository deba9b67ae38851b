"""How much a sweep has to do, and about how long it takes here."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..audio.clips import Clip
from ..audio.units import WINDOW_FRAMES, WINDOW_SAMPLES
from ..calibrate.estimate import forecast, seconds_of
from ..sae.autoencoder import SAE, SAEConfig
from ..training.config import TrainConfig
from ..training.encoders import FrameEncoder
from ..training.quality import measure
from ..training.stream import StreamConfig, WindowStream, hold_back
from ..training.trainee import Trainee
from .config import SweepConfig
from .gate import clips_of_gates
from .groups import groups

TIMED_STEPS = 3
"""of an SAE that has features to revive and of one that has none: most trainings have some, for a while"""
MEASURED_TWICE = 2
"""quality is measured on all that is held back, and on its domains"""


def announced(
    config: SweepConfig, encoder: FrameEncoder, clips: Sequence[Clip], streams: Sequence[StreamConfig],
    work: Path, device: str,
) -> str:  # fmt: skip
    """What a sweep on each of these streams of the clips will do. ConfigError for a setting that can't be."""
    silence = [np.zeros(WINDOW_SAMPLES, np.float32)]
    (window,) = encoder(silence)
    widths = {tap: h.shape[1] for tap, h in window.taps.items()}
    members = config.members(encoder.taps)
    teams = groups(members, widths, config.memory_gb)
    train, held = hold_back(clips)
    held_windows = WindowStream(held, StreamConfig()).expected_windows() if held else 0
    each = {
        made_of: _seconds_of_one(*made_of, held_windows, torch.device(device))
        for made_of in {(options, widths[member.tap]) for member, options in members.items()}
    }
    training = sum(each[options, widths[member.tap]] for member, options in members.items())
    windows = sum(WindowStream(train, stream).expected_windows() + held_windows for stream in streams)
    windows += held_windows + len(encoder.taps) * sum(map(len, clips_of_gates(clips)))
    seconds = len(streams) * training + windows * seconds_of(lambda: list(encoder(silence)))
    audio = {"audio": len(streams)} if len(streams) > 1 else {}
    numbers = {"setting": len(config.settings), **audio, "seed": len(config.seeds), "tap": len(encoder.taps)}
    counts = ", ".join(f"{n} {what}{'s' if n != 1 else ''}" for what, n in numbers.items())
    in_groups = f"in {len(teams)} groups, one after the other" if len(teams) > 1 else "side by side"
    in_groups += ", one audio after the other" if audio else ""
    return f"{len(streams) * len(members)} SAEs ({counts}), {in_groups}. {forecast(seconds, work)}"


def _seconds_of_one(options: TrainConfig, width: int, held_windows: int, device: torch.device) -> float:
    """Of training an SAE and measuring it, on frames that mean nothing."""
    frames = torch.randn(options.batch_size, width, device=device)
    trainee = Trainee(width, options, device)
    trainee.model.initialise(frames, torch.Generator().manual_seed(0))

    def steps() -> None:
        for _ in range(TIMED_STEPS):
            trainee.step(frames, 0)

    lively = seconds_of(steps) / TIMED_STEPS
    trainee.model.since_fired += options.dead_after  # what doesn't fire in the next step is dead
    reviving = seconds_of(steps) / TIMED_STEPS
    window = torch.randn(WINDOW_FRAMES, width)
    sae = SAE(SAEConfig(width, options.features(width), k=options.k))
    quality = seconds_of(lambda: measure(sae, [window]))
    return options.steps * (lively + reviving) / 2 + MEASURED_TWICE * held_windows * quality
