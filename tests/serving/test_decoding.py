"""Uploads become the samples that the library itself would read."""

import io
import threading
from contextvars import copy_context
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from tests.support.encoded_audio import CHANGING, changing, encoded, tone, without_content, write_tracks
from tests.support.real_models import SAMPLES
from tests.support.serving_parts import wav
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.serving import engine
from whisper_sae_steer.serving.config import ServeConfig
from whisper_sae_steer.serving.decoding import decode
from whisper_sae_steer.serving.errors import ApiError

CONFIG = ServeConfig()


@pytest.mark.parametrize("name", ["speech", "gap"])
def test_samples_are_those_of_load_audio(name: str) -> None:
    with (SAMPLES / f"{name}.ogg").open("rb") as file:
        np.testing.assert_array_equal(decode(file, CONFIG), load_audio(SAMPLES / f"{name}.ogg"))


def test_stereo_at_another_rate_is_mixed_and_resampled(tmp_path: Path) -> None:
    from scipy.io import wavfile

    path = tmp_path / "a.wav"
    noise = np.random.default_rng(0).integers(-9000, 9000, (44_100, 2)).astype(np.int16)
    wavfile.write(path, 44_100, noise)
    with path.open("rb") as file:
        np.testing.assert_array_equal(decode(file, CONFIG), load_audio(path))


@pytest.mark.parametrize(("suffix", "codec"), CHANGING)
def test_channels_and_rates_that_change_on_the_way(tmp_path: Path, suffix: str, codec: str) -> None:
    whole = changing(tmp_path, suffix, codec)
    samples = decode(io.BytesIO(whole), CONFIG)
    assert len(samples) / 16_000 == pytest.approx(4.5, abs=0.3)
    np.testing.assert_array_equal(samples, load_audio(io.BytesIO(whole)))


def test_the_default_track_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    write_tracks(path, [np.zeros(16_000, np.float32), tone(16_000, 1.0)], default=1)
    assert np.abs(decode(io.BytesIO(path.read_bytes()), CONFIG)).max() > 0.1


def test_damage_is_read_past_and_logged(tmp_path: Path) -> None:
    whole = encoded(tmp_path / "a.mp3", "libmp3lame", 16_000, "mono", seconds=5)
    half = len(whole) // 2
    with capture_logs() as logs:
        samples = decode(io.BytesIO(whole[:half] + bytes(3000) + whole[half + 3000 :]), CONFIG)
    assert len(samples) / 16_000 == pytest.approx(4, abs=0.2)
    (entry,) = logs
    assert (entry["event"], entry["log_level"]) == ("damaged audio", "warning")
    assert entry["lost_seconds"] == pytest.approx(1, abs=0.2)


def test_packets_that_all_fail_take_no_longer_than_others(tmp_path: Path) -> None:
    broken = io.BytesIO(without_content(encoded(tmp_path / "a.m4a", "aac", 44_100, "mono", seconds=3)))
    with pytest.raises(ApiError, match="takes longer than"):
        decode(broken, ServeConfig(decode_timeout=1e-6))


def test_audio_as_long_as_the_limit_is_taken_and_a_moment_more_is_not() -> None:
    config = ServeConfig(max_audio_seconds=2)
    assert len(decode(io.BytesIO(wav(2)), config)) == 32_000
    with pytest.raises(ApiError, match="longer than 2 s"):
        decode(io.BytesIO(wav(2.01)), config)


def test_decoding_stops_when_nobody_waits_any_more() -> None:
    def gone() -> None:
        cancelled = threading.Event()
        cancelled.set()
        engine._cancelled.set(cancelled)
        decode(io.BytesIO(wav(1)), CONFIG)

    with pytest.raises(engine.Cancelled):
        copy_context().run(gone)
