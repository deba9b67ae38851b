"""Excerpts of the feature browser: which features have them, their pictures, their sound as files."""

import base64
import hashlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from tqdm import tqdm

from ...audio.reading import load_audio
from ...audio.units import ENCODER_FRAME_SECONDS, SAMPLE_RATE
from ...audio.writing import to_opus
from ...errors import AudioError
from ...files import write_atomically
from ..store.activations import ActivationStore, Window
from ..store.excerpts import Excerpt, top_excerpts

STEP = 25
"""frames; excerpts begin at multiples, so that features share them"""
BANDS = 40
"""of the pictures: every two of Whisper's mel bands are one"""
PICTURE_RANGE = 1.5
"""of log-mel, 60 dB below the loudest of an excerpt"""
MEAN_RANGE = 0.75
"""of mean log-mel, 30 dB above and below the average"""


class Piece(NamedTuple):
    """A stretch of a window that one or more features show."""

    window: Window
    first: int
    """frame of the window"""
    frames: int

    @property
    def rows(self) -> slice:
        """Of the store."""
        return slice(self.window.first + self.first, self.window.first + self.first + self.frames)

    @property
    def start(self) -> float:
        """Seconds into the recording."""
        return self.window.start + self.first * ENCODER_FRAME_SECONDS

    def name(self, key: str) -> str:
        """The same for the same audio of the store with this key, another for any other."""
        digest = hashlib.sha256(f"{key}\n{self.window.clip}\n{self.window.path}".encode()).hexdigest()
        return f"{digest[:12]}-{round(self.start / ENCODER_FRAME_SECONDS):06d}-{self.frames}"


def most_informative(
    rankings: Sequence[NDArray[np.float64]], alive: NDArray[np.intp], most: int
) -> list[int]:
    """The best features of several rankings in turn. Of each, [F] with NaN where it says nothing."""
    orders = [
        [int(f) for f in alive[np.argsort(-ranking[alive], kind="stable")] if np.isfinite(ranking[f])]
        for ranking in rankings
    ]
    chosen: dict[int, None] = {}
    for turn in range(len(alive)):
        for order in orders:
            if turn < len(order) and len(chosen) < most:
                chosen[order[turn]] = None
    return sorted(chosen)


def find_pieces(
    store: ActivationStore, features: csr_matrix, chosen: Sequence[int], count: int, seconds: float
) -> dict[int, list[Piece]]:
    """The strongest excerpts of each chosen feature, at most one of a recording or speaker."""
    windows: dict[tuple[str, str], list[Window]] = defaultdict(list)
    for window in store.windows:
        windows[window.clip, window.path].append(window)
    found = top_excerpts(features[:, list(chosen)], store.windows, count, seconds)
    return {
        feature: [_piece(excerpt, windows[excerpt.clip, excerpt.path]) for excerpt in excerpts]
        for feature, excerpts in zip(chosen, found, strict=True)
    }


def _piece(excerpt: Excerpt, windows: Sequence[Window]) -> Piece:
    window = next(
        w
        for w in windows
        if w.start <= excerpt.peak < w.start + w.frames * ENCODER_FRAME_SECONDS + ENCODER_FRAME_SECONDS / 2
    )
    frames = round(excerpt.seconds / ENCODER_FRAME_SECONDS)
    first = STEP * round((excerpt.start - window.start) / ENCODER_FRAME_SECONDS / STEP)
    return Piece(window, min(first, window.frames - frames), frames)


def write_sounds(pieces: Collection[Piece], key: str, folder: Path) -> set[str]:
    """Write each piece's sound that isn't there yet as NAME.ogg; returns the names of all that are.

    Every recording is read once. Of those that can't be read a line says so.
    """
    by_recording: dict[str, list[Piece]] = defaultdict(list)
    for piece in pieces:
        by_recording[piece.window.path].append(piece)
    written: set[str] = set()
    for path, wanted in tqdm(by_recording.items(), desc="sounds", unit="recording"):
        absent = [piece for piece in wanted if not (folder / f"{piece.name(key)}.ogg").exists()]
        written |= {piece.name(key) for piece in wanted} - {piece.name(key) for piece in absent}
        try:
            audio = load_audio(path) if absent else np.zeros(0, np.float32)
        except AudioError as error:
            tqdm.write(f"no sound for its excerpts: {error}")
            continue
        for piece in absent:
            start = round(piece.start * SAMPLE_RATE)
            samples = audio[start : start + round(piece.frames * ENCODER_FRAME_SECONDS * SAMPLE_RATE)]
            if len(samples):
                with write_atomically(folder / f"{piece.name(key)}.ogg") as temporary:
                    temporary.write_bytes(to_opus(samples))
                written.add(piece.name(key))
    return written


def picture(mel: NDArray[np.floating], floor: float) -> str:
    """Log-mel [frames, 80] as base64 of bytes [frames, 40]; the loudest is 255, what is at ``floor`` 0."""
    loudest = max(float(mel.max()), floor + PICTURE_RANGE)  # silence is not made loud
    return _bytes(1 + (_bands(mel) - loudest) / PICTURE_RANGE)


def mean_picture(difference: NDArray[np.floating]) -> str:
    """Mean log-mel [offsets, 80] relative to the average as base64 of bytes [offsets, 40]; 128 is usual."""
    return _bytes(0.5 + _bands(difference) / (2 * MEAN_RANGE))


def curve(activations: NDArray[np.floating], most: float) -> str:
    """Activations [frames] as base64 of bytes; 255 is ``most``."""
    return _bytes(activations / most)


def _bands(mel: NDArray[np.floating]) -> NDArray[np.float32]:
    return mel.astype(np.float32).reshape(len(mel), BANDS, -1).mean(-1)


def _bytes(shares: NDArray[np.floating]) -> str:
    return base64.b64encode(np.clip(np.round(255 * shares), 0, 255).astype(np.uint8).tobytes()).decode()
