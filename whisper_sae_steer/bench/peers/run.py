"""Running the peers: the same clips through each, rows in OUT/<peer>/clips.jsonl."""

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import ctranslate2
import faster_whisper
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from whisper.timing import dtw

from ... import faster, openai
from ...audio.clips import Clip
from ...audio.units import SAMPLE_RATE
from ...files import write_atomically
from ...models.convert import load_torch
from ...models.weights import resolve
from .. import runner
from ..backends import Backend, FasterBackend, OpenAIBackend
from ..runner import Row
from .catalogue import OURS, Peer
from .filters import FILTERS

PIECE_SECONDS = 30
WITH_RAW = ("faster", OURS)
"""peers whose greedy first windows the histograms show"""


class Backends(Protocol):
    """Where peers get their back ends."""

    def backend(self, peer: Peer) -> Backend:
        """The back end of a peer that has no filter."""
        ...


class Models:
    """Loads models of one name, each once as long as peers in a row need the same.

    Peers without a pack get the classes of faster-whisper and openai-whisper themselves.
    """

    def __init__(
        self,
        name: str,
        compute_type: str = "default",
        device: str = "auto",
        threads: int = 0,
        pack: str = "auto",
        packs: Path | None = None,
    ) -> None:
        self.name = name
        self._compute_type = compute_type
        self._device = device
        self._threads = threads
        self._packs = {OURS: pack}
        self._folder = packs
        self._weights = resolve(name)
        self._loaded: tuple[tuple[str, str | None], Any] | None = None
        # fallback temperatures sample: CTranslate2 takes its seed when a model's threads start
        ctranslate2.set_random_seed(0)
        if threads:
            torch.set_num_threads(threads)

    def backend(self, peer: Peer) -> Backend:
        """A back end that is called like the peer and transcribes with its options."""
        key = (peer.library, peer.pack)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # free it first
            self._loaded = (key, self._load(peer))
        model = self._loaded[1]
        configured = _Configured(model, _method(model, peer), peer.options)
        if peer.library == "openai":
            if peer.options.get("word_timestamps"):
                dtw(torch.rand(4, 8, device=model.device))  # compiled at its first use: not on the clock
            backend = OpenAIBackend(configured, self.name)
        else:
            given = self._compute_type != "default"
            compute_type = self._compute_type if given else model.model.compute_type
            backend = FasterBackend(configured, self.name, compute_type)
        backend.name = peer.name
        return backend

    def _load(self, peer: Peer) -> Any:
        if peer.library == "openai":
            device = None if self._device == "auto" else self._device
            if peer.pack is not None:
                return openai.load_model(self.name, device, pack=self._path(peer.pack))
            return load_torch(self._weights).to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        options: dict[str, Any] = {
            "device": self._device,
            "compute_type": self._compute_type,
            "cpu_threads": self._threads,
        }
        if peer.pack is not None:
            return faster.WhisperModel(self.name, pack=self._path(peer.pack), **options)
        return faster_whisper.WhisperModel(str(self._weights.ct2_dir), **options)

    def _path(self, pack: str) -> str | Path:
        if pack in self._packs:
            return self._packs[pack]
        assert self._folder is not None  # peers.choose asked for it
        return self._folder / f"{pack}.safetensors"


class _Configured:
    """A model whose transcribe() is another method and has other defaults."""

    def __init__(self, model: Any, method: Callable[..., Any], options: Mapping[str, Any]) -> None:
        self._model = model
        self._method = method
        self._options = options

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def transcribe(self, audio: NDArray[np.float32], **options: Any) -> Any:
        return self._method(audio, **options, **self._options)


def _method(model: Any, peer: Peer) -> Callable[..., Any]:
    if not peer.batched:
        return model.transcribe
    ours = isinstance(model, faster.WhisperModel)
    pipeline: Any = (faster if ours else faster_whisper).BatchedInferencePipeline(model)
    if peer.options.get("vad_filter", True):
        return pipeline.transcribe

    def in_pieces(audio: NDArray[np.float32], **options: Any) -> Any:
        # without VAD the pipeline asks where to cut
        seconds = len(audio) / SAMPLE_RATE
        starts = np.arange(0, seconds, PIECE_SECONDS)
        pieces = [{"start": s, "end": min(s + PIECE_SECONDS, seconds)} for s in map(float, starts)]
        return pipeline.transcribe(audio, clip_timestamps=pieces, **options)

    return in_pieces


def run(
    peers: Sequence[Peer],
    clips: Sequence[Clip],
    models: Backends,
    out: Path,
    language: str | None = None,
    progress: bool = True,
    with_raw: Collection[str] = WITH_RAW,
) -> None:
    """Transcribe all clips with each peer; what `out` holds already is skipped, see `runner.run`.

    Peers with a filter are not run: :func:`collect` derives their rows. Those named in `with_raw` also get
    a greedy first window.
    """
    for number, peer in enumerate(peers, 1):
        if peer.filter is None:
            if progress:
                tqdm.write(f"{number}/{len(peers)} {peer.name}")
            raw = peer.name in with_raw
            folder = out / peer.name
            runner.run(models.backend(peer), clips, [peer.alpha], folder, raw, language, progress)


def collect(peers: Sequence[Peer], clips: Sequence[Clip], out: Path) -> dict[str, list[Row]]:
    """The rows of these clips by peer, filtered ones included; peers without any are left out."""
    keys = {clip.key for clip in clips}
    rows: dict[str, list[Row]] = {}
    for peer in peers:
        path = out / peer.name / "clips.jsonl"
        if peer.filter is not None:
            found = [_filtered(row, peer) for row in rows.get(peer.baseline, [])]
            _write(path, found)
        else:
            found = runner.read_rows(path) if path.exists() else []
        found = [row for row in found if row["path"] in keys and row["alpha"] == peer.alpha]
        if any(row["error"] is None for row in found):
            rows[peer.name] = found
    return rows


def _filtered(row: Row, peer: Peer) -> Row:
    """The row of a filter: the same transcript, and the filter's time on top."""
    assert peer.filter is not None
    if row["error"] is not None:
        return {**row, "backend": peer.name}
    started = time.perf_counter()
    segments = FILTERS[peer.filter](row["segments"])
    wall = (row["wall"] or 0) + time.perf_counter() - started
    text = "".join(segment["text"] for segment in segments)
    return {**row, "backend": peer.name, "segments": segments, "text": text, "wall": round(wall, 4)}


def _write(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as part:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        part.write_text("".join(lines), encoding="utf-8")
