"""Recordings in every container and codec written here, damaged, lying, or no audio at all."""

import io
import random
import struct
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import torch
from numpy.typing import NDArray

from tests.fuzz.damage import spoiled
from tests.support.serving_parts import tiny
from whisper_sae_steer.audio.reading import LOUDEST, load_audio
from whisper_sae_steer.errors import AudioError, AudioWarning
from whisper_sae_steer.serving.config import ServeConfig
from whisper_sae_steer.serving.decoding import decode
from whisper_sae_steer.serving.errors import ApiError

LIMITS = ServeConfig(model="some-model", max_audio_seconds=900, decode_timeout=8)
PCM = ("pcm_s16le", "pcm_u8", "pcm_s24le", "pcm_f32le", "pcm_f64le", "pcm_alaw", "pcm_mulaw")
CODECS = {
    "wav": (*PCM, "adpcm_ms", "adpcm_ima_wav", "libmp3lame", "aac", "ac3"),
    "w64": PCM,
    "aiff": ("pcm_s16be", "pcm_f32be", "pcm_alaw"),
    "au": ("pcm_s16be", "pcm_f32be", "pcm_mulaw"),
    "caf": ("pcm_s16le", "pcm_f32be", "alac", "flac"),
    "flac": ("flac",),
    "ogg": ("libopus", "flac", "opus"),
    "mp3": ("libmp3lame",),
    "mp2": ("mp2",),
    "adts": ("aac",),
    "ipod": ("aac", "alac"),
    "mp4": ("aac", "libopus", "flac", "pcm_f64le"),
    "mov": ("aac", "pcm_s24le", "libmp3lame"),
    "3gp": ("aac",),
    "webm": ("libopus",),
    "matroska": ("libopus", "flac", "pcm_f32le", "wavpack", "tta", "mp2"),
    "ac3": ("ac3",),
    "eac3": ("eac3",),
    "asf": ("aac", "pcm_s16le", "mp2"),
    "mpegts": ("aac", "mp2", "libopus", "ac3"),
    "tta": ("tta",),
    "wv": ("wavpack",),
    "avi": ("pcm_s16le", "libmp3lame", "adpcm_ms"),
    "voc": ("pcm_s16le",),
}
"""of the containers that FFmpeg writes here"""
SPECIAL = (np.nan, np.inf, -np.inf, 1e30, -1e30, 1e-40, 32768.0, LOUDEST)


def attempt(dice: random.Random, folder: Path) -> str:
    """Read it as the library does and as the server does: the same samples, if both take it."""
    if dice.random() < 0.15:
        return _judged(load_audio(_array(dice)), dice)
    data = spoilt_file(dice)
    path = folder / "a"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)
        try:
            samples = load_audio(dice.choice((path, str(path), io.BytesIO(data))))
        except AudioError:
            samples = None
    try:
        served = decode(io.BytesIO(data), LIMITS)
    except ApiError as error:
        served = _refused(error)
    if samples is None and served is None:
        return "refused"
    if samples is not None and served is not None:
        np.testing.assert_array_equal(samples, served)
    return _judged(samples if samples is not None else served, dice)


def _refused(error: ApiError) -> None:
    assert 400 <= error.status < 500, error


def spoilt_file(dice: random.Random) -> bytes:
    """The bytes of a recording, damaged for the most part."""
    data = _by_hand(dice) if dice.random() < 0.3 else _encoded(*_choice(dice))
    if dice.random() < 0.9:
        data = spoiled(data, dice)
    if dice.random() < 0.05:
        data += _encoded(*_choice(dice))
    return data


def _judged(samples: NDArray[np.float32] | None, dice: random.Random) -> str:
    assert samples is not None
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples)
    assert np.abs(samples).max() <= LOUDEST
    if dice.random() < 0.03 and len(samples) < 80_000:
        list(tiny().transcribe(samples, language="en", temperature=0)[0])
        return "transcribed"
    return "read"


def _choice(dice: random.Random) -> tuple[str, str, int, str]:
    form = dice.choice(list(CODECS))
    rate = dice.choice((8000, 16_000, 22_050, 44_100, 48_000))
    return form, dice.choice(CODECS[form]), rate, dice.choice(("mono", "stereo", "5.1"))


@lru_cache(32)  # all of them are 56 MiB
def _encoded(form: str, codec: str, rate: int, layout: str) -> bytes:
    """Half a second of noise; at 48 kHz and mono where the codec takes nothing else, else nothing."""
    noise = np.random.default_rng(0).normal(0, 0.1, (1, rate // 2)).astype(np.float32)
    for rates, layouts in ((rate, layout), (48_000, "mono"), (8000, "mono")):
        written = io.BytesIO()
        try:
            with av.open(written, "w", format=form) as container:
                stream = container.add_stream(codec, rate=rates, layout=layouts)
                frame = av.AudioFrame.from_ndarray(noise, "fltp", "mono")
                frame.sample_rate = rate
                resampler = av.AudioResampler(
                    stream.format, layouts, rates, frame_size=stream.frame_size or 960
                )
                for part in (*resampler.resample(frame), *resampler.resample(None)):
                    container.mux(stream.encode(part))
                container.mux(stream.encode(None))
            return written.getvalue()
        except (av.error.FFmpegError, ValueError):
            continue
    return b""


def _by_hand(dice: random.Random) -> bytes:
    """A WAV with 0 to 10⁷ samples, 1 to 64 channels, any rate and special floats; its sizes may lie."""
    channels = dice.choice((1, 1, 2, 3, 7, 8, 16, 63, 64))
    rate = dice.choice((1, 7, 800, 7999, 11_025, 16_000, 44_100, 96_001, 192_000, 768_000, 2**31 - 1))
    tag, width = dice.choice(((1, 1), (1, 2), (1, 3), (1, 4), (3, 4), (3, 8), (6, 1), (7, 1)))
    most = 10**7 if dice.random() < 0.02 else dice.choice((1, 100, 10_000, 200_000))
    count = dice.randrange(most + 1) // channels
    if tag == 3:
        kind = np.float32 if width == 4 else np.float64
        values = np.random.default_rng(dice.randrange(2**32)).uniform(-1, 1, count * channels).astype(kind)
        if dice.random() < 0.5 and len(values):
            values[dice.randrange(len(values))] = dice.choice(SPECIAL)
        content = values.tobytes()
    else:
        content = dice.randbytes(min(count * channels * width, 10**7))
    size = len(content) if dice.random() < 0.7 else dice.choice((0, 1, len(content) // 2, 2**31, 2**32 - 1))
    block = channels * width
    told = {"channels": channels, "block": block, "bits": 8 * width}
    if dice.random() < 0.2:
        told[dice.choice(list(told))] = dice.choice((0, 1, 12, 64, 65_535))
    form = struct.pack(
        "<HHIIHH", tag, told["channels"], rate, rate * block % 2**32, told["block"], told["bits"]
    )
    head = struct.pack("<4sI8sI", b"RIFF", (36 + size) % 2**32, b"WAVEfmt ", len(form))
    return head + form + struct.pack("<4sI", b"data", size) + content


def _array(dice: random.Random) -> Any:
    """An array or tensor of any shape and dtype, or something else."""
    shape = dice.choice(((0,), (1,), (100,), (7, 3), (), (1, 100), (2, 0), (50_000,), (10**7,)))
    dtype = dice.choice(("f2", "f4", "f8", ">f4", "i2", "u1", "c8", "?", "O", "U3", "M8[s]"))
    try:
        array = np.zeros(shape, dtype)
    except TypeError:
        array = np.zeros(shape)
    if array.size and array.dtype.kind == "f" and dice.random() < 0.5:
        array.reshape(-1)[dice.randrange(array.size)] = dice.choice((*SPECIAL, 65_504.0))
    if array.ndim and dice.random() < 0.3:
        array = array[:: dice.choice((-1, 2, -3))]
    if array.dtype.kind == "f" and array.dtype.isnative and dice.random() < 0.3:
        return torch.from_numpy(array.copy())
    return dice.choice((array, array, array, None, 5, b"RIFF", [0.0], {}, ""))
