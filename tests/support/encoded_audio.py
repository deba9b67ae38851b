"""Files of tones, encoded as users' recordings are."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from av.audio import AudioStream
from av.container import OutputContainer
from av.stream import Disposition
from numpy.typing import NDArray

CHANGING = [("aac", "aac"), ("mp2", "mp2"), ("ac3", "ac3"), ("eac3", "eac3"), ("ts", "aac")]
"""suffixes and codecs of what may change on the way"""
FRAME = 960
"""samples: a length that Opus takes"""


def tone(rate: int, seconds: float) -> NDArray[np.float32]:
    """440 Hz, samples [n]."""
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encoded(path: Path, codec: str, rate: int, layout: str, seconds: float) -> bytes:
    """The bytes of a tone written to `path`, whose suffix says in which format."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, AudioStream)
        _write(container, stream, tone(rate, seconds))
    return path.read_bytes()


def changing(folder: Path, suffix: str, codec: str) -> bytes:
    """A tone of 4.5 s whose channels and then rate change after 1 and 2.5 s."""
    parts = [(48_000, "stereo", 1.0), (48_000, "mono", 1.5), (32_000, "stereo", 2.0)]
    return b"".join(encoded(folder / f"part.{suffix}", codec, *part) for part in parts)


def without_content(m4a: bytes) -> bytes:
    """The file with zeros for all of its packets."""
    begin, end = m4a.index(b"mdat") + 4, m4a.index(b"moov") - 4
    return m4a[:begin] + bytes(end - begin) + m4a[end:]


def write_tracks(path: Path, tracks: Sequence[NDArray[np.float32]], default: int) -> None:
    """Tracks of samples [n] at 16 kHz, one of them marked as the default."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("aac", rate=16_000, layout="mono") for _ in tracks]
        for number, stream in enumerate(streams):
            stream.disposition = Disposition.default if number == default else Disposition(0)
        for stream, samples in zip(streams, tracks, strict=True):
            assert isinstance(stream, AudioStream)
            _write(container, stream, samples)


def _write(container: OutputContainer, stream: AudioStream, samples: NDArray[np.float32]) -> None:
    layout, rate = stream.layout.name, stream.rate
    for begin in range(0, len(samples) - FRAME + 1, FRAME):
        piece = np.tile(samples[begin : begin + FRAME], (stream.layout.nb_channels, 1))
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, begin
        for part in av.AudioResampler(stream.format, layout, rate).resample(frame):
            container.mux(stream.encode(part))
    container.mux(stream.encode(None))
