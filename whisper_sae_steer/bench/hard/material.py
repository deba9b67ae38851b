"""What hard cases are made from and made of: clips, pieces of background, levels."""

import zlib
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import cycle
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...audio.clips import Clip, spread
from ...audio.reading import load_audio
from ...audio.units import SAMPLE_RATE
from ...errors import ManifestError

T = TypeVar("T")
Audio: TypeAlias = NDArray[np.float32]
Mixture: TypeAlias = tuple[Audio, tuple[Clip, ...]]
"""Samples, and the clips that make their background."""

HUMAN = "human-nonverbal"
"""Class of crying, sneezing and the like, which is never put under speech."""
FRAME = SAMPLE_RATE // 50
"""Samples of 20 ms."""
EDGE_DB = -40.0
"""A sound begins and ends with a 20 ms frame at this level or above, relative to the loudest."""
SENTENCE_WORDS = 4
"""An utterance of so many words or more is a sentence."""


class Material(NamedTuple):
    """What recordings are made from."""

    speech: Sequence[Clip]
    """Utterances with a transcript, in the order they are used."""
    nonspeech: Sequence[Clip]
    """Noise and music."""
    seed: int = 0

    def rng(self, *names: object) -> np.random.Generator:
        """A generator that depends on the seed and on what it is for."""
        return np.random.default_rng([self.seed, zlib.crc32(repr(names).encode())])


class HardRecording(NamedTuple):
    """One hard case: `audio` is float32 [n] mono at 16 kHz, within ±1."""

    audio: Audio
    parts: tuple[tuple[Clip, ...], ...] = ()
    """The utterances to transcribe, in order: those before, between and after the gaps. All are one
    part in a recording without gaps; there is no part in one without speech."""
    background: tuple[Clip, ...] = ()
    """Other clips that can be heard."""
    gaps: tuple[tuple[float, float], ...] = ()
    """Start and end in seconds of what lies between the parts."""

    @property
    def speech(self) -> tuple[Clip, ...]:
        """The utterances of all parts."""
        return tuple(clip for part in self.parts for clip in part)


def material(clips: Sequence[Clip], language: str | None = None, seed: int = 0) -> Material:
    """Sort clips: speech that has a transcript, in `language` if given, and all non-speech."""
    speech = [clip for clip in clips if clip.kind == "speech" and clip.text]
    speech = [clip for clip in speech if language in (None, clip.language)]
    return Material(spread(speech), [clip for clip in clips if clip.kind != "speech"], seed)


def words(clip: Clip) -> int:
    """Words of its transcript."""
    return len(clip.text.split())


def distinct_first(speech: Sequence[Clip]) -> list[Clip]:
    """The utterances, each transcript in turn: every prefix holds as many different ones as it can."""
    uses = Counter[str]()
    ranked: list[tuple[int, Clip]] = []
    for clip in speech:
        ranked.append((uses[clip.text], clip))
        uses[clip.text] += 1
    return [clip for _, clip in sorted(ranked, key=lambda item: item[0])]


def sentences(speech: Sequence[Clip]) -> list[Clip]:
    """The utterances of at least SENTENCE_WORDS words."""
    return [clip for clip in speech if words(clip) >= SENTENCE_WORDS]


def pick(pool: Sequence[T], rng: np.random.Generator) -> T:
    """One of several; where there is but one, nothing is drawn, and the generator stays as it was."""
    return pool[int(rng.integers(len(pool)))]


def background(pool: Sequence[Clip], samples: int, rng: np.random.Generator, what: str) -> Mixture:
    """`samples` of one class of sound: clips in random order, each at RMS 1, as many as it takes."""
    if not pool:
        raise lacking("with this background", what)
    classes = sorted({clip.class_ for clip in pool})
    class_ = pick(classes, rng)
    members = [clip for clip in pool if clip.class_ == class_]
    parts: list[Audio] = []
    used: list[Clip] = []
    order = cycle(rng.permutation(len(members)).tolist())
    while sum(map(len, parts)) < samples:
        used.append(members[next(order)])
        audio = trimmed(load(used[-1]))  # or a short piece may be the silence before the sound
        parts.append(audio / rms(audio))
    return np.concatenate(parts)[:samples], tuple(used)


@lru_cache(128)
def load(clip: Clip) -> Audio:
    """Samples of a clip; the last ones are remembered, because conditions share them."""
    return load_audio(clip.path)


def trimmed(audio: Audio) -> Audio:
    """A sound from its first to its last frame above EDGE_DB; whole frames."""
    frames = np.pad(audio, (0, -len(audio) % FRAME)).reshape(-1, FRAME)
    power = np.mean(frames**2, axis=1)
    (loud,) = np.nonzero(power >= power.max() * 10 ** (EDGE_DB / 10))
    return frames[loud[0] : loud[-1] + 1].ravel()


def whole_frames(seconds: float) -> int:
    """Samples of a time, rounded to whole frames."""
    return round(seconds * SAMPLE_RATE / FRAME) * FRAME


def rms(audio: Audio) -> float:
    """Root of the mean power, at least that of one step of 16 bits: silence stays silence."""
    return max(float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))), 2**-15)


def peak(audio: NDArray[np.floating]) -> float:
    """The highest absolute sample, at least one step of 16 bits."""
    return max(float(np.abs(audio).max()), 2**-15)


def lacking(condition: str, what: str) -> ManifestError:
    """What to raise when the recordings are not enough for a condition."""
    return ManifestError(
        f"condition {condition}: no {what} among the recordings; leave it out with --conditions"
    )
