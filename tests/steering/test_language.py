"""Which window the language is read from."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support.small_pack import small_pack
from whisper_sae_steer.audio.units import WINDOW_FRAMES
from whisper_sae_steer.steering.batch import SteeredBatch
from whisper_sae_steer.steering.calls import Call, CallOptions, current
from whisper_sae_steer.steering.cuts import PAD_FRAMES
from whisper_sae_steer.steering.language import detect_at_speech
from whisper_sae_steer.steering.steerer import Steerer

STEERER = Steerer(small_pack(gap_below=-2.0))
SPEECH, NOISE = 8.0, -9.0


def recording(*speech: tuple[int, int], frames: int) -> NDArray[np.float32]:
    """Scores of a recording in which somebody speaks here and there."""
    scores = np.full(frames, NOISE, np.float32)
    for start, end in speech:
        scores[start:end] = SPEECH
    return scores


def detected(scores: NDArray[np.float32], call: Call) -> tuple[int, list[int]]:
    """Frame at which the window begins that counts, and those of all that were looked at."""
    looked: list[int] = []

    def detect(frame: int) -> int:
        looked.append(frame)
        reading = current(STEERER)
        if reading is not None and reading.options.scores_only:
            window = np.pad(scores, (0, WINDOW_FRAMES), constant_values=NOISE)[frame : frame + WINDOW_FRAMES]
            nothing = torch.zeros(0)
            reading.results.append(SteeredBatch(nothing, torch.from_numpy(window)[None], nothing, nothing))
        return frame

    return detect_at_speech(STEERER, call, detect, len(scores)), looked


@pytest.mark.parametrize(
    ("speech", "frames", "at", "looked"),
    [
        ([(0, 400)], 400, 0, [0]),
        ([(100, 4000)], 4000, 0, [0]),
        ([(1000, 1400)], 1500, 1000 - PAD_FRAMES, [0, 1000 - PAD_FRAMES]),
        ([(4000, 4400)], 5000, 4000 - PAD_FRAMES, [0, 1500, 3000, 4000 - PAD_FRAMES]),
        ([(1600, 1900)], 2000, 1500, [0, 1500]),
        ([], 1000, 0, [0]),
        ([], 4000, 0, [0, 1500, 3000]),
        ([], 0, 0, [0]),
    ],
)
def test_the_first_window_with_speech_counts(
    speech: list[tuple[int, int]], frames: int, at: int, looked: list[int]
):
    assert detected(recording(*speech, frames=frames), Call(CallOptions(1.0))) == (at, looked)


@pytest.mark.parametrize(
    "call", [Call(CallOptions(0.0)), Call(CallOptions(1.0, steer_language_detection=True))]
)
def test_unsteered_and_steered_detection_stay_with_the_first_window(call: Call):
    assert detected(recording((4000, 4400), frames=5000), call) == (0, [0])
