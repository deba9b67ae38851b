import io
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from whisper_sae_steer.audio import synthetic
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.units import SAMPLE_RATE
from whisper_sae_steer.audio.writing import to_opus, write_flac, write_wav


def test_written_samples_clip_instead_of_wrapping(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, np.array([-2, -1, 0, 1, 2], np.float32))
    with wave.open(str(path)) as file:
        assert file.getparams()[:3] == (1, 2, SAMPLE_RATE)
        samples = np.frombuffer(file.readframes(5), "<i2")
    assert samples.tolist() == [-32768, -32768, 0, 32767, 32767]


def test_flac_holds_16_bits(tmp_path: Path) -> None:
    audio = synthetic.clip("white", 0, seconds=(1.5, 1.5)).audio * 10 ** (-50 / 20)
    write_flac(tmp_path / "a.flac", audio)
    np.testing.assert_array_equal(load_audio(tmp_path / "a.flac"), np.round(audio * 32768) / 32768)


def test_opus_plays_the_samples() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32) / 2
    data = to_opus(tone)
    assert len(data) < 7_500
    with av.open(io.BytesIO(data)) as file:
        (stream,) = file.streams.audio
        heard = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(stream)])
    assert stream.codec_context.name in ("opus", "libopus")
    assert len(heard) == pytest.approx(48000, abs=2000)
    assert np.argmax(np.abs(np.fft.rfft(heard[:48000]))) == pytest.approx(440, abs=2)
