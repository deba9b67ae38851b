"""The conditions by name, and the recordings that are to be made of each."""

import zlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from ...audio import synthetic
from ...audio.clips import Clip
from ...audio.units import SAMPLE_RATE
from .dialogues import DIALOGUES, dialogue
from .effects import EFFECTS, Effect
from .material import HardRecording, Material, lacking, load

SHORT_WORDS = 4
"""The longest transcript of the condition `short`."""
REPEATS = {"twice": 2, "thrice": 3}
"""How often an utterance of at most REPEATED_WORDS is said, with a pause of REPEAT_PAUSE_SECONDS between."""
REPEATED_WORDS = 2
REPEAT_PAUSE_SECONDS = (0.05, 0.3)
SOUNDS = {"silence": "silence", "dc": "dc", "hum": "hum", "white-noise": "white"}
"""Conditions without speech: the kind of synthetic sound of each."""
CONDITIONS = (*EFFECTS, *REPEATS, *DIALOGUES, *SOUNDS)


class Job(NamedTuple):
    """A recording to be made."""

    condition: str
    kind: str
    name: str
    make: Callable[[], HardRecording]


def jobs(condition: str, given: Material, count: int) -> list[Job]:
    """The first `count` recordings of one of CONDITIONS, fewer where utterances run out.

    Raises ManifestError if there is no utterance for it; making a recording raises it too, if there
    is no noise, music or not enough speakers.
    """
    if condition in SOUNDS:
        make = partial(_sound, SOUNDS[condition], given.seed)
        return [Job(condition, "nonspeech", f"{i:04d}", partial(make, i)) for i in range(count)]
    utterances = given.speech
    if condition == "short" or condition in REPEATS:
        most = REPEATED_WORDS if condition in REPEATS else SHORT_WORDS
        utterances = sorted((clip for clip in utterances if _words(clip) <= most), key=_words)
    if not utterances:
        raise lacking(condition, "fitting speech with transcripts")
    if condition in DIALOGUES:
        make = partial(dialogue, DIALOGUES[condition], given)
        count = min(count, DIALOGUES[condition].most)
        return [Job(condition, "speech", f"{i:04d}", partial(make, i)) for i in range(count)]
    if condition in REPEATS:
        make = partial(_repeated, REPEATS[condition], given)
    else:
        make = partial(_utterance, EFFECTS[condition], given)
    return [
        Job(condition, "speech", f"{i:04d}-{clip.path.stem}", partial(make, clip))
        for i, clip in enumerate(utterances[:count])
    ]


def _utterance(effect: Effect, given: Material, clip: Clip) -> HardRecording:
    audio, used = effect(load(clip), clip, given, given.rng(clip.key))
    return HardRecording(audio, (clip,), used)


def _repeated(times: int, given: Material, clip: Clip) -> HardRecording:
    pause = round(given.rng("repeat", clip.key).uniform(*REPEAT_PAUSE_SECONDS) * SAMPLE_RATE)
    once = np.concatenate([load(clip), np.zeros(pause, np.float32)])
    return HardRecording(np.tile(once, times)[: len(once) * times - pause], (clip,) * times)


def _sound(kind: str, seed: int, index: int) -> HardRecording:
    # other seeds than calibration's, or these would be the sounds that it was made with
    return HardRecording(synthetic.clip(kind, index, zlib.crc32(b"hard %d" % seed), (1, 60)).audio)


def _words(clip: Clip) -> int:
    return len(clip.text.split())
