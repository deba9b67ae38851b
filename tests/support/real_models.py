"""Real Whisper weights and the sample recordings, with packs that add one known vector."""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.support.paths import SAMPLES
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.models.weights import Weights, resolve
from whisper_sae_steer.reports import metrics
from whisper_sae_steer.steering.metadata import PackMetadata
from whisper_sae_steer.steering.pack import Features, SteeringPack, save_pack

WIDTHS = {"tiny.en": 384, "base": 512}
SHUT, OPEN = 1000.0, -1000.0
"""gate biases that leave no doubt"""


@cache
def weights(name: str) -> Weights:
    return resolve(name)


@cache
def sample(name: str) -> NDArray[np.float32]:
    return load_audio(SAMPLES / f"{name}.ogg")


class Split(NamedTuple):
    """A transcript of gap.ogg."""

    spoken: list[str]
    """words of the segments outside the gap"""
    invented: list[str]
    """texts inside it"""


def by_gap(segments: Iterable[Mapping[str, Any]]) -> Split:
    """Segments of gap.ogg by where their middles are; texts normalised as for word errors."""
    (gap,) = truth("gap")["gaps"]
    inside: list[str] = []
    outside: list[str] = []
    for segment in segments:
        middle = (segment["start"] + segment["end"]) / 2
        side = inside if gap["start"] < middle < gap["end"] else outside
        side.append(metrics.normalise(segment["text"], "en"))
    return Split(" ".join(outside).split(), [text for text in inside if text])


class OneWindow(NamedTuple):
    """Both sentences of gap.ogg in one window, with a shorter gap between them."""

    audio: NDArray[np.float32]
    spoken: list[str]
    edges: list[float]
    """seconds at which each sentence begins and ends"""


def one_window(gap: float = 8.0) -> OneWindow:
    """The first sentence, ``gap`` seconds of gap.ogg's noise and the second sentence."""
    first, second = truth("gap")["speech"]
    audio, rate = sample("gap"), 16_000
    start = round((first["end"] + gap / 2) * rate), round((second["start"] - gap / 2) * rate)
    edges = [
        first["start"],
        first["end"],
        first["end"] + gap,
        first["end"] + gap + second["end"] - second["start"],
    ]
    words = [metrics.normalise(part["text"], "en").split() for part in (first, second)]
    return OneWindow(np.concatenate([audio[: start[0]], audio[start[1] :]]), words[0] + words[1], edges)


def word_around_sentence(pause: float) -> NDArray[np.float32]:
    """The words "to the station", a pause of faint noise, their sentence, the pause and the words again."""
    speech, rate = sample("speech"), 16_000
    words = speech[round(5.15 * rate) : round(5.85 * rate)]
    noise = np.random.default_rng(1).normal(0, 0.002, round(pause * rate)).astype(np.float32)
    beside = noise[:rate]
    return np.concatenate([beside, words, noise, speech, noise, words, beside])


def truth(name: str) -> dict[str, Any]:
    return json.loads((SAMPLES / f"{name}.json").read_text(encoding="utf-8"))


def vector_pack(name: str, bias: float = 0.0, width: int = 0, **metadata: Any) -> SteeringPack:
    """Adds α · 2 v, v of unit length; ungated, with scores that vary from frame to frame.

    Small beside a frame's norm of 20, so that speech stays text with other probabilities.
    """
    width = width or WIDTHS[name]
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    options: dict[str, Any] = {
        "model": name,
        "fingerprint": weights(name).fingerprint if name in WIDTHS else "",
        "d_in": width,
        "strategy": "direction",
        "selection": "attribution",
        "gate": "none",
        "alpha_unit": 2.0,
        "gate_smoothing": 25,
    }
    return SteeringPack(
        metadata=PackMetadata(**{**options, **metadata}),
        gate=Features(torch.arange(16), random(16, width) / width**0.5, torch.zeros(16), torch.zeros(16)),
        gate_weight=random(16),
        gate_bias=torch.tensor(bias),
        steer=Features(torch.arange(0), torch.zeros(0, width), torch.zeros(0), torch.zeros(0)),
        directions=torch.nn.functional.normalize(random(1, width), dim=-1),
        coefficients=torch.ones(1),
    )


def edit(pack: SteeringPack) -> NDArray[np.float32]:
    """What a vector pack adds to an open window's frames at α = 1, [d]."""
    return (pack.directions[0] * pack.metadata.alpha_unit).numpy()


def strength(before: NDArray[np.float32], after: NDArray[np.float32], pack: SteeringPack) -> float:
    """How often and how strongly frames [..., d] were edited: the sum of the αs applied to them."""
    vector = edit(pack)
    found = float(((after - before) @ vector).mean() / (vector @ vector))
    np.testing.assert_allclose(after, before + found * vector, atol=1e-3)
    return round(found, 3)


def saved(pack: SteeringPack, folder: Path) -> Path:
    path = folder / "pack.safetensors"
    save_pack(pack, path)
    return path
