"""Audio of Realtime clients against other resamplers, and G.711 as its standard writes it."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import resample_poly

from tests.support.real_models import sample
from tests.support.realtime_parts import g711, pcm
from whisper_sae_steer.errors import AudioError
from whisper_sae_steer.serving.realtime.audio import AudioFormat, AudioReader

SPEECH = sample("speech")[16_000:64_000]
ENCODED: dict[AudioFormat, bytes] = {
    "audio/pcm": pcm(SPEECH),
    "audio/pcmu": g711(SPEECH, "pcm_mulaw"),
    "audio/pcma": g711(SPEECH, "pcm_alaw"),
}


def read(kind: AudioFormat, data: bytes, piece: int) -> NDArray[np.float32]:
    reader = AudioReader(kind)
    pieces = [reader.read(data[start : start + piece]) for start in range(0, len(data), piece)]
    return np.concatenate([*pieces, reader.rest()])


@pytest.mark.parametrize("kind", ENCODED)
@pytest.mark.parametrize("piece", [2, 960, 4098])
def test_pieces_are_what_the_whole_is(kind: AudioFormat, piece: int):
    whole = read(kind, ENCODED[kind], len(ENCODED[kind]))
    np.testing.assert_allclose(read(kind, ENCODED[kind], piece), whole, atol=1e-6)
    assert abs(len(whole) - len(SPEECH)) < 16


def mu_law(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """ITU-T G.711, table 2a, in 16 bits."""
    inverted = 255 - codes.astype(int)
    exponent, mantissa = (inverted >> 4) & 7, inverted & 15
    size = ((2 * mantissa + 33) << exponent) - 33
    return np.where(inverted & 0x80, -4 * size, 4 * size)


def a_law(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Table 1a, in 16 bits."""
    inverted = codes.astype(int) ^ 0x55
    exponent, mantissa = (inverted >> 4) & 7, inverted & 15
    size = np.where(exponent, (2 * mantissa + 33) << np.maximum(exponent - 1, 0), 2 * mantissa + 1)
    return np.where(inverted & 0x80, 8 * size, -8 * size)


@pytest.mark.parametrize("kind", ENCODED)
def test_it_is_resampled_as_by_scipy(kind: AudioFormat):
    codes = np.frombuffer(ENCODED[kind], np.uint8)
    if kind == "audio/pcm":
        expected = resample_poly(codes.view("<i2") / 32768, 2, 3)
    else:
        expected = resample_poly((mu_law if kind == "audio/pcmu" else a_law)(codes) / 32768, 2, 1)
    found = read(kind, ENCODED[kind], 960)
    both = min(len(found), len(expected))
    assert np.std(found[:both] - expected[:both]) < 0.01 * np.std(expected)


def test_what_is_held_back_is_less_than_5_ms():
    reader = AudioReader("audio/pcm")
    assert len(reader.read(ENCODED["audio/pcm"])) > len(SPEECH) - 80
    reader.rest()
    assert len(reader.rest()) == 0


def test_half_a_sample_and_none():
    reader = AudioReader("audio/pcm")
    with pytest.raises(AudioError, match="3 bytes are no whole number of audio/pcm samples"):
        reader.read(b"\0" * 3)
    assert len(reader.read(b"")) == 0
