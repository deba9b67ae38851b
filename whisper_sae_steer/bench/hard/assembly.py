"""Puts utterances and gaps together into one recording that knows where its gaps lie."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...audio.clips import Clip
from ...audio.units import SAMPLE_RATE
from .material import Audio, HardRecording, Mixture, load, trimmed, whole_frames


class Part(NamedTuple):
    """Utterances that follow one another without a gap; none where a recording begins or ends with a gap."""

    clips: tuple[Clip, ...] = ()
    pieces: tuple[Audio, ...] = ()
    """Utterances, and the pauses between them."""

    @property
    def samples(self) -> int:
        """Its length."""
        return sum(map(len, self.pieces))

    @property
    def audio(self) -> Audio:
        """All pieces."""
        return np.concatenate([np.zeros(0, np.float32), *self.pieces])

    def then(self, clip: Clip, pause_seconds: tuple[float, float], rng: np.random.Generator) -> "Part":
        """This part with one more utterance, after a silent pause that is drawn if it isn't the first."""
        pause = (silence(pause_seconds, rng),) if self.clips else ()
        return Part((*self.clips, clip), (*self.pieces, *pause, trimmed(load(clip))))


def silence(seconds: tuple[float, float], rng: np.random.Generator) -> Audio:
    """Zeros, as long as is drawn; whole frames, as utterances are: times of gaps come out exact."""
    return np.zeros(whole_frames(rng.uniform(*seconds)), np.float32)


def assembled(parts: Sequence[Part], fillings: Sequence[Mixture]) -> HardRecording:
    """Parts with one filled gap between each two of them.

    A sound too loud for the recording is cut off, as a recorder does: speech keeps its level.
    """
    pieces = [parts[0].audio]
    gaps: list[tuple[float, float]] = []
    for (sound, _), part in zip(fillings, parts[1:], strict=True):
        start = sum(map(len, pieces))
        gaps.append((start / SAMPLE_RATE, (start + len(sound)) / SAMPLE_RATE))
        pieces += [sound, part.audio]
    return HardRecording(
        audio=np.clip(np.concatenate(pieces), -1, 1),
        parts=tuple(part.clips for part in parts),
        background=tuple(clip for _, some in fillings for clip in some),
        gaps=tuple(gaps),
    )
