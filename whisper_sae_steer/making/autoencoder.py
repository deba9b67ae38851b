"""The SAE that a pack is made on: one that is there, or a new one, trained until it is good enough."""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..audio.clips import Clip
from ..errors import SAEFormatError
from ..models.cache import cache_dir
from ..models.weights import Weights
from ..sae.autoencoder import SAE
from ..sae.find import locate_sae
from ..sae.formats import load_sae
from ..training.config import TrainConfig
from ..training.encoders import WhisperFrames
from ..training.saving import save_trained
from ..training.source import FrameRecipe
from ..training.store import build_store
from ..training.stream import StreamConfig
from ..training.trainer import train

TAP = "encoder_output"
STREAM = StreamConfig(speech=2.0, noise_share=0.5)
RECIPE = FrameRecipe(padding_share=0.05)
OPTIONS = TrainConfig(lr=2e-3, steps=4000, max_fvu=0.07)
"""the recipe of the shipped SAEs, which leave 5 to 6% of the variance unexplained"""


class ChosenSAE(NamedTuple):
    """An SAE and where it is."""

    sae: SAE
    folder: Path


def existing(source: str, layer: int | str | None, weights: Weights) -> ChosenSAE | None:
    """The SAE named; with ``auto`` the best one of these weights, or None if there isn't any.

    SAEFormatError for one that is named and can't be had: only the encoder's output gets a new one.
    """
    try:
        place = locate_sae(source, layer, weights)
    except SAEFormatError:
        if source != "auto" or layer is not None:
            raise
        return None
    return ChosenSAE(load_sae(place), place)


def trained(weights: Weights, clips: list[Clip], work: Path, device: torch.device) -> ChosenSAE:
    """A new SAE in the cache, where ``auto`` finds it. Stopped, the same call goes on."""
    encoder = WhisperFrames(weights, [TAP], device)
    source = build_store(encoder, clips, work / "frames", STREAM, RECIPE)
    (one,) = train(source, OPTIONS, work / "training", device=device)
    folder = cache_dir() / "saes" / f"{weights.name}-{weights.sha256[:8]}" / TAP
    save_trained(one, source, folder)
    return ChosenSAE(load_sae(folder), folder)


def describe(chosen: ChosenSAE) -> str:
    """Where it is and how good it is."""
    config = chosen.sae.config
    held_back: Any = config.metadata.get("held_back") or {}
    quality = (
        f"leaves {100 * held_back['fvu']:.1f}% of the variance of recordings held back unexplained"
        if "fvu" in held_back
        else "doesn't tell how good it is"
    )
    return f"SAE {chosen.folder}: {config.d_sae} features at {config.tap}, {quality}"
