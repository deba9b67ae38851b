"""The conditions by name, and the recordings that are to be made of each."""

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from ...audio import synthetic
from ...audio.clips import Clip
from ...audio.units import SAMPLE_RATE
from .dialogues import DIALOGUES, dialogue
from .effects import EFFECTS, Effect
from .material import HardRecording, Material, distinct_first, lacking, load, sentences, words
from .scenes import SCENES, Scene, replies

SHORT_WORDS = 4
"""The longest transcript of the condition `short`."""
REPEATS = {"twice": 2, "thrice": 3}
"""How often an utterance of at most REPEATED_WORDS is said, with a pause of REPEAT_PAUSE_SECONDS between."""
REPEATED_WORDS = 2
REPEAT_PAUSE_SECONDS = (0.05, 0.3)
SOUNDS = {"silence": "silence", "dc": "dc", "hum": "hum", "white-noise": "white"}
"""Conditions without speech: the kind of synthetic sound of each."""
CONDITIONS = (*EFFECTS, *REPEATS, *DIALOGUES, *SCENES, *SOUNDS)


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
    utterances = _fitting(condition, given.speech)
    if not utterances:
        raise lacking(condition, "fitting speech with transcripts")
    if condition in DIALOGUES:
        make = partial(dialogue, DIALOGUES[condition], given)
        count = min(count, DIALOGUES[condition].most)
        return [Job(condition, "speech", f"{i:04d}", partial(make, i)) for i in range(count)]
    if condition in SCENES:
        turns = SCENES[condition]
        makes = [partial(_scene, turns[i % len(turns)], given) for i in range(count)]
    elif condition in REPEATS:
        makes = [partial(_repeated, REPEATS[condition], given)] * count
    else:
        makes = [partial(_utterance, EFFECTS[condition], given)] * count
    return [
        Job(condition, "speech", f"{i:04d}-{clip.path.stem}", partial(make, clip))
        for i, (clip, make) in enumerate(zip(utterances, makes, strict=False))
    ]


def _fitting(condition: str, speech: Sequence[Clip]) -> Sequence[Clip]:
    """The utterances that a condition is made from, in the order they are used."""
    if condition == "short" or condition in REPEATS:
        most = REPEATED_WORDS if condition in REPEATS else SHORT_WORDS
        return sorted((clip for clip in speech if words(clip) <= most), key=words)
    if condition == "single":
        return distinct_first([clip for clip in speech if words(clip) == 1])
    if condition in SCENES:
        return distinct_first(replies(speech) if condition == "reply" else speech)
    if condition in DIALOGUES and DIALOGUES[condition].sentences:
        return sentences(speech)
    return speech


def _utterance(effect: Effect, given: Material, clip: Clip) -> HardRecording:
    audio, used = effect(load(clip), clip, given, given.rng(clip.key))
    return HardRecording(audio, ((clip,),), used)


def _repeated(times: int, given: Material, clip: Clip) -> HardRecording:
    pause = round(given.rng("repeat", clip.key).uniform(*REPEAT_PAUSE_SECONDS) * SAMPLE_RATE)
    once = np.concatenate([load(clip), np.zeros(pause, np.float32)])
    return HardRecording(np.tile(once, times)[: len(once) * times - pause], ((clip,) * times,))


def _scene(scene: Scene, given: Material, clip: Clip) -> HardRecording:
    return scene(clip, given, given.rng(scene.__name__, clip.key))


def _sound(kind: str, seed: int, index: int) -> HardRecording:
    # other seeds than calibration's, or these would be the sounds that it was made with
    return HardRecording(synthetic.clip(kind, index, zlib.crc32(b"hard %d" % seed), (1, 60)).audio)
