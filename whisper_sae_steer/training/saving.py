"""The end of a training: an SAE's quality on recordings held back, and its folder."""

from dataclasses import asdict, replace
from pathlib import Path

import torch

from ..sae.formats import save_sae
from .logs import save_history
from .quality import Quality, measure
from .source import FrameSource
from .trainer import Trained


def save_trained(trained: Trained, source: FrameSource, folder: Path) -> Quality:
    """Measure a finished SAE on the frames held back, note the figures in it, and write it with its curves.

    The folder is in SAELens v6 layout, float16. CalibrationError if no recording is held back.
    """
    sae = trained.sae
    quality = measure(sae, source.held_back_frames(trained.member.tap))
    figures = {name: value for name, value in asdict(quality).items() if not isinstance(value, dict)}
    sae.config = replace(sae.config, metadata={**sae.config.metadata, "held_back": figures})
    save_sae(sae, folder, dtype=torch.float16)
    save_history(trained.history, folder)
    return quality
