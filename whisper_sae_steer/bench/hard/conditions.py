"""The conditions by name, and the recordings that are to be made of each."""

import zlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ...audio import synthetic
from ...audio.clips import Clip
from .dialogues import DIALOGUES, dialogue
from .effects import EFFECTS, Effect
from .material import HardRecording, Material, lacking, load

SHORT_WORDS = 4
"""The longest transcript of the condition `short`."""
SOUNDS = {"silence": "silence", "dc": "dc", "hum": "hum", "white-noise": "white"}
"""Conditions without speech: the kind of synthetic sound of each."""
CONDITIONS = (*EFFECTS, *DIALOGUES, *SOUNDS)


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
    if condition == "short":
        utterances = sorted((clip for clip in utterances if _words(clip) <= SHORT_WORDS), key=_words)
    if not utterances:
        raise lacking(condition, "fitting speech with transcripts")
    if condition in DIALOGUES:
        make = partial(dialogue, DIALOGUES[condition], given)
        count = min(count, DIALOGUES[condition].most)
        return [Job(condition, "speech", f"{i:04d}", partial(make, i)) for i in range(count)]
    make = partial(_utterance, EFFECTS[condition], given)
    return [
        Job(condition, "speech", f"{i:04d}-{clip.path.stem}", partial(make, clip))
        for i, clip in enumerate(utterances[:count])
    ]


def _utterance(effect: Effect, given: Material, clip: Clip) -> HardRecording:
    audio, used = effect(load(clip), clip, given, given.rng(clip.key))
    return HardRecording(audio, (clip,), used)


def _sound(kind: str, seed: int, index: int) -> HardRecording:
    # other seeds than calibration's, or these would be the sounds that it was made with
    return HardRecording(synthetic.clip(kind, index, zlib.crc32(b"hard %d" % seed), (1, 60)).audio)


def _words(clip: Clip) -> int:
    return len(clip.text.split())
