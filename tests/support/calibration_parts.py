"""Clips, windows and folders to calibrate on, small enough for any test."""

from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.support.real_models import sample, truth
from whisper_sae_steer.audio import synthetic
from whisper_sae_steer.audio.clips import Clip
from whisper_sae_steer.audio.units import SAMPLE_RATE
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.calibrate.windows import CalibrationWindow, held_back
from whisper_sae_steer.sae.autoencoder import SAE, SAEConfig


def clip(
    name: str,
    kind: str = "nonspeech",
    *,
    path: Path = Path("missing.wav"),
    source: str = "here",
    text: str = "",
    group: str = "",
    seconds: float | None = 5.0,
) -> Clip:
    return Clip(path, name, source, kind, kind, "", text, group or name, seconds)


def names(prefix: str, held: bool, number: int) -> list[str]:
    """The first names ``prefix``0, ``prefix``1 … that are held back, or that are not."""
    every = (f"{prefix}{i}" for i in count())
    return list(islice((name for name in every if held_back(name) == held), number))


def window(
    folder: Path,
    key: str,
    frames: Tensor,
    *,
    speech: slice | None = None,
    source: str = "here",
    content: int = 1500,
) -> CalibrationWindow:
    """A window of given frames [1500, d]; with ``speech`` one of a recording with speech there."""
    path = folder / f"{key.replace('/', '-')}.npz"
    heard = np.zeros(1500, dtype=bool)
    if speech is not None:
        heard[speech] = True
    np.savez(path, frames=frames.numpy(), content=content, speech=heard)
    kind = "nonspeech" if speech is None else "speech"
    return CalibrationWindow(
        key, clip(key, kind, source=source), speech is not None, "", 1, content, heard, path
    )


def random_sae(d_in: int = 16, d_sae: int = 48) -> SAE:
    """A jumprelu SAE with random rows, biases and thresholds, decoder rows of length 1."""
    generator = torch.Generator().manual_seed(0)
    sae = SAE(SAEConfig(d_in, d_sae, model="random"))
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        sae.W_enc.div_(d_in**0.5)
        sae.threshold.copy_(torch.rand(d_sae, generator=generator))
    sae.normalize_decoder()
    return sae


def spoken_pieces() -> list[NDArray[np.float32]]:
    """Each sentence in the samples, and both its halves."""
    pieces: list[NDArray[np.float32]] = []
    for name in ("speech", "gap"):
        for span in truth(name)["speech"]:
            start, end = (int(span[side] * SAMPLE_RATE) for side in ("start", "end"))
            middle = (start + end) // 2
            pieces += [sample(name)[a:b] for a, b in ((start, end), (start, middle), (middle, end))]
    return pieces


def write_noise(folder: Path, fitted: int, held: int, seconds: float = 3.0) -> Path:
    """Synthetic sounds of different kinds, so many of them to be fitted on and held back."""
    folder.mkdir(parents=True)
    made = synthetic.generate(fitted + held, seed=5, seconds=(seconds, seconds + 1))
    prefix = f"{folder.name}/noise"
    for name in [*names(prefix, False, fitted), *names(prefix, True, held)]:
        write_wav(folder / f"{Path(name).name}.wav", next(made).audio)
    return folder


def write_speech(folder: Path, fitted: int, held: int) -> Path:
    """Pieces of the samples, so many of them to be fitted on and held back."""
    folder.mkdir(parents=True)
    prefix = f"{folder.name}/voice"
    chosen = [*names(prefix, True, held), *names(prefix, False, fitted)]
    for name, audio in zip(chosen, spoken_pieces(), strict=False):
        write_wav(folder / f"{Path(name).name}.wav", audio)
    return folder
