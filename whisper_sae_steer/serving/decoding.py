"""An upload as samples, decoded in pieces, so that a small file can't become hours of memory.

The same samples as :func:`..audio.reading.load_audio` gives, and only for what is audio in itself: playlists
and other formats that make FFmpeg open further files or addresses are refused, and pictures are never
decoded.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import av
import av.error
import numpy as np
import structlog
from av.container import InputContainer
from numpy.typing import NDArray

from ..audio.reading import AudioTrack, joined, resampled
from ..audio.units import SAMPLE_RATE
from ..errors import AudioError
from .config import ServeConfig
from .engine import checkpoint
from .errors import ApiError

FORMATS = (
    *("3g2", "3gp", "aac", "ac3", "aiff", "amr", "asf", "caf", "eac3"),
    *("flac", "m4a", "matroska", "mj2", "mov"),
    *("mp3", "mp4", "mpeg", "mpegts", "ogg", "w64", "wav", "webm"),
)
"""FFmpeg's names of containers that hold their audio themselves"""
CODECS = (
    *("aac", "ac3", "adpcm_ima_wav", "adpcm_ms", "alac", "amrnb", "amrwb", "eac3", "flac", "gsm", "gsm_ms"),
    *("mp1", "mp1float", "mp2", "mp2float", "mp3", "mp3float", "opus", "speex", "vorbis", "wmav1", "wmav2"),
    *sorted(name for name in av.codecs_available if name.startswith("pcm_")),
)
OPTIONS = {
    "format_whitelist": ",".join(FORMATS),
    "codec_whitelist": ",".join(CODECS),
    "protocol_whitelist": "none",
}

log = structlog.get_logger()


def decode(file: BinaryIO, config: ServeConfig) -> NDArray[np.float32]:
    """Mono 16 kHz samples [n] of the default audio track; what of it can't be decoded is left out and logged.

    ApiError 415 (no audio), 400 (empty, not finite, far too loud), 413 (too long).
    """
    try:
        with av.open(file, "r", metadata_errors="ignore", options=OPTIONS, io_open=_refuse) as container:
            samples = joined(_blocks(container, config))
    except AudioError as error:
        raise ApiError(400, str(error), "invalid_audio", "file") from None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _unsupported(f"the file is not audio in a known format: {reason}") from None
    if not len(samples):
        raise ApiError(400, "the file holds no samples", "invalid_audio", "file")
    return samples


def _blocks(container: InputContainer, config: ServeConfig) -> Iterator[NDArray[np.int16]]:
    """Samples in blocks, as long as they are within the limits."""
    try:
        track = AudioTrack(container, "the file", _limit(config))
    except AudioError as error:
        raise _unsupported(str(error)) from None
    if (container.duration or 0) / av.time_base > config.max_audio_seconds:
        raise _too_long(config)
    if track.codec not in CODECS:
        raise _unsupported(f"{track.codec} is no codec known here")
    samples = 0
    for block in resampled(iter(track)):
        samples += len(block)
        if samples > SAMPLE_RATE * config.max_audio_seconds:
            raise _too_long(config)
        yield block
    if track.lost_seconds:
        log.warning("damaged audio", lost_seconds=round(track.lost_seconds, 2))


def _limit(config: ServeConfig) -> Callable[[], None]:
    """Raises, when called, once decoding takes longer than it may or nobody waits for it."""
    deadline = time.monotonic() + config.decode_timeout

    def check() -> None:
        if time.monotonic() > deadline:
            limit = f"{config.decode_timeout:g} s"
            raise ApiError(413, f"the audio takes longer than {limit} to decode", "audio_too_slow", "file")
        checkpoint()

    return check


def _refuse(url: str, *_: Any) -> Any:
    """In the place of opening what a file refers to."""
    raise PermissionError(f"{url} is outside the upload")


def _too_long(config: ServeConfig) -> ApiError:
    return ApiError(413, f"the audio is longer than {config.max_audio_seconds:g} s", "audio_too_long", "file")


def _unsupported(message: str) -> ApiError:
    return ApiError(415, message, "unsupported_media", "file")
