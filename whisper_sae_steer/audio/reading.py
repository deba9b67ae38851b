"""Reads any audio into the one form that Whisper takes: mono, 16 kHz, float32 in [-1, 1]."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import av
import av.error
import numpy as np
import torch
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from ..errors import AudioError
from .units import SAMPLE_RATE

_SUFFIXES = """
    .aac .aif .aiff .amr .flac .m4a .mka .mkv .mov .mp3 .mp4 .mpeg .mpga .oga .ogg .opus .wav .weba
    .webm .wma
"""
AUDIO_SUFFIXES = frozenset(_SUFFIXES.split())
"""What `find_audio` takes for audio inside a folder."""

RESAMPLED_AT_ONCE = 500_000
"""samples at the file's own rate"""
Source = str | os.PathLike[str] | BinaryIO | np.ndarray | torch.Tensor


def load_audio(source: Source) -> np.ndarray:
    """Mono 16 kHz float32 samples, shape [n], of a file, an open binary file or an array.

    Files are decoded, mixed down and resampled without an ffmpeg binary. Arrays and tensors must
    be one-dimensional floating point at 16 kHz, as for openai-whisper and faster-whisper; float32
    arrays are returned as they are. Raises `AudioError` for anything missing, empty, undecodable,
    not finite, or of another shape or dtype.
    """
    if isinstance(source, torch.Tensor):
        tensor = source.detach().cpu()
        audio = _checked(tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy())
        name = "the audio tensor"
    elif isinstance(source, np.ndarray):
        audio = _checked(source)
        name = "the audio array"
    elif isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        _check_file(name)
        audio = _decode(name, name)
        _check_finite(name)
    elif hasattr(source, "read"):
        name = "the audio stream"
        audio = _decode(source, name)
    else:
        raise AudioError(f"audio must be a path, a binary file or an array, not {type(source)}")
    if not len(audio):
        raise AudioError(f"{name} has no samples")
    if not np.isfinite(audio).all():
        raise AudioError(f"{name} contains NaN or infinite samples; clean it first")
    return audio


def audio_seconds(path: str | os.PathLike[str]) -> float:
    """Length of a file by its header, without decoding it; 0 if the header has none or can't be read."""
    try:
        with av.open(os.fspath(path)) as container:
            return (container.duration or 0) / av.time_base
    except (av.error.FFmpegError, OSError, ValueError):
        return 0.0


def find_audio(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The audio files among and below `paths`: files as given, folders searched recursively.

    Sorted within each folder, without duplicates; hidden files are skipped. Raises `AudioError`
    for a path that does not exist and when nothing is found.
    """
    found: dict[Path, None] = {}
    roots = [Path(path) for path in paths]
    for root in roots:
        if root.is_dir():
            found.update(dict.fromkeys(sorted(p for p in root.rglob("*") if _is_audio(p, root))))
        elif root.exists():
            found[root] = None
        else:
            raise AudioError(f"{root}: no such file or folder")
    if not found:
        raise AudioError(f"no audio files in {', '.join(map(str, roots)) or 'an empty list'}")
    return list(found)


def _is_audio(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return not hidden and path.suffix.lower() in AUDIO_SUFFIXES and path.is_file()


def _checked(array: np.ndarray) -> np.ndarray:
    if array.ndim != 1:
        raise AudioError(
            f"audio must have shape [samples], not {list(array.shape)}; "
            "mix it down first: audio.mean(axis=0) for [channels, samples]"
        )
    if array.dtype.kind == "i":
        scale = 2 ** (8 * array.dtype.itemsize - 1)
        raise AudioError(
            f"audio must be floating point in [-1, 1], not {array.dtype}; "
            f"convert it: audio.astype(np.float32) / {scale}"
        )
    if array.dtype.kind != "f":
        raise AudioError(f"audio must be floating point in [-1, 1], not {array.dtype}")
    with np.errstate(over="ignore"):  # becomes infinite, which load_audio refuses
        return array.astype(np.float32, copy=False)


def _check_file(name: str) -> None:
    if "://" in name:  # FFmpeg opens URLs too
        return
    if os.path.isdir(name):
        raise AudioError(f"{name} is a folder, not an audio file")
    if not os.path.exists(name):
        raise AudioError(f"{name}: no such file")
    if os.path.isfile(name) and os.path.getsize(name) == 0:
        raise AudioError(f"{name} is empty (0 bytes)")


def _check_finite(name: str) -> None:
    """Refuse NaN and infinity in a float PCM file: decoding to 16 bit turns them into clicks."""
    with av.open(name, metadata_errors="ignore") as container:
        stream = container.streams.audio[0]
        if not stream.codec_context.name.startswith("pcm_f"):
            return
        for frame in container.decode(stream):
            if not np.isfinite(frame.to_ndarray()).all():
                raise AudioError(f"{name} contains NaN or infinite samples; clean it first")


def _decode(source: str | BinaryIO, name: str) -> np.ndarray:
    """Decode with PyAV to the same samples as faster-whisper, in half its memory; `name` is for messages."""
    try:
        with av.open(source, mode="r", metadata_errors="ignore") as container:
            return joined(resampled(up_to_damage(container.decode(audio=0))))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"{name} can't be decoded as audio: {reason}") from None
    except IndexError:
        raise AudioError(f"{name} has no audio stream") from None


def up_to_damage(frames: Iterator[AudioFrame]) -> Iterator[AudioFrame]:
    """Frames up to one that can't be decoded, as faster-whisper takes them."""
    with suppress(av.error.InvalidDataError):
        yield from frames


def resampled(frames: Iterator[AudioFrame]) -> Iterator[NDArray[np.int16]]:
    """Blocks of samples [n] at 16 kHz, mono; rate, channels and format of frames may change on the way."""
    for _, alike in groupby(frames, _form):
        yield from _resampled(alike)


def joined(blocks: Iterable[NDArray[np.int16]]) -> NDArray[np.float32]:
    """Samples [n] in [-1, 1] of all blocks. Memory grows in place: an hour takes its own 230 MB, no more."""
    audio = bytearray()
    for block in blocks:
        audio += np.divide(block, 2**15, dtype=np.float32).data
    return np.frombuffer(audio, np.float32)


def _form(frame: AudioFrame) -> tuple[str, str, int]:
    """What frames that are resampled together have in common."""
    return frame.format.name, frame.layout.name, frame.sample_rate


def _resampled(frames: Iterator[AudioFrame]) -> Iterator[NDArray[np.int16]]:
    resampler, read = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE), AudioFifo()

    def resample(frame: AudioFrame | None) -> Iterator[NDArray[np.int16]]:
        for made in resampler.resample(frame):
            yield made.to_ndarray().reshape(-1).astype(np.int16, copy=False)

    for frame in frames:
        frame.pts = None  # times may jump
        read.write(frame)
        if read.samples >= RESAMPLED_AT_ONCE:
            yield from resample(read.read())
    if read.samples:
        yield from resample(read.read())
    yield from resample(None)
