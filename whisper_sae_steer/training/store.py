"""Activation store: a list of audio files → shards of encoder frames on disk, with a JSON index."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from ..audio import SAMPLE_RATE, load_audio
from ..errors import AudioError, CalibrationError
from ..files import write_atomically
from ..taps import WINDOW_SAMPLES, WindowEncoder, content_frames
from ..weights import Weights

WINDOWS_A_SHARD = 32
HELD_BACK_EVERY = 16
"""one shard in sixteen is held back to measure quality on"""
PADDING_SHARE = 0.05
"""share of a window's padding frames that are kept: few, but the SAE must know them"""


@dataclass(frozen=True)
class FrameStore:
    """Frames of one tap of one model on disk."""

    path: Path
    model: str
    fingerprint: str
    tap: str
    d_in: int
    source: str
    """sha256 of the list of files the frames come from"""
    shards: tuple[str, ...]

    @staticmethod
    def open(path: Path) -> "FrameStore":
        """Read a finished store's index; CalibrationError if there is none."""
        try:
            index: dict[str, Any] = json.loads((path / "index.json").read_text())
        except (OSError, ValueError):
            raise CalibrationError(f"no finished activation store in {path}") from None
        shards = tuple(index.pop("shards"))
        return FrameStore(path=path, shards=shards, **index)

    def load(self, held_back: bool) -> Tensor:
        """All training or all held-back frames: [N, d_in] float16; N may be 0."""
        chosen = [name for i, name in enumerate(self.shards) if (i % HELD_BACK_EVERY == 1) == held_back]
        empty = torch.empty(0, self.d_in, dtype=torch.float16)
        return torch.cat([empty, *(load_file(self.path / name)["frames"] for name in chosen)])


def build_store(
    weights: Weights, files: Sequence[Path], out: Path, tap: str = "encoder_output", seed: int = 0
) -> FrameStore:
    """Encode ``files`` and keep their frames. Finished shards are kept when called again.

    Short recordings share a window, in shuffled order, up to a random fill of 5 to 30 s, so that
    frames before padding are seen as well as full windows. Files that can't be read are skipped
    with a line.
    """
    order = np.random.default_rng(seed).permutation(len(files))
    shuffled = [files[i] for i in order]
    source = hashlib.sha256("\n".join(f"{p.parent.name}/{p.name}" for p in shuffled).encode())
    out.mkdir(parents=True, exist_ok=True)
    if (out / "index.json").exists() and (
        (store := FrameStore.open(out)).source,
        store.fingerprint,
        store.tap,
    ) == (source.hexdigest(), weights.fingerprint, tap):
        return store
    made_of = f"{source.hexdigest()} {weights.fingerprint} {tap} {seed}"
    prefix = f"frames-{hashlib.sha256(made_of.encode()).hexdigest()[:8]}"
    encoder = WindowEncoder(weights, tap)
    windows = _pack_windows(shuffled, seed)
    progress = tqdm(total=len(shuffled), desc="encode", unit="file")
    names: list[str] = []
    while batch := [window for _, window in zip(range(WINDOWS_A_SHARD), windows, strict=False)]:
        name = f"{prefix}-{len(names):05d}.safetensors"
        if not (out / name).exists():
            frames = _encode(encoder, [audio for audio, _ in batch], seed + len(names))
            with write_atomically(out / name) as temporary:
                save_file({"frames": frames}, temporary)
        names.append(name)
        progress.update(sum(count for _, count in batch))
    progress.close()
    if not names:
        raise CalibrationError("none of the audio files could be read")
    d_in = load_file(out / names[0])["frames"].shape[1]
    store = FrameStore(out, weights.name, weights.fingerprint, tap, d_in, source.hexdigest(), tuple(names))
    index = {key: value for key, value in asdict(store).items() if key != "path"}
    with write_atomically(out / "index.json") as temporary:
        temporary.write_text(json.dumps(index, indent=1))
    return store


def _pack_windows(files: Sequence[Path], seed: int) -> Iterator[tuple[np.ndarray, int]]:
    """Windows of at most 30 s, each with the number of files finished in it."""
    rng = np.random.default_rng(seed)
    parts: list[np.ndarray] = []
    finished, fill = 0, int(rng.integers(5 * SAMPLE_RATE, WINDOW_SAMPLES))
    for file in files:
        try:
            audio = load_audio(file)
        except AudioError as error:
            tqdm.write(f"skipped: {error}")
            finished += 1
            continue
        for start in range(0, len(audio), WINDOW_SAMPLES):
            chunk = audio[start : start + WINDOW_SAMPLES]
            if parts and sum(map(len, parts)) + len(chunk) > fill:
                yield np.concatenate(parts), finished
                parts, finished = [], 0
                fill = int(rng.integers(5 * SAMPLE_RATE, WINDOW_SAMPLES))
            parts.append(chunk)
        finished += 1
    if parts:
        yield np.concatenate(parts), finished


def _encode(encoder: WindowEncoder, windows: Sequence[np.ndarray], seed: int) -> Tensor:
    """Content frames of all windows and a few of their padding frames: [N, d] float16."""
    rng = np.random.default_rng(seed)
    kept: list[Tensor] = []
    for audio in windows:
        frames = encoder([audio])[0]
        content = content_frames(len(audio))
        padding = content + np.flatnonzero(rng.random(len(frames) - content) < PADDING_SHARE)
        kept += [frames[:content], frames[torch.from_numpy(padding)]]
    return torch.cat(kept).half()
