"""Recordings as a stream of windows: shuffled, weighted by domain, noise mixed in, resumable anywhere.

Every random choice depends only on the seed and a position, never on what was drawn before, so the
stream can be taken up at any window without decoding the ones before it.
"""

import math
import zlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..audio.clips import KIND_WORDS, Clip, spread
from ..audio.mixing import mix
from ..audio.reading import audio_seconds, load_audio
from ..audio.units import SAMPLE_RATE, WINDOW_SAMPLES
from ..errors import AudioError, ConfigError, ManifestError

DOMAINS = {kind: word for word, kind in KIND_WORDS.items()}
"""a clip's kind → what the literature on audio SAEs calls its domain: speech, music or sound"""
SHORTEST_FILL_SAMPLES = 5 * SAMPLE_RATE
HELD_BACK_EVERY = 16
"""one recording or speaker in sixteen, of each domain, is held back to measure quality on"""


@dataclass(frozen=True)
class StreamConfig:
    """What a stream of windows is made of."""

    speech: float = 1.0
    """how often a speech recording comes in an epoch; 2.5 is twice or three times, 0 never"""
    music: float = 1.0
    """as ``speech``, for music"""
    sound: float = 1.0
    """as ``speech``, for all other audio without speech"""
    noise_share: float = 0.0
    """share of the speech that has another recording's sound or music mixed in"""
    snr_low: float = 0.0
    """lowest signal-to-noise ratio of such mixtures, dB"""
    snr_high: float = 20.0
    """highest, dB"""
    audio_share: float = 1.0
    """share of each domain's recordings that is trained on, of all sources and classes alike"""
    seed: int = 0
    """of the order, the mixtures and how windows are filled"""

    def __post_init__(self):
        if min(self.speech, self.music, self.sound) < 0 or not 0 <= self.noise_share <= 1:
            raise ConfigError("domain weights must be at least 0, and the share of noise from 0 to 1")
        if self.snr_low > self.snr_high:
            raise ConfigError(f"the lowest SNR, {self.snr_low} dB, is above the highest, {self.snr_high}")
        if not 0 < self.audio_share <= 1:
            raise ConfigError(f"audio_share must be above 0 and at most 1, not {self.audio_share}")


class Position(NamedTuple):
    """Where a stream goes on: the window's number, and the recording and sample that open it."""

    epoch: int = 0
    window: int = 0
    recording: int = 0
    sample: int = 0


class AudioWindow(NamedTuple):
    """Up to 30 s of audio."""

    audio: NDArray[np.float32]
    """[n] at 16 kHz, n ≤ 480,000"""
    after: Position
    """where the next window of the epoch starts"""


def hold_back(clips: Sequence[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Clips to train on and clips held back, split by recording or speaker within each domain."""
    held: set[tuple[str, str]] = set()
    for kind in DOMAINS:
        groups = sorted({c.group for c in clips if c.kind == kind}, key=lambda g: zlib.crc32(g.encode()))
        if len(groups) > 1:
            held |= {(kind, group) for group in groups[: max(1, len(groups) // HELD_BACK_EVERY)]}
    return (
        [clip for clip in clips if (clip.kind, clip.group) not in held],
        [clip for clip in clips if (clip.kind, clip.group) in held],
    )


def part_of(clips: Sequence[Clip], share: float) -> list[Clip]:
    """A share of each domain's recordings, at least one; a smaller share's are among a larger one's."""
    kept: set[Path] = set()
    for kind in DOMAINS:
        domain = spread([clip for clip in clips if clip.kind == kind])
        kept |= {clip.path for clip in domain[: math.ceil(share * len(domain))]}
    return [clip for clip in clips if clip.path in kept]


class WindowStream:
    """Windows of at most 30 s from clips, epoch after epoch in another order.

    Short recordings share a window up to a random fill of 5 to 30 s, so that frames before padding are
    seen as well as full windows; long ones are cut. Files that can't be read are skipped with a line.
    ManifestError if the weights leave nothing.
    """

    def __init__(self, clips: Sequence[Clip], config: StreamConfig):
        self.clips = part_of(clips, config.audio_share)
        self.config = config
        self._noises = [clip.path for clip in self.clips if clip.kind != "speech"]
        if not any(self._weight(clip) for clip in self.clips):
            raise ManifestError("no audio to stream: no clip is of a domain with a weight above 0")
        if config.noise_share and not self._noises:
            raise ManifestError("no sound or music to mix into the speech; add some, or set noise_share to 0")

    def order(self, epoch: int) -> list[Clip]:
        """The recordings of an epoch, shuffled, each as often as its domain's weight says."""
        rng = np.random.default_rng([self.config.seed, epoch])
        weights = np.array([self._weight(clip) for clip in self.clips])
        times = np.floor(weights + rng.random(len(weights))).astype(int)  # on average the weight
        return [self.clips[i] for i in rng.permutation(np.repeat(np.arange(len(weights)), times))]

    def epoch(self, start: Position) -> Iterator[AudioWindow]:
        """The windows from a position to the end of its epoch."""
        recordings = self.order(start.epoch)
        number, parts, fill = start.window, list[NDArray[np.float32]](), self._fill(start)
        for place, audio in self._chunks(recordings, start):
            if parts and sum(map(len, parts)) + len(audio) > fill:
                number += 1
                after = Position(start.epoch, number, *place)
                yield AudioWindow(np.concatenate(parts), after)
                parts, fill = [], self._fill(after)
            parts.append(audio)
        if parts:
            yield AudioWindow(np.concatenate(parts), Position(start.epoch, number + 1, len(recordings)))

    def endless(self, start: Position) -> Generator[AudioWindow]:
        """The windows from a position on, through all epochs. ManifestError if an epoch has none."""
        while True:
            found = False
            for window in self.epoch(start):
                found = True
                yield window
            if not found and start.window == 0:
                raise ManifestError("none of the audio files could be read")
            start = Position(start.epoch + 1)

    def expected_windows(self) -> int:
        """How many windows the first epoch has, by the lengths that manifests or headers tell."""
        count, filled, fill = 0, 0, self._fill(Position())
        for clip in self.order(0):
            seconds = audio_seconds(clip.path) if clip.seconds is None else clip.seconds
            left = round(seconds * SAMPLE_RATE)
            while left > 0:
                piece = min(left, WINDOW_SAMPLES)
                if filled and filled + piece > fill:
                    count, filled = count + 1, 0
                    fill = self._fill(Position(0, count))
                filled, left = filled + piece, left - piece
        return count + bool(filled)

    def _weight(self, clip: Clip) -> float:
        return getattr(self.config, DOMAINS[clip.kind])

    def _fill(self, at: Position) -> int:
        rng = np.random.default_rng([self.config.seed, at.epoch, at.window])
        return int(rng.integers(SHORTEST_FILL_SAMPLES, WINDOW_SAMPLES))

    def _chunks(
        self, recordings: Sequence[Clip], start: Position
    ) -> Iterator[tuple[tuple[int, int], NDArray[np.float32]]]:
        """Pieces of at most a window, each with its recording's number and first sample."""
        for number in range(start.recording, len(recordings)):
            clip = recordings[number]
            try:
                audio = load_audio(clip.path)
            except AudioError as error:
                tqdm.write(f"skipped: {error}")
                continue
            first = start.sample if number == start.recording else 0
            for sample in range(first, len(audio), WINDOW_SAMPLES):
                piece = audio[sample : sample + WINDOW_SAMPLES]
                rng = np.random.default_rng([self.config.seed, start.epoch, number, sample])
                if clip.kind == "speech" and rng.random() < self.config.noise_share:
                    piece = self._noisy(piece, rng)
                yield (number, sample), piece

    def _noisy(self, speech: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        try:
            noise = _loaded(self._noises[rng.integers(len(self._noises))])
        except AudioError:
            return speech
        snr = rng.uniform(self.config.snr_low, self.config.snr_high)
        return mix(speech, np.roll(noise, rng.integers(len(noise))), snr)


@lru_cache(maxsize=16)
def _loaded(path: Path) -> NDArray[np.float32]:
    return load_audio(path)
