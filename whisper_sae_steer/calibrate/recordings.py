"""Whether recordings can be calibrated on: all that can be said of them before the work starts."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from faster_whisper.vad import get_vad_model
from tqdm import tqdm

from ..audio.clips import Clip
from ..audio.reading import load_audio
from ..audio.units import WINDOW_SAMPLES, content_frames
from ..errors import AudioError, CalibrationError
from .config import CalibrationConfig
from .directions import check_speech
from .windows import MAX_WINDOWS, held_back, speech_frames

VOICED = 0.3
"""share of a window's frames with a voice from which on it may be speech: of the bundle's 551 recordings
without speech three reach it (horses, someone who gargles), and three quarters of those with speech"""
SHOWN = 5
"""recordings named in a warning"""


class Heard(NamedTuple):
    """Recordings that can be read, and what is odd about them."""

    nonspeech: list[Clip]
    speech: list[Clip]
    warnings: tuple[str, ...]
    """a sentence each"""


class _Listened(NamedTuple):
    """A recording, as far as calibration takes it."""

    clip: Clip
    voice: float
    """share of the frames in which a voice activity detector hears speech, in the window that has most"""
    silent: bool
    """whether every sample is 0"""


def listen(nonspeech: Sequence[Clip], speech: Sequence[Clip]) -> Heard:
    """Read every recording once, and compare what Silero hears in it with what it is said to hold.

    Those that can't be read are left out, with a line as everywhere. A warning names recordings without
    speech in which a voice is heard for long, and those with speech in which none is: laughter,
    singing and whispering are mistaken too, so nothing is left out for that. CalibrationError if none of
    one kind can be read, all without speech are silent, or no voice is heard in any with speech.
    """
    sounds, voices = _listened(nonspeech), _listened(speech)
    _check_heard(nonspeech, sounds, speech, voices)
    warnings: list[str] = []
    if suspects := [one for one in sounds if one.voice >= VOICED]:
        warnings.append(
            f"A voice is heard in a good part of {len(suspects)} of {len(sounds)} recordings without"
            " speech; take out what is speech, or the pack learns to silence it:"
            f" {_worst(sorted(suspects, key=lambda one: -one.voice))}."
        )
    if mute := [one for one in voices if not one.voice]:
        warnings.append(
            f"No voice is heard in {len(mute)} of {len(voices)} recordings with speech, which teach nothing:"
            f" {_worst(mute)}."
        )
    return Heard([one.clip for one in sounds], [one.clip for one in voices], tuple(warnings))


def check_recordings(
    nonspeech: Sequence[Clip], speech: Sequence[Clip], config: CalibrationConfig, has_base: bool
) -> None:
    """CalibrationError if nothing can be fitted on recordings, or nothing measured on those held back."""
    if not nonspeech and not config.synthetic:
        raise CalibrationError("no audio without speech: give --nonspeech, or --synthetic > 0")
    names = Counter(clip.key for clip in [*nonspeech, *speech])
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise CalibrationError(f"two recordings are called {twice[0]}: rename one of their folders")
    check_speech(config.selection, bool(speech))
    if not speech and not has_base:
        raise CalibrationError("a gate needs --speech recordings, or a pack to build on (--base)")
    if not config.synthetic:
        _check_parts("without speech", nonspeech, fitted=True)
    if speech:
        _check_parts("with speech", speech, fitted=not has_base)


def _check_parts(kind: str, clips: Sequence[Clip], fitted: bool) -> None:
    """Whether some are held back to measure on, and if need be others left to fit on."""
    parts = {held_back(clip.group) for clip in clips}
    lacking = "held back to measure on" if True not in parts else "left to fit on"
    if True not in parts or (fitted and False not in parts):
        raise CalibrationError(
            f"too few recordings {kind} ({len(clips)}): a quarter is held back, chosen by name, and none is"
            f" {lacking}; give more"
        )


def _listened(clips: Sequence[Clip]) -> list[_Listened]:
    vad = get_vad_model()
    found: list[_Listened] = []
    for clip in tqdm(clips, desc="listen", unit="recording", leave=False, disable=not clips):
        try:
            audio = load_audio(clip.path)
        except AudioError as error:
            tqdm.write(f"skipped: {error}")
            continue
        windows = MAX_WINDOWS if clip.kind != "speech" else 1
        pieces = [audio[i : i + WINDOW_SAMPLES] for i in range(0, len(audio), WINDOW_SAMPLES)][:windows]
        shares = [speech_frames(vad, piece).sum() / max(1, content_frames(len(piece))) for piece in pieces]
        found.append(_Listened(clip, float(max(shares)), not np.any(audio)))
    return found


def _check_heard(
    nonspeech: Sequence[Clip],
    sounds: Sequence[_Listened],
    speech: Sequence[Clip],
    voices: Sequence[_Listened],
) -> None:
    for kind, clips, heard in (("without", nonspeech, sounds), ("with", speech, voices)):
        if clips and not heard:
            raise CalibrationError(
                f"none of {len(clips)} recordings {kind} speech can be read (the lines above say why); give"
                " audio that can be played"
            )
    if sounds and all(one.silent for one in sounds):
        raise CalibrationError(
            f"nothing but digital silence, every sample 0, in the recordings without speech ({len(sounds)});"
            " give sounds: rooms, machines, music"
        )
    if voices and not any(one.voice for one in voices):
        raise CalibrationError(
            f"no voice is heard in any of {len(voices)} recordings with speech"
            f" ({', '.join(one.clip.key for one in voices[:SHOWN])}); look whether they are the right ones"
        )


def _worst(listened: Sequence[_Listened]) -> str:
    shown = [f"{one.clip.key} ({one.voice:.0%})" if one.voice else one.clip.key for one in listened[:SHOWN]]
    return ", ".join(shown) + (f" and {len(listened) - SHOWN} more" if len(listened) > SHOWN else "")
