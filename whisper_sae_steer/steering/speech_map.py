"""The speech map: which passages of a recording may hold speech, found before anything is encoded.

Silero's voice activity detector listens at a threshold that no spoken word of the development recordings
stays below, to audio made evenly loud: a quiet word behind a loud sentence is as plain to it as the sentence.
Where it is not certain the gate listens to that moment by itself, which takes a tenth of a window's time.
What lies between passages is left out; about what lies in them, the gate decides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from faster_whisper.vad import get_vad_model
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, uniform_filter1d

from ..audio.units import SAMPLE_RATE, SAMPLES_PER_ENCODER_FRAME, WINDOW_SAMPLES
from .cuts import MIN_GAP_FRAMES, with_replies, without_short_gaps

THRESHOLD = 0.2
"""Silero's probability of speech; its own default is 0.5"""
CERTAIN = 0.9
"""its probability from which on the gate isn't asked"""
FRAME_SAMPLES = 512
"""that one probability stands for"""
PAD_SAMPLES = SAMPLE_RATE
"""left around what may be speech"""
SHORT_WORD_SAMPLES = SAMPLE_RATE // 5
"""that a word takes at least"""
JOINT_SAMPLES = SAMPLE_RATE // 2
"""of digital silence between passages"""
MIN_GAP_SAMPLES = MIN_GAP_FRAMES * SAMPLES_PER_ENCODER_FRAME
"""shorter stretches without speech stay"""
LOUDNESS = 0.1
"""root mean square (−20 dBFS) that every moment is brought to"""
FAINTEST = 1e-4
"""root mean square (−80 dBFS) that is still brought there"""
LEVEL_SAMPLES, SMOOTHED_LEVELS, HELD_LEVELS = 480, 5, 67
"""length that a level is measured over; levels averaged (0.15 s); levels whose loudest counts (±1 s)"""
BLOCK_FRAMES, LEAD_FRAMES = 2000, 100
"""frames heard at a time (1 minute, 40 MB), and those before them that the detector hears first"""


HearsNobody = Callable[[NDArray[np.float32]], bool]
"""whether nobody speaks in samples [n]: the gate's, at its strictest"""


class Passage(NamedTuple):
    """A stretch of a recording that is kept, in samples from the recording's start."""

    start: int
    end: int
    onset: int
    """where the detector first hears what may be speech"""
    offset: int
    """and where it last does"""


@dataclass(frozen=True)
class Excerpt:
    """The passages of a recording one after the other, with JOINT_SAMPLES of silence between them."""

    passages: Sequence[Passage]

    def taken_from(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """Its samples [n], of those of the recording."""
        silence = np.zeros(JOINT_SAMPLES, dtype=np.float32)
        pieces = [
            piece for passage in self.passages for piece in (silence, audio[passage.start : passage.end])
        ]
        return np.concatenate([audio[:0], *pieces[1:]])

    def span(self, start: float, end: float) -> tuple[float, float]:
        """When in the recording what lies between two times of the excerpt begins and ends, in seconds.

        It lies in the passages whose speech it covers for as long as a short word takes: Whisper begins a
        segment where the one before ends, and ends it where the next begins.
        """
        covered = self._covered(start, end)
        reached = np.flatnonzero(covered >= SHORT_WORD_SAMPLES)
        if not len(reached):
            return self.word_span(start, end)
        return self._time(start, int(reached[0])), self._time(end, int(reached[-1]))

    def word_span(self, start: float, end: float) -> tuple[float, float]:
        """The same of a word, which lies in one passage: where it covers most, or else the nearest."""
        passage = int(self._covered(start, end).argmax())
        return self._time(start, passage), self._time(end, passage)

    def _covered(self, start: float, end: float) -> NDArray[np.int64]:
        """Samples of each passage's speech between two times of the excerpt; negative: how far it is away."""
        onsets, offsets = self._speech.T
        return np.minimum(offsets, round(end * SAMPLE_RATE)) - np.maximum(onsets, round(start * SAMPLE_RATE))

    def _time(self, seconds: float, number: int) -> float:
        """When in the recording a time of the excerpt is, inside the speech of the passage of this number."""
        onset, offset = self._speech[number].tolist()
        place = min(max(round(seconds * SAMPLE_RATE), onset), offset)
        return round((self.passages[number].onset + place - onset) / SAMPLE_RATE, 3)

    @cached_property
    def _speech(self) -> NDArray[np.int64]:
        """[passages, 2] samples of the excerpt at which each passage's speech begins and ends."""
        lengths = [passage.end - passage.start + JOINT_SAMPLES for passage in self.passages]
        starts = np.cumsum([0, *lengths[:-1]])
        speech = [
            (passage.onset - passage.start, passage.offset - passage.start) for passage in self.passages
        ]
        return starts[:, None] + np.array(speech)


def speech_probabilities(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Silero's probability of speech in every FRAME_SAMPLES of audio [n] at 16 kHz, made evenly loud."""
    block, lead = BLOCK_FRAMES * FRAME_SAMPLES, LEAD_FRAMES * FRAME_SAMPLES
    detector, heard = get_vad_model(), [np.zeros(0, dtype=np.float32)]
    for start in range(0, len(audio), block):
        first = max(0, start - lead)
        piece = evenly_loud(audio[first : start + block])
        probabilities = np.asarray(detector(np.pad(piece, (0, -len(piece) % FRAME_SAMPLES)))).reshape(-1)
        heard.append(probabilities[(start - first) // FRAME_SAMPLES :])
    return np.concatenate(heard)


def last_voice(audio: NDArray[np.float32]) -> int:
    """The sample of audio [n] at 16 kHz up to which something could be speech; 0 if nothing could."""
    heard = np.flatnonzero(speech_probabilities(audio) >= THRESHOLD)
    return min(FRAME_SAMPLES * (int(heard[-1]) + 1), len(audio)) if len(heard) else 0


def evenly_loud(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Audio [n] whose level over 0.15 s, the loudest within a second, is the same everywhere."""
    blocks = np.pad(audio, (0, -len(audio) % LEVEL_SAMPLES)).reshape(-1, LEVEL_SAMPLES)
    power = uniform_filter1d(np.square(blocks).mean(1), SMOOTHED_LEVELS)
    level = np.sqrt(np.maximum(maximum_filter1d(power, HELD_LEVELS), FAINTEST**2))
    gain = (LOUDNESS / level).astype(np.float32)
    return np.clip(blocks * gain[:, None], -1, 1).reshape(-1)[: len(audio)]


def find_passages(audio: NDArray[np.float32], hears_nobody: HearsNobody = lambda _: False) -> list[Passage]:
    """The passages of audio [n] at 16 kHz that may hold speech; what is between them takes 1 s or more.

    A beginning or an end without speech, if it is shorter, stays too.
    """
    spans = [
        (onset // SAMPLES_PER_ENCODER_FRAME, offset // SAMPLES_PER_ENCODER_FRAME)
        for onset, offset in _moments(audio, hears_nobody)
    ]
    spoken = with_replies(without_short_gaps(spans), len(audio) // SAMPLES_PER_ENCODER_FRAME + 1)

    def kept(onset: int, offset: int) -> Passage:
        begins, ends = onset < MIN_GAP_SAMPLES, len(audio) - offset < MIN_GAP_SAMPLES
        return Passage(
            0 if begins else onset - PAD_SAMPLES,
            len(audio) if ends else offset + PAD_SAMPLES,
            0 if begins else onset,
            len(audio) if ends else offset,
        )

    return [kept(*(frame * SAMPLES_PER_ENCODER_FRAME for frame in span)) for span in spoken]


def _moments(audio: NDArray[np.float32], hears_nobody: HearsNobody) -> list[tuple[int, int]]:
    """Stretches of audio [n], in samples, that may hold speech, PAD_SAMPLES or more from each other.

    The detector hears something in them; where it isn't certain, so does the gate.
    """
    probabilities = speech_probabilities(audio)
    frames = np.flatnonzero(probabilities >= THRESHOLD)
    apart = np.flatnonzero(np.diff(frames) * FRAME_SAMPLES > 2 * PAD_SAMPLES) + 1
    kept: list[tuple[int, int]] = []
    for together in np.split(frames, apart) if len(frames) else []:
        onset, offset = int(together[0]) * FRAME_SAMPLES, (int(together[-1]) + 1) * FRAME_SAMPLES
        around = slice(max(0, onset - PAD_SAMPLES), offset + PAD_SAMPLES)
        if probabilities[together].max() >= CERTAIN or not hears_nobody(audio[around]):
            kept.append((onset, offset))
    return kept


def find_excerpt(audio: NDArray[np.float32], hears_nobody: HearsNobody = lambda _: False) -> Excerpt | None:
    """The passages of audio [n] that may hold speech; it may be none of it.

    ``hears_nobody`` tells of a moment's samples whether the gate is sure that nobody speaks. None if the
    passages are all of the audio, or if it is one that a window holds as it is: nothing would be saved.
    """
    passages = find_passages(audio, hears_nobody)
    if sum(passage.end - passage.start for passage in passages) == len(audio):
        return None
    if len(passages) == 1 and len(audio) <= WINDOW_SAMPLES:
        return None
    return Excerpt(passages)
