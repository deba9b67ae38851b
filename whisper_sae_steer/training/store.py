"""Activation store: recordings → shards of encoder frames on disk, with a JSON index.

``train-NNNNN`` and ``held-NNNNN`` shards are safetensors files with one tensor [N, d] a tap, so that one
tap can be read without the others. A shard's header says where the next one goes on: building resumes
there without decoding what came before.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from ..audio.clips import Clip
from ..errors import CalibrationError
from ..files import write_atomically, write_text
from .encoders import FrameEncoder
from .source import FrameRecipe, Pool, encode_windows, shuffled, source_key
from .stream import AudioWindow, Position, StreamConfig, WindowStream, hold_back

WINDOWS_A_SHARD = 32
INDEX = "index.json"


class Shard(NamedTuple):
    """One file of a store."""

    name: str
    frames: int


@dataclass(frozen=True)
class FrameStore:
    """Frames of several taps of one model on disk."""

    path: Path
    model: str
    fingerprint: str
    """of the model's weights"""
    key: str
    """hash of all that the frames were made of and how"""
    taps: dict[str, int]
    """tap: width"""
    train: tuple[Shard, ...]
    held_back: tuple[Shard, ...]
    encoder_mark: str | None = None
    """of all of its encoder; stores made before there was one have none"""

    @staticmethod
    def open(path: Path) -> "FrameStore":
        """Read a finished store's index; CalibrationError if there is none."""
        try:
            index: dict[str, Any] = json.loads((path / INDEX).read_text(encoding="utf-8"))
            shards = {part: tuple(Shard(*s) for s in index.pop(part)) for part in ("train", "held_back")}
            return FrameStore(path=path, **shards, **index)
        except (OSError, ValueError, LookupError, TypeError):
            raise CalibrationError(f"no finished activation store in {path}; build it first") from None

    @property
    def is_whole(self) -> bool:
        """Whether all shards of the index are there."""
        return all((self.path / shard.name).is_file() for shard in (*self.train, *self.held_back))

    def pools(
        self, start: Sequence[int] | None, taps: Sequence[str], size: int, seed: int, rank: int, world: int
    ) -> Iterator[Pool]:
        """Endless pools of about ``size`` frames, whole shards in an order of each epoch's own.

        ``start`` is a pool's state, None for the first one. Of several processes each gets every
        ``world``-th frame of the same pools.
        """
        epoch, first = start or (0, 0)
        while True:
            order = np.random.default_rng([seed, epoch]).permutation(len(self.train))
            groups = _groups([self.train[i] for i in order], size)
            for number in range(first, len(groups)):
                parts = [self._read(shard, taps) for shard in groups[number]]
                order = shuffled(sum(shard.frames for shard in groups[number]), [seed, epoch, number])
                mine = order[rank::world]
                frames = {tap: torch.cat([part[tap] for part in parts])[mine] for tap in taps}
                yield Pool(frames, [epoch, number])
            epoch, first = epoch + 1, 0

    def held_back_frames(self, tap: str) -> Iterator[Tensor]:
        """Frames [N, d] of the recordings held back, a shard at a time."""
        for shard in self.held_back:
            yield self._read(shard, [tap])[tap]

    def _read(self, shard: Shard, taps: Sequence[str]) -> dict[str, Tensor]:
        try:
            with safe_open(self.path / shard.name, "pt") as file:
                return {tap: file.get_tensor(tap) for tap in taps}
        except (OSError, SafetensorError):
            raise CalibrationError(
                f"{self.path / shard.name} is missing or damaged; delete {INDEX} beside it and run again"
            ) from None


def build_store(
    encoder: FrameEncoder,
    clips: Sequence[Clip],
    out: Path,
    stream: StreamConfig | None = None,
    recipe: FrameRecipe | None = None,
) -> FrameStore:
    """Encode one epoch of ``clips`` and keep the frames. Called again, it goes on where it stopped.

    One recording in sixteen is held back, unmixed and unweighted, to measure quality on. CalibrationError
    if no file can be read or activations don't fit the recipe's dtype.
    """
    config, recipe = stream or StreamConfig(), recipe or FrameRecipe()
    key = source_key(encoder, clips, config, recipe)
    with suppress(CalibrationError):  # none yet, or a damaged index, which is made again
        if (store := FrameStore.open(out)).key == key and store.is_whole:
            return store
    out.mkdir(parents=True, exist_ok=True)
    train, held = hold_back(clips)
    writer = _Writer(encoder, out, key, recipe, config.seed)
    shards = writer.write("train", WindowStream(train, config))
    if not shards:
        raise CalibrationError("none of the audio files could be read")
    held_shards = writer.write("held", WindowStream(held, StreamConfig(seed=config.seed))) if held else ()
    with safe_open(out / shards[0].name, "pt") as file:
        taps = {tap: int(file.get_slice(tap).get_shape()[1]) for tap in encoder.taps}
    names = encoder.model, encoder.fingerprint
    store = FrameStore(out, *names, key, taps, shards, held_shards, encoder.encoder_mark)
    index = {name: value for name, value in asdict(store).items() if name != "path"}
    write_text(out / INDEX, json.dumps(index, indent=1))
    return store


class _Writer(NamedTuple):
    """Writes shards of one store."""

    encoder: FrameEncoder
    out: Path
    key: str
    recipe: FrameRecipe
    seed: int

    def write(self, part: str, stream: WindowStream) -> tuple[Shard, ...]:
        """All shards of one epoch; those that are there already are kept."""
        shards: list[Shard] = []
        after = Position()
        while known := self._finished(self._path(part, len(shards))):
            shards.append(known[0])
            after = known[1]
        windows = stream.epoch(after)
        total = len(stream.order(0))
        with tqdm(total=total, initial=after.recording, desc=f"encode {part}", unit="file") as progress:
            while batch := list(islice(windows, WINDOWS_A_SHARD)):
                path, after = self._path(part, len(shards)), batch[-1].after
                shards.append(self._shard(path, batch))
                progress.update(after.recording - progress.n)
        return tuple(shards)

    def _path(self, part: str, number: int) -> Path:
        return self.out / f"{part}-{self.key[:8]}-{number:05d}.safetensors"

    def _shard(self, path: Path, batch: Sequence[AudioWindow]) -> Shard:
        frames = encode_windows(self.encoder, batch, self.recipe, self.seed)
        frames = {tap: h.cpu() for tap, h in frames.items()}
        with write_atomically(path) as temporary:
            save_file(frames, temporary, metadata={"after": json.dumps(batch[-1].after)})
        return Shard(path.name, len(next(iter(frames.values()))))

    def _finished(self, path: Path) -> tuple[Shard, Position] | None:
        try:
            with safe_open(path, "pt") as file:
                frames = int(file.get_slice(self.encoder.taps[0]).get_shape()[0])
                return Shard(path.name, frames), Position(*json.loads(file.metadata()["after"]))
        except (OSError, SafetensorError):
            return None


def _groups(shards: Sequence[Shard], size: int) -> list[list[Shard]]:
    """Neighbours, together of at least ``size`` frames; a small rest joins the last group."""
    groups: list[list[Shard]] = [[]]
    for shard in shards:
        if sum(s.frames for s in groups[-1]) >= size:
            groups.append([])
        groups[-1].append(shard)
    if len(groups) > 1 and sum(s.frames for s in groups[-1]) < size // 2:
        rest = groups.pop()
        groups[-1] += rest
    return groups
