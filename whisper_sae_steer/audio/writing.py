"""Samples at 16 kHz as files: WAV and FLAC with 16 bits, and Opus for pages."""

import io
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from ..files import write_atomically
from .units import SAMPLE_RATE

OPUS_RATE = 48_000
"""what Opus knows"""
OPUS_BIT_RATE = 24_000


def write_wav(path: Path, audio: NDArray[np.floating]) -> None:
    """Write float audio [n] as 16-bit mono WAV at 16 kHz, atomically."""
    with write_atomically(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(_int16(audio).astype("<i2").tobytes())


def write_flac(path: Path, audio: NDArray[np.floating]) -> None:
    """Write float audio [n] as 16-bit mono FLAC at 16 kHz, atomically, always the same bytes.

    16 bits hold what the models are given: `load_audio` rounds every file to them, and speech with
    a peak of -50 dBFS still spans 200 steps.
    """
    frame = av.AudioFrame.from_ndarray(_int16(audio)[None], format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    options = {"fflags": "+bitexact"}
    with (
        write_atomically(path) as temporary,
        av.open(str(temporary), "w", format="flac", container_options=options) as file,
    ):
        stream = file.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)


def write_opus(path: Path, audio: NDArray[np.floating]) -> None:
    """Write float audio [n] at 16 kHz as Ogg Opus, atomically; see :func:`to_opus`."""
    with write_atomically(path) as temporary:
        temporary.write_bytes(to_opus(audio))


def to_opus(audio: np.ndarray) -> bytes:
    """Samples at 16 kHz, float [n] in [-1, 1], as Ogg Opus, small enough for a page with many."""
    samples = np.clip(np.round(audio * 32767), -32768, 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate, frame.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="ogg") as file:
        stream = file.add_stream("libopus", rate=OPUS_RATE, layout="mono", bit_rate=OPUS_BIT_RATE)
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)
    return buffer.getvalue()


def _int16(audio: NDArray[np.floating]) -> NDArray[np.int16]:
    return np.clip(np.round(audio * 32768), -32768, 32767).astype(np.int16)
