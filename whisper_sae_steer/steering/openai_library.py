"""openai-whisper's own ``transcribe``, told where windows end that we cut."""

from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import numpy as np
import whisper
from numpy.typing import NDArray
from whisper import timing

from ..audio.units import MEL_FRAME_SECONDS, MEL_FRAMES_PER_ENCODER_FRAME, WINDOW_FRAMES
from ..models.rules import SilenceRule
from .batch import WindowTemperature
from .calls import Call, current
from .cuts import protect_seek_from_word_times


@dataclass(frozen=True, eq=False)
class Transcription(Call):
    """A call of ``transcribe``, with what of the library's options decides how windows are cut."""

    samples: NDArray[np.float32] = field(kw_only=True)
    """[n] of the recording, at 16 kHz"""
    silence_rule: SilenceRule = field(kw_only=True)
    skips_silence_seconds: float | None = field(kw_only=True)
    """a rest of a window as short as this is skipped after its last word"""


def _add_word_timestamps(*, segments: list[dict[str, Any]], model: Any, **options: Any) -> None:
    """whisper's; a seek to the end of a gap stays."""
    timing.add_word_timestamps(segments=segments, model=model, **options)
    call, carrier = current(model.steerer), segments[-1]["temperature"] if segments else None
    cut = carrier.window.cut if isinstance(carrier, WindowTemperature) else None
    if not isinstance(call, Transcription) or cut is None:
        return
    rest_frames = WINDOW_FRAMES - cut.resume_at
    rest_seconds = MEL_FRAME_SECONDS * MEL_FRAMES_PER_ENCODER_FRAME * rest_frames
    if call.skips_silence_seconds is None or rest_seconds > call.skips_silence_seconds:
        protect_seek_from_word_times(segments, cut, options["tokenizer"].timestamp_begin)


def _print(line: str) -> None:
    """Leave out the lines of segments that only move on."""
    if line.split("] ", 1)[-1].strip():
        print(line)


# the library's own code, with two names changed for it alone
library_transcribe = FunctionType(
    whisper.transcribe.__code__,
    {**whisper.transcribe.__globals__, "add_word_timestamps": _add_word_timestamps, "print": _print},
    argdefs=whisper.transcribe.__defaults__,
)
library_transcribe.__kwdefaults__ = whisper.transcribe.__kwdefaults__
