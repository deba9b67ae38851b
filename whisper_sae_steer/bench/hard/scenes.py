"""Scenes that Whisper stumbles over: a word between pauses, sounds behind, before and after an utterance."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from ...audio.clips import Clip
from .assembly import Part, assembled, silence
from .fillings import beside, filling
from .material import (
    HUMAN,
    HardRecording,
    Material,
    Mixture,
    lacking,
    load,
    pick,
    rms,
    sentences,
    trimmed,
    whole_frames,
    words,
)

REPLY_PAUSE_SECONDS = 4.0
"""Pause before and after a reply."""
REPLY_NOISE_DBFS = (None, -65.0, -55.0, -45.0)
"""Levels of the white noise under a question and its reply; None is without."""
CRIES = (HUMAN, "dog-bark", "rooster", "animals")
"""Classes of sounds for which Whisper likes to write words."""
CRY_DB = (-15.0, 0.0)
"""Level of such a sound, relative to the speech before it."""
CRY_PAUSE_SECONDS = (1.0, 10.0)
"""Pause between the speech and such a sound."""
EDGE_SECONDS = (1.0, 3.0)
"""How long sound or silence lasts before or after an utterance."""
DICTATED_SECONDS = (28.0, 29.5)
"""When the speech of a dictation ends: just before the end of Whisper's window of 30 s."""
DICTATION_SECONDS = (31.0, 32.0)
"""Length of a dictation: its second window holds one or two seconds."""
DICTATION_PAUSE_SECONDS = (0.2, 0.5)
Scene: TypeAlias = Callable[[Clip, Material, np.random.Generator], HardRecording]
"""Makes a scene around an utterance."""


def replies(speech: Sequence[Clip]) -> list[Clip]:
    """Utterances of one word, of those languages that have sentences to put around one."""
    spoken = [clip.language for clip in sentences(speech)]
    return [clip for clip in speech if words(clip) == 1 and spoken.count(clip.language) > 1]


def reply(word: Clip, given: Material, rng: np.random.Generator) -> HardRecording:
    """A sentence, a pause, the word, a pause, another sentence; white noise under all of it."""
    others = [clip for clip in sentences(given.speech) if clip.language == word.language]
    before, after = (others[place] for place in rng.choice(len(others), 2, replace=False))
    pause: Mixture = np.zeros(whole_frames(REPLY_PAUSE_SECONDS), np.float32), ()
    recording = assembled([_said(before), _said(word), _said(after)], [pause, pause])
    dbfs = pick(REPLY_NOISE_DBFS, rng)
    if dbfs is None:
        return recording
    noise = rng.standard_normal(len(recording.audio)) * 10 ** (dbfs / 20)
    return recording._replace(audio=np.clip(recording.audio + noise, -1, 1).astype(np.float32))


def sound_after_speech(clip: Clip, given: Material, rng: np.random.Generator) -> HardRecording:
    """An utterance, a silent pause, one of CRIES."""
    cries = [sound for sound in given.nonspeech if sound.class_ in CRIES]
    if not cries:
        raise lacking("sound-after-speech", f"sound of the classes {', '.join(CRIES)}")
    said, cry = _said(clip), pick(cries, rng)
    pause = silence(CRY_PAUSE_SECONDS, rng)
    sound = beside(trimmed(load(cry)), rms(said.audio), CRY_DB, rng)
    return assembled([said, Part()], [(np.concatenate([pause, sound]), (cry,))])


def head(clip: Clip, given: Material, rng: np.random.Generator) -> HardRecording:
    """Sound or silence, an utterance."""
    said = _said(clip)
    return assembled([Part(), said], [_edge(said, whole_frames(rng.uniform(*EDGE_SECONDS)), given, rng)])


def tail(clip: Clip, given: Material, rng: np.random.Generator) -> HardRecording:
    """An utterance, sound or silence."""
    said = _said(clip)
    return assembled([said, Part()], [_edge(said, whole_frames(rng.uniform(*EDGE_SECONDS)), given, rng)])


def dictation(clip: Clip, given: Material, rng: np.random.Generator) -> HardRecording:
    """Sentences of one speaker, whoever said `clip`, up to the end of a window; sound or silence."""
    speakers: dict[str, list[Clip]] = defaultdict(list)
    for sentence in sentences(given.speech):
        speakers[sentence.group].append(sentence)
    for speaker in rng.permutation(sorted(speakers)):
        said = _dictated(speakers[speaker], rng)
        if said.samples >= whole_frames(DICTATED_SECONDS[0]):
            break
    else:
        raise lacking("tails", "speaker whose sentences fill a window of 30 s")
    left = whole_frames(rng.uniform(*DICTATION_SECONDS)) - said.samples
    return assembled([said, Part()], [_edge(said, left, given, rng)])


def _said(clip: Clip) -> Part:
    return Part((clip,), (trimmed(load(clip)),))


def _edge(said: Part, samples: int, given: Material, rng: np.random.Generator) -> Mixture:
    return filling(pick(("silence", "sound"), rng), samples, rms(said.audio), given, rng)


def _dictated(clips: Sequence[Clip], rng: np.random.Generator) -> Part:
    """Those that fit into DICTATED_SECONDS, in random order; less if they don't fill it."""
    fewest, most = map(whole_frames, DICTATED_SECONDS)
    said = Part()
    for place in rng.permutation(len(clips)):
        longer = said.then(clips[place], DICTATION_PAUSE_SECONDS, rng)
        if longer.samples <= most:
            said = longer
        if said.samples >= fewest:
            break
    return said


SCENES: dict[str, tuple[Scene, ...]] = {
    "reply": (reply,),
    "sound-after-speech": (sound_after_speech,),
    "tails": (tail, dictation),
    "heads": (head,),
}
"""Conditions, and the scenes that are made in turn for each."""
