"""Synthetic non-speech: sounds that hold no word, made from numbers alone.

A clip depends only on (kind, index, seed) and the range of lengths, so a folder can be continued,
split or rebuilt elsewhere with the same samples, and nobody's recording is needed.
"""

import os
import wave
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ManifestError
from .clips import write_manifest
from .sounds import RECIPES
from .units import SAMPLE_RATE
from .writing import write_wav


class SyntheticClip(NamedTuple):
    """One clip: `audio` is float32 [n] mono at 16 kHz, within ±1."""

    name: str
    kind: str
    audio: npt.NDArray[np.float32]


# ---- clips


class _Plan(NamedTuple):
    """What fixes a clip before any sample is made; `rng` has drawn only the length."""

    name: str
    kind: str
    samples: int
    rng: np.random.Generator


def _plan(kind: str, index: int, seed: int, seconds: tuple[float, float]) -> _Plan:
    # Seeded by the kind's name, not its place: adding a kind leaves the others' clips alone.
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), index])
    samples = max(1, round(float(rng.uniform(*seconds)) * SAMPLE_RATE))
    return _Plan(f"{kind}-s{seed}-{index:04d}", kind, samples, rng)


def _plans(n: int, seed: int, seconds: tuple[float, float]) -> Iterator[_Plan]:
    if n < 0 or not 0 < seconds[0] <= seconds[1] < float("inf"):
        raise ValueError(f"need n ≥ 0 and 0 < shortest ≤ longest, got n={n}, seconds={seconds}")
    kinds = list(RECIPES)
    for i in range(n):
        yield _plan(kinds[i % len(kinds)], i // len(kinds), seed, seconds)


def _make(plan: _Plan) -> SyntheticClip:
    audio = np.clip(RECIPES[plan.kind](plan.rng, plan.samples), -1, 1)
    return SyntheticClip(plan.name, plan.kind, audio.astype(np.float32))


def clip(kind: str, index: int = 0, seed: int = 0, seconds: tuple[float, float] = (1, 30)) -> SyntheticClip:
    """The clip with this kind (a key of `RECIPES`), index and seed; KeyError for another kind."""
    return _make(_plan(kind, index, seed, seconds))


def generate(n: int, seed: int = 0, seconds: tuple[float, float] = (1, 30)) -> Iterator[SyntheticClip]:
    """Yield `n` clips, all kinds in turn, each of a random length within `seconds`."""
    return map(_make, _plans(n, seed, seconds))


# ---- a folder


def _is_done(path: Path, samples: int) -> bool:
    try:
        with wave.open(str(path), "rb") as file:
            return file.getnframes() == samples and path.stat().st_size >= 2 * samples
    except (OSError, EOFError, wave.Error):
        return False


def write_folder(
    out: str | os.PathLike[str],
    n: int,
    seed: int = 0,
    seconds: tuple[float, float] = (1, 30),
    split: str = "calib",
) -> Path:
    """Write `n` clips below `out` and a manifest.tsv that lists them; returns its path.

    Clips that an earlier, interrupted call has written are kept; the manifest comes last.
    ManifestError if `out` can't be written.
    """
    root = Path(out)
    folder = Path("nonspeech", split, "synthetic")
    rows: list[dict[str, str]] = []
    try:
        root.mkdir(parents=True, exist_ok=True)
        for plan in _plans(n, seed, seconds):
            path = folder / plan.kind / f"{plan.name}.wav"
            rows.append(
                {"path": path.as_posix(), "split": split, "kind": "nonspeech", "class": plan.kind,
                 "seconds": f"{plan.samples / SAMPLE_RATE:.2f}", "group": f"synthetic-{plan.name}",
                 "source": "generated:whisper_sae_steer.synthetic", "licence": "CC0-1.0"}
            )  # fmt: skip
            if not _is_done(root / path, plan.samples):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                write_wav(root / path, _make(plan).audio)
        manifest = root / "manifest.tsv"
        write_manifest(manifest, rows)
    except OSError as error:
        raise ManifestError(f"can't write synthetic clips to {root}: {error.strerror}") from error
    return manifest
