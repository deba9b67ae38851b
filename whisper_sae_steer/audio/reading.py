"""Reads any audio into the one form that Whisper takes: mono, 16 kHz, float32 in [-1, 1]."""

from __future__ import annotations

import errno
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, TypeVar

import av
import av.error
import numpy as np
import torch
from av.audio import AudioStream
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from av.packet import Packet
from numpy.typing import NDArray

from ..errors import AudioError, AudioWarning
from .units import SAMPLE_RATE

_SUFFIXES = """
    .aac .aif .aiff .amr .flac .m4a .mka .mkv .mov .mp3 .mp4 .mpeg .mpga .oga .ogg .opus .wav .weba
    .webm .wma
"""
AUDIO_SUFFIXES = frozenset(_SUFFIXES.split())
"""What `find_audio` takes for audio inside a folder."""

LOUDEST = 100.0
"""peak of samples that were scaled to [-1, 1], however carelessly; 16-bit integers reach 32768"""
LOWEST_RATE = 1000
"""samples a second; no recording has fewer, and a small file that says so would fill the memory"""
RESAMPLED_AT_ONCE = 500_000
"""samples at the file's own rate"""
LISTS = frozenset(("concat", "dash", "hls", "imf", "rtp", "rtsp", "sap", "sdp", "webm_dash_manifest"))
"""FFmpeg's names of formats that name other files or addresses; a live one has no end"""
FORMATS = ",".join(sorted(av.formats_available - LISTS))
BARE = frozenset(("aac", "ac3", "eac3", "mp3"))
"""formats without times: how much is lost is told by the bytes"""
JUMPS = {"ogg": 0.02, "flac": 0.02, "matroska,webm": 0.5}
"""Seconds from which a jump forward of a format's times is a loss: damaged packets aren't handed out at all.
Pauses in WebM may be silence; in other formats times jump for other reasons."""
BROKEN_END = 0.1
"""seconds at the end of a file that can't be decoded and are no loss: a tag, or a packet that was cut off"""
_warned: dict[str | tuple[str, type[Warning], int], int] = {}
T = TypeVar("T")
Source = str | os.PathLike[str] | BinaryIO | np.ndarray | torch.Tensor


def load_audio(source: Source) -> np.ndarray:
    """Mono 16 kHz float32 samples, shape [n], of a file, an open binary file or an array.

    Of a file its default audio track is decoded, mixed down and resampled without an ffmpeg binary. Parts
    that can't be decoded are left out with an `AudioWarning`. Arrays and tensors must be one-dimensional
    floating point at 16 kHz, within ±1 but for clipping, as for openai-whisper and faster-whisper;
    contiguous float32 arrays are returned as they are. Raises `AudioError` for anything missing, empty,
    undecodable, not finite, far too loud, or of another shape or dtype, and for playlists.
    """
    if isinstance(source, torch.Tensor):
        audio, name = _checked(_array_of(source)), "the audio tensor"
    elif isinstance(source, np.ndarray):
        audio, name = _checked(source), "the audio array"
    elif isinstance(source, (str, os.PathLike)):
        name = os.fsdecode(source)
        _check_file(name)
        audio = _read(name, name, _mono)
    elif hasattr(source, "read"):
        name = "the audio stream"
        audio = _read(source, name, _mono)
    else:
        raise AudioError(f"audio must be a path, a binary file or an array, not {type(source)}")
    if not len(audio):
        raise AudioError(f"{name} has no samples")
    check_samples(audio, name)
    return audio


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise the `AudioError` and give the `AudioWarning` that :func:`load_audio` would, in little memory."""
    name = os.fsdecode(path)
    _check_file(name)
    _read(name, name, partial(deque[AudioFrame], maxlen=0))  # decoded, but not kept


def check_samples(samples: np.ndarray, name: str) -> None:
    """AudioError if some of the samples, of any shape, aren't finite or are far beyond ±1."""
    low, high = float(samples.min(initial=0)), float(samples.max(initial=0))  # NaN if any is
    if not np.isfinite([low, high]).all():
        raise AudioError(f"{name} contains NaN or infinite samples; clean it first")
    peak = max(-low, high)
    if peak > LOUDEST:
        raise AudioError(
            f"{name} has samples up to {peak:.4g}, but they are to be within ±1; "
            "divide those of 16-bit integers by 32768"
        )


def audio_seconds(path: str | os.PathLike[str]) -> float:
    """Length of a file by its header, without decoding it; 0 if the header has none or can't be read."""
    try:
        with _opened(os.fspath(path), "") as container:
            return (container.duration or 0) / av.time_base
    except AudioError:
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
        return np.ascontiguousarray(array, np.float32)


def _array_of(tensor: torch.Tensor) -> np.ndarray:
    try:
        tensor = tensor.detach().cpu()
        return tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
    except (RuntimeError, TypeError) as error:  # meta, sparse, quantised, nested: torch says which
        reason = str(error).partition("\n")[0]
        raise AudioError(f"audio must be a plain tensor of samples, shape [samples]: {reason}") from None


def _check_file(name: str) -> None:
    if "://" in name:  # FFmpeg opens URLs too
        return
    if os.path.isdir(name):
        raise AudioError(f"{name} is a folder, not an audio file")
    if not os.path.exists(name):
        raise AudioError(f"{name}: no such file")
    if os.path.isfile(name) and os.path.getsize(name) == 0:
        raise AudioError(f"{name} is empty (0 bytes)")


def _opened(source: str | BinaryIO, name: str) -> InputContainer:
    """The file, but no playlist; AudioError, which speaks of `name`."""
    try:
        if not isinstance(source, str) and isinstance(source.read(0), str):
            raise AudioError(f"{name} is opened as text; open it in binary mode")
        return av.open(source, "r", metadata_errors="ignore", options={"format_whitelist": FORMATS})
    except AudioError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _undecodable(name, error) from None


def _read(source: str | BinaryIO, name: str, take: Callable[[Iterator[AudioFrame]], T]) -> T:
    """What `take` makes of the frames. AudioError and AudioWarning, which speak of `name`."""
    with _opened(source, name) as container:
        track = AudioTrack(container, name)
        try:
            taken = take(iter(track))
        except AudioError:
            raise
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise _undecodable(name, error) from None
    if track.lost_seconds:
        lost = f"about {track.lost_seconds:.2f} s of it can't be decoded and are left out"
        # warn() would show a line of source with it; the registry lets each message through once
        warnings.warn_explicit(f"{name} is damaged: {lost}", AudioWarning, __name__, 0, registry=_warned)
    return taken


def _mono(frames: Iterator[AudioFrame]) -> NDArray[np.float32]:
    """The same samples as faster-whisper's of an undamaged file, in half its memory."""
    return joined(resampled(frames))


def _undecodable(name: str, error: Exception) -> AudioError:
    reason = getattr(error, "strerror", None) or error
    if getattr(error, "errno", None) == errno.EINVAL:  # of what isn't in FORMATS too
        reason = f"{reason} (playlists are not read: give the recordings that they name)"
    return AudioError(f"{name} can't be decoded as audio: {reason}")


class AudioTrack:
    """Iterates over the frames of a file's default audio track, past what can't be decoded.

    `before_packet` is called before each packet is decoded; what it raises ends the reading. Raises
    AudioError, which speaks of `name`, if there is no track that can be decoded, if its rate is below
    LOWEST_RATE, or if a file of floats holds samples that :func:`check_samples` refuses: decoding to 16 bit
    would turn them into clicks.
    """

    def __init__(
        self, container: InputContainer, name: str, before_packet: Callable[[], None] = lambda: None
    ):
        stream = container.streams.best("audio")
        if not isinstance(stream, AudioStream):
            raise AudioError(f"{name} has no audio stream")
        if not stream.codec_context:  # None for a codec that FFmpeg has no decoder for
            raise AudioError(f"{name} is in a codec that can't be decoded here")
        self.codec = stream.codec_context.name
        self.lost_seconds = 0.0
        """about how much couldn't be decoded so far"""
        self._container, self._stream, self._name = container, stream, name
        self._before_packet = before_packet
        self._format = container.format.name
        self._read_seconds, self._read_bytes = 0.0, 0
        self._end: float | None = None
        """in seconds of the stream's times, of the last packet that was decoded"""

    def __iter__(self) -> Iterator[AudioFrame]:
        is_float = self.codec.startswith("pcm_f")
        failed, begin = 0.0, None
        for packet in self._packets():
            self._before_packet()
            begin = packet.pos if begin is None else begin
            try:
                frames = packet.decode()
            except av.error.FFmpegError:  # damage has any error that there is
                failed += _seconds(packet)
                continue
            if frames:
                self._count(packet, frames, failed)
                failed = 0.0
            for frame in frames:
                if frame.sample_rate < LOWEST_RATE:
                    raise AudioError(f"{self._name} says that it has {frame.sample_rate} samples a second")
                if is_float:
                    check_samples(frame.to_ndarray(), self._name)
                yield frame
        if failed > BROKEN_END and self._read_seconds:
            self.lost_seconds += failed
        if self.lost_seconds and self._format in BARE and self._read_bytes:
            unread = self._container.size - (begin or 0) - self._read_bytes
            self.lost_seconds = max(self.lost_seconds, unread * self._read_seconds / self._read_bytes)

    def _packets(self) -> Iterator[Packet[AudioStream]]:
        """Up to where the file can't be taken apart any more, as the ffmpeg program does."""
        try:
            yield from self._container.demux(self._stream)
        except av.error.InvalidDataError:
            length = (self._container.duration or 0) / av.time_base
            self.lost_seconds += max(0.0, length - self._read_seconds - self.lost_seconds)
        except IndexError:
            pass  # PyAV's own, at the end of a file with tracks that its header doesn't announce

    def _count(self, packet: Packet[AudioStream], frames: Sequence[AudioFrame], failed: float) -> None:
        """Add up what was read and lost up to a packet's end; those before it failed for some seconds."""
        seconds = max(_seconds(packet), sum(frame.samples / frame.sample_rate for frame in frames))
        self._read_seconds += seconds
        self._read_bytes += packet.size
        if not packet.size:  # at the end, decoders hand out what they held back
            return
        start = self._end if packet.pts is None else float(packet.pts * packet.time_base)
        jump = 0.0 if start is None or self._end is None else start - self._end
        if failed or jump > JUMPS.get(self._format, float("inf")):
            self.lost_seconds += max(failed, jump)
        self._end = None if start is None else start + seconds


def _seconds(packet: Packet[AudioStream]) -> float:
    return float((packet.duration or 0) * packet.time_base)


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
