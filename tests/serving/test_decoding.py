"""Uploads become the samples that the library itself would read."""

import io
import threading
from contextvars import copy_context
from pathlib import Path

import numpy as np
import pytest

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
