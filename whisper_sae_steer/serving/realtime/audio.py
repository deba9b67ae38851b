"""Audio as clients append it, as the model takes it."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from av import CodecContext
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.packet import Packet
from numpy.typing import NDArray

from ...audio.units import SAMPLE_RATE
from ...errors import AudioError

AudioFormat = Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
CODECS: dict[AudioFormat, tuple[str, int, int]] = {
    "audio/pcm": ("pcm_s16le", 24_000, 2),
    "audio/pcmu": ("pcm_mulaw", 8_000, 1),
    "audio/pcma": ("pcm_alaw", 8_000, 1),
}
"""FFmpeg's name of each, samples a second, bytes a sample; all are mono"""


class AudioReader:
    """One stream of audio, piece by piece: no click where pieces meet."""

    def __init__(self, kind: AudioFormat):
        self._kind: AudioFormat = kind
        name, self._rate, self._sample_bytes = CODECS[kind]
        codec = CodecContext.create(name, "r")
        assert isinstance(codec, AudioCodecContext)
        codec.sample_rate, codec.layout = self._rate, "mono"
        self._codec, self._resampler = codec, _resampler()

    def read(self, piece: bytes) -> NDArray[np.float32]:
        """Samples [n] at 16 kHz; the last few come with the next piece. AudioError if a sample is cut."""
        if len(piece) % self._sample_bytes:
            raise AudioError(f"{len(piece)} bytes are no whole number of {self._kind} samples")
        if not piece:
            return np.zeros(0, np.float32)
        frames = self._codec.decode(Packet(piece))
        return _joined(made for frame in frames for made in self._resampler.resample(frame))

    def rest(self) -> NDArray[np.float32]:
        """The last few samples [n]; what is read from now on is another stream."""
        samples = _joined(self._resampler.resample(None))
        self._resampler = _resampler()
        return samples


def _resampler() -> AudioResampler:
    return AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)


def _joined(frames: Iterable[AudioFrame]) -> NDArray[np.float32]:
    pieces = [frame.to_ndarray().reshape(-1) for frame in frames]
    return np.concatenate([np.zeros(0), *pieces]).astype(np.float32)
