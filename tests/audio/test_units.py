"""The units agree with Whisper's own."""

import pytest
from whisper import audio

from whisper_sae_steer.audio import units
from whisper_sae_steer.audio.units import WINDOW_FRAMES, WINDOW_SAMPLES, content_frames


def test_units_are_whispers():
    assert units.SAMPLE_RATE == audio.SAMPLE_RATE
    assert units.WINDOW_SAMPLES == audio.N_SAMPLES
    assert units.MEL_FRAME_SECONDS == audio.HOP_LENGTH / audio.SAMPLE_RATE
    assert units.SAMPLES_PER_ENCODER_FRAME == audio.N_SAMPLES_PER_TOKEN
    assert units.ENCODER_FRAME_SECONDS == 1 / audio.TOKENS_PER_SECOND
    assert units.MEL_FRAMES_PER_ENCODER_FRAME * units.WINDOW_FRAMES == audio.N_FRAMES


@pytest.mark.parametrize(
    ("samples", "frames"),
    [(0, 0), (1, 1), (320, 1), (321, 2), (WINDOW_SAMPLES, WINDOW_FRAMES), (10**9, WINDOW_FRAMES)],
)
def test_content_frames(samples: int, frames: int):
    assert content_frames(samples) == frames
