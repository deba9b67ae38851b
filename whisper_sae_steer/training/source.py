"""What a trainer reads frames from: pools that are shuffled as a whole, from disk or encoded on the way."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ..audio.clips import Clip
from ..errors import CalibrationError
from .encoders import FrameEncoder, Frames
from .stream import AudioWindow, StreamConfig


@dataclass(frozen=True)
class FrameRecipe:
    """Which frames of a window are kept, and how."""

    dtype: Literal["float16", "bfloat16"] = "float16"
    """of the frames in memory and on disk; bfloat16 where activations pass 65504"""
    padding_share: float = 0.0
    """random share of the padding's frames that is kept; 0 masks padding"""


class Pool(NamedTuple):
    """Frames that are shuffled together: what the mixing buffer holds at a time."""

    frames: dict[str, Tensor]
    """tap: [N, d], shuffled, the same N frames at each tap"""
    state: list[int]
    """makes this pool again"""


class FrameSource(Protocol):
    """A store on disk, or recordings encoded while training."""

    @property
    def model(self) -> str: ...
    @property
    def fingerprint(self) -> str:
        """Of the model's weights."""
        ...

    @property
    def encoder_mark(self) -> str | None: ...
    @property
    def key(self) -> str:
        """Hash of all that the frames are made of and how."""
        ...

    @property
    def taps(self) -> Mapping[str, int]:
        """Tap: width."""
        ...

    def pools(
        self, start: Sequence[int] | None, taps: Sequence[str], size: int, seed: int, rank: int, world: int
    ) -> Iterator[Pool]:
        """Endless pools of about ``size`` frames; ``start`` is a pool's state, None for the first one.

        Of ``world`` processes each asks with its ``rank`` and gets its share of the same pools.
        """
        ...

    def held_back_frames(self, tap: str) -> Iterator[Tensor]:
        """Frames [N, d] of recordings that no pool holds."""
        ...


def encode_windows(
    encoder: FrameEncoder, windows: Sequence[AudioWindow], recipe: FrameRecipe, seed: int
) -> dict[str, Tensor]:
    """Windows → tap: their frames [N, d], padding masked. CalibrationError if they don't fit the dtype."""
    rng = np.random.default_rng([seed, *windows[0].after])
    kept = [_masked(frames, recipe, rng) for frames in encoder([window.audio for window in windows])]
    if not kept:
        raise CalibrationError(f"windows too short for {encoder.model} to make a frame of; add longer audio")
    frames = {tap: torch.cat([part[tap] for part in kept]) for tap in encoder.taps}
    for tap, h in frames.items():
        if not h.isfinite().all():
            raise CalibrationError(f"activations at {tap} don't fit {recipe.dtype}; use bfloat16")
    return frames


def shuffled(count: int, seeds: Sequence[int]) -> Tensor:
    """A permutation [count] that depends on the seeds alone."""
    return torch.from_numpy(np.random.default_rng(list(seeds)).permutation(count))


def source_key(
    encoder: FrameEncoder, clips: Sequence[Clip], stream: StreamConfig, recipe: FrameRecipe
) -> str:
    """Hash of what frames are made of: weights, taps, recordings (by name and size) and options."""
    digest = hashlib.sha256()
    weights = [encoder.fingerprint, encoder.encoder_mark]
    digest.update(json.dumps([*weights, encoder.taps, asdict(stream), asdict(recipe)]).encode())
    for clip in clips:
        size = clip.path.stat().st_size if clip.path.exists() else 0
        digest.update(f"\n{clip.key}\t{clip.kind}\t{clip.group}\t{size}".encode())
    return digest.hexdigest()


def _masked(window: Frames, recipe: FrameRecipe, rng: np.random.Generator) -> dict[str, Tensor]:
    """A window's frames without its padding, save a random share of that."""
    total = len(next(iter(window.taps.values())))
    padding = window.content + np.flatnonzero(rng.random(total - window.content) < recipe.padding_share)
    kept = torch.from_numpy(np.concatenate([np.arange(window.content), padding]))
    dtype: torch.dtype = getattr(torch, recipe.dtype)
    return {tap: h[kept.to(h.device)].to(dtype) for tap, h in window.taps.items()}
