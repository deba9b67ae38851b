"""Audio files as openai-whisper reads them: by the ffmpeg program, where there is one."""

import os
import shutil
from pathlib import Path
from typing import BinaryIO

import numpy as np
import whisper.audio
from numpy.typing import NDArray
from torch import Tensor

from ..errors import AudioError
from .reading import check_file, load_audio

AudioSource = str | Path | BinaryIO | np.ndarray | Tensor


def load_as_whisper(audio: AudioSource) -> NDArray[np.float32]:
    """Samples [n] at 16 kHz; of a file by the ffmpeg program, without it as all other audio. AudioError."""
    if not isinstance(audio, str | os.PathLike) or shutil.which("ffmpeg") is None:
        return load_audio(audio)
    check_file(audio)  # whisper's own reading doesn't tell what it leaves out, and waits on a live playlist
    try:
        return load_audio(whisper.audio.load_audio(os.fspath(audio)))
    except RuntimeError as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise AudioError(f"{audio} can't be decoded as audio: {reason}") from None
