"""What analyses read: recordings encoded once, with frames of every tap, log-mel and SAE features on disk.

A store is one folder: ``index.json``, ``frames/part-NNNNN.safetensors`` with the log-mel and one tensor
[N, d] a tap, and ``features/NAME/`` with a copy of each SAE and its features as a sparse matrix. Row i of
all of them is the same 20 ms of audio. Padding is left out.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file
from scipy.sparse import csr_matrix

from ...audio.units import ENCODER_FRAME_SECONDS
from ...errors import AnalysisError
from ...sae.autoencoder import SAE
from ...sae.formats import load_sae

INDEX, PARTS, FEATURES, MATRIX = "index.json", "frames", "features", "features.safetensors"


class Window(NamedTuple):
    """At most 30 s of one recording, and where its frames lie in the store."""

    clip: str
    """the recording's key"""
    path: str
    """its audio file"""
    start: float
    """seconds into the recording"""
    domain: str
    """speech, music or sound"""
    label: str
    """class of the manifest, or the folder's name"""
    source: str
    group: str
    """recording or speaker: split by it"""
    language: str
    text: str
    """transcript of the whole recording, or empty"""
    first: int
    """row of the first frame"""
    frames: int
    """rows, 20 ms each"""

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + self.frames)


class FramesFile(NamedTuple):
    """One file of frames."""

    name: str
    frames: int


@dataclass(frozen=True)
class ActivationStore:
    """Activations of one model on some recordings."""

    path: Path
    model: str
    fingerprint: str
    """of the model's weights"""
    key: str
    """hash of weights, taps and recordings"""
    taps: dict[str, int]
    """tap: width"""
    windows: tuple[Window, ...]
    parts: tuple[FramesFile, ...]

    @staticmethod
    def open(path: str | Path) -> "ActivationStore":
        """Read a finished store. AnalysisError if there is none."""
        path = Path(path)
        try:
            index = json.loads((path / INDEX).read_text(encoding="utf-8"))
            windows = tuple(Window(*window) for window in index.pop("windows"))
            parts = tuple(FramesFile(*part) for part in index.pop("parts"))
            return ActivationStore(path=path, windows=windows, parts=parts, **index)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise AnalysisError(
                f"{path} holds no finished activations; make them with `whisper-sae-steer analyze encode`"
            ) from None

    @property
    def rows(self) -> int:
        """Frames in all."""
        return sum(part.frames for part in self.parts)

    @property
    def seconds(self) -> float:
        return self.rows * ENCODER_FRAME_SECONDS

    @property
    def saes(self) -> tuple[str, ...]:
        """Names of the SAEs whose features are stored."""
        return tuple(sorted(file.parent.name for file in self.path.glob(f"{FEATURES}/*/{MATRIX}")))

    def frames(self, tap: str) -> NDArray[np.float16]:
        """Activations at a tap: [rows, d] float16. AnalysisError for a tap that was not stored."""
        if tap not in self.taps:
            raise AnalysisError(f"{self.path} has no frames of {tap}; it has {', '.join(self.taps)}")
        return self._read(tap)

    def mel(self) -> NDArray[np.float16]:
        """Whisper's log-mel, the mean of the two mel frames of each row: [rows, 80] float16, 1 = 40 dB."""
        return self._read("mel")

    def choose(self, sae: str | None = None) -> str:
        """The SAE of that name, by default the only one. AnalysisError if that isn't one."""
        if sae is None and len(self.saes) == 1:
            return self.saes[0]
        if sae not in self.saes:
            known = ", ".join(self.saes) or "none; add one with `whisper-sae-steer analyze encode --sae`"
            raise AnalysisError(
                f"{self.path}: " + (f"no SAE {sae!r}" if sae else "choose an SAE") + f"; it has {known}"
            )
        return sae

    def sae(self, name: str | None = None) -> SAE:
        """A stored SAE."""
        return load_sae(self.path / FEATURES / self.choose(name))

    def features(self, sae: str | None = None) -> csr_matrix:
        """Its features on all frames: [rows, d_sae] float32, sparse."""
        file = self.path / FEATURES / self.choose(sae) / MATRIX
        try:
            parts = load_file(file)
            shape = (self.rows, int(parts["width"][0]))
            return csr_matrix((parts["data"], parts["indices"], parts["indptr"]), shape=shape)
        except (OSError, SafetensorError, LookupError, ValueError):
            raise AnalysisError(f"{file} is damaged; remove it and encode again") from None

    def labels(self, of: Callable[[Window], str]) -> NDArray[np.str_]:
        """A text for each frame, made of its window: [rows]."""
        return np.repeat([of(window) for window in self.windows], [w.frames for w in self.windows])

    def window_numbers(self) -> NDArray[np.intp]:
        """For each frame the number of its window: [rows]."""
        return np.repeat(np.arange(len(self.windows)), [window.frames for window in self.windows])

    def _read(self, tensor: str) -> NDArray[np.float16]:
        arrays: list[NDArray[np.float16]] = []
        for part in self.parts:
            try:
                with safe_open(self.path / PARTS / part.name, "numpy") as file:
                    arrays.append(file.get_tensor(tensor))
            except (OSError, SafetensorError):
                where = self.path / PARTS / part.name
                raise AnalysisError(
                    f"{where} is missing or damaged; remove {INDEX} and encode again"
                ) from None
        return np.concatenate(arrays)


def open_sae(source: str) -> tuple[ActivationStore, str]:
    """``STORE`` or ``STORE:SAE`` → the store and the SAE's name, by default its only one.

    AnalysisError if there is no such store or SAE, or several SAEs to choose from.
    """
    path, colon, name = source.rpartition(":")
    if not colon or Path(source).is_dir():
        path, name = source, ""
    store = ActivationStore.open(path)
    return store, store.choose(name or None)


def order_of_tap(tap: str) -> tuple[float, str]:
    """Sorts taps as the encoder runs: ``block.0`` … ``block.N``, ``encoder_output``."""
    number = tap.removeprefix("block.")
    return (int(number) if number.isdigit() else float("inf")), tap
