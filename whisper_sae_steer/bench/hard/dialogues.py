"""Several utterances in one recording, with gaps before, between and after them."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np

from ...audio.clips import Clip
from ...audio.units import SAMPLE_RATE
from .material import FRAME, Audio, HardRecording, Material, Mixture, background, load, rms, trimmed

GAP_SECONDS = (1.0, 60.0)
GAP_DB = (-30.0, -5.0)
"""Level of the sound in a gap, relative to the speech of the recording."""


class Dialogue(NamedTuple):
    """Utterances with gaps: between `shortest` and `longest` seconds, and how many at most are made."""

    shortest: float
    longest: float
    most: int
    silent: bool = False


def dialogue(case: Dialogue, given: Material, number: int) -> HardRecording:
    """Gap, utterance, gap, …, gap, until it is as long as drawn; lengths of gaps are log-uniform."""
    rng = given.rng("dialogue", case.longest, number)
    target = rng.uniform(case.shortest, case.longest) * SAMPLE_RATE
    pool = _speakers(given.speech, case.longest / 20, rng)
    order = cycle(rng.permutation(len(pool)).tolist())
    pauses, clips, voices = [_pause(rng)], list[Clip](), list[Audio]()
    while sum(pauses) + sum(map(len, voices)) < target:
        clips.append(pool[next(order)])
        voices.append(trimmed(load(clips[-1])))
        pauses.append(_pause(rng))
    loudness = rms(np.concatenate(voices))
    sounds = [_gap(samples, loudness, given, rng, case.silent) for samples in pauses]
    parts: list[Audio] = []
    gaps: list[tuple[float, float]] = []
    at = 0
    for (sound, _), voice in zip(sounds, [*voices, np.zeros(0, np.float32)], strict=True):
        parts += [sound, voice]
        gaps.append((at / SAMPLE_RATE, (at + len(sound)) / SAMPLE_RATE))
        at += len(sound) + len(voice)
    # a bark too loud for the recording is cut off, as a recorder does: speech keeps its level
    audio = np.clip(np.concatenate(parts), -1, 1)
    used = tuple(clip for _, some in sounds for clip in some)
    return HardRecording(audio, tuple(clips), used, tuple(gaps))


def _speakers(speech: Sequence[Clip], enough: float, rng: np.random.Generator) -> list[Clip]:
    """Utterances of one language; half the time of one speaker, if any has `enough` utterances."""
    language = speech[int(rng.integers(len(speech)))].language
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in speech:
        if clip.language == language:
            groups[clip.group].append(clip)
    talkative = [clips for clips in groups.values() if len(clips) >= enough]
    if talkative and rng.random() < 0.5:
        return talkative[int(rng.integers(len(talkative)))]
    return [clip for clips in groups.values() for clip in clips]


def _pause(rng: np.random.Generator) -> int:
    """Samples of a gap, whole frames: so are utterances, and times come out exact."""
    low, high = np.log(GAP_SECONDS)
    return round(np.exp(rng.uniform(low, high)) * SAMPLE_RATE / FRAME) * FRAME


def _gap(samples: int, loudness: float, given: Material, rng: np.random.Generator, silent: bool) -> Mixture:
    """Real sound for a gap, faded in and out over 10 ms so that its edges don't click; or silence."""
    if silent:
        return np.zeros(samples, np.float32), ()
    noise, clips = background(given.nonspeech, samples, rng, "non-speech")
    level = loudness * 10 ** (rng.uniform(*GAP_DB) / 20)
    ramp = np.minimum(1, np.minimum(np.arange(samples), np.arange(samples)[::-1]) / (FRAME / 2))
    return (noise * ramp * (level / rms(noise))).astype(np.float32), clips


DIALOGUES = {
    "gaps": Dialogue(120, 240, 20),
    "silent-gaps": Dialogue(120, 240, 20, silent=True),
    "long": Dialogue(1740, 1800, 2),
}
