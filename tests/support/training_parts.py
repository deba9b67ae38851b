"""Recordings, encoders and frame sources that training is tested with."""

import wave
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from whisper_sae_steer.audio.clips import Clip
from whisper_sae_steer.sae.autoencoder import SAE
from whisper_sae_steer.training import FrameStore, TrainConfig
from whisper_sae_steer.training.encoders import Frames
from whisper_sae_steer.training.store import Shard

RATE = 16_000


def write_wav(path: Path, seconds: float, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).integers(-3000, 3000, int(seconds * RATE), dtype=np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    return path


def small_recordings(folder: Path) -> list[str]:
    """Two sounds and something in the place of speech, below ``folder``, as commands are given them."""
    for i in range(2):
        write_wav(folder / "noise" / f"{i}.wav", 8, i)
    write_wav(folder / "voice" / "a.wav", 6, 5)
    return [f"sound={folder / 'noise'}", f"speech={folder / 'voice'}"]


def clip(path: Path, kind: str = "nonspeech", group: str = "") -> Clip:
    return Clip(path, path.name, "source", kind, kind, "", "", group or path.stem, None)


class Meaner:
    """Stands for an encoder: a frame is its 20 ms of samples, summed up in two taps; quick and exact."""

    model, fingerprint, taps = "meaner", "f" * 32, ("block.0", "encoder_output")
    encoder_mark = "e" * 32

    def __init__(self):
        self.windows = 0

    def __call__(self, windows: Sequence[NDArray[np.float32]]) -> Iterator[Frames]:
        for audio in windows:
            self.windows += 1
            content = -(-len(audio) // 320)
            padded = torch.from_numpy(np.pad(audio, (0, 1500 * 320 - len(audio)))).view(1500, 8, 40)
            frames = padded.mean(-1) * 100 + 1
            yield Frames({"block.0": frames, "encoder_output": -2 * frames}, content)


def write_store(path: Path, shards: list[Tensor], held_back: list[Tensor], key: str = "a") -> FrameStore:
    """A store of one tap that nothing was encoded for."""
    path.mkdir()

    def write(part: str, all_frames: list[Tensor]) -> tuple[Shard, ...]:
        written: list[Shard] = []
        for i, frames in enumerate(all_frames):
            written.append(Shard(f"{part}-{i}.safetensors", len(frames)))
            save_file({"encoder_output": frames.half()}, path / written[-1].name)
        return tuple(written)

    width = shards[0].shape[1]
    parts = (write("train", shards), write("held", held_back))
    return FrameStore(path, "synthetic", "f" * 32, key, {"encoder_output": width}, *parts)


def sparse_store(path: Path) -> FrameStore:
    """Frames that are sums of three of 96 directions of a space of 64, off centre and not unit size."""
    generator = torch.Generator().manual_seed(3)
    directions = torch.nn.functional.normalize(torch.randn(96, 64, generator=generator), dim=-1)
    centre = torch.randn(64, generator=generator)

    def shard(count: int) -> Tensor:
        weights = torch.zeros(count, 96)
        active = torch.rand(count, 96, generator=generator).topk(3).indices
        weights.scatter_(1, active, 1 + torch.rand(count, 3, generator=generator))
        return 7 * (weights @ directions + centre)

    return write_store(path, [shard(2000) for _ in range(4)], [shard(2000)])


CONFIG = TrainConfig(
    d_sae=128, k=3, steps=600, batch_size=512, lr=5e-3, checkpoint_every=100, buffer_frames=4000
)


def same(one: SAE, other: SAE) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def enlarge_activations(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Let a :class:`Meaner` give activations so many times as large."""
    real = Meaner.__call__

    def large(self: Meaner, windows: list[np.ndarray]):
        for frames in real(self, windows):
            yield frames._replace(taps={tap: h * factor for tap, h in frames.taps.items()})

    monkeypatch.setattr(Meaner, "__call__", large)
