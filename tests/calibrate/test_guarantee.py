"""The bound on touched speech: on windows with known scores, and in coin tosses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support.calibration_parts import window
from tests.support.small_pack import small_pack
from whisper_sae_steer.calibrate.gate import FeatureGate, place_levels, window_scores
from whisper_sae_steer.calibrate.guarantee import MAX_TOUCHED, Guarantee, keep_promise, touched
from whisper_sae_steer.calibrate.windows import CalibrationWindow
from whisper_sae_steer.errors import CalibrationError
from whisper_sae_steer.steering.cuts import PAD_FRAMES
from whisper_sae_steer.steering.pack import Features

LEVELS = small_pack(threshold=4.0, ramp=1.0, gap_below=-2.0).metadata.levels
GATE = FeatureGate(
    Features(torch.zeros(1, dtype=torch.int64), torch.ones(1, 1), torch.zeros(1), torch.zeros(1)),
    torch.ones(1),
    torch.tensor(0.0),
    smoothing=1,
    levels=LEVELS,
)


def flat(level: float) -> NDArray[np.float32]:
    return np.full(1500, level, np.float32)


def spoken(folder: Path, key: str, speech: slice = slice(100, 300), content: int = 400) -> CalibrationWindow:
    return window(folder, key, torch.zeros(1500, 1), speech=speech, content=content)


def promise(folder: Path, peaks: list[float]) -> tuple[FeatureGate, Guarantee]:
    windows = [spoken(folder, f"{i}") for i in range(len(peaks))]
    return keep_promise(GATE, windows, {f"{i}": flat(peak) for i, peak in enumerate(peaks)})


def test_an_open_gate_touches_all_of_a_window(tmp_path: Path):
    voice = spoken(tmp_path, "a")
    assert touched(voice, flat(4.0), LEVELS) == 0
    assert touched(voice, flat(3.9), LEVELS) == 200


def test_a_skipped_gap_touches_the_speech_in_it(tmp_path: Path):
    scores = flat(-9)
    scores[600:900] = 8
    # quiet speech before the frame where the window would begin is lost
    voice = spoken(tmp_path, "a", slice(500, 900), 1500)
    assert touched(voice, scores, LEVELS) == 600 - PAD_FRAMES - 500
    # what lies between the cut and the next window is lost too, what comes after isn't
    scores[:300] = 8
    scores[600:] = -9
    scores[1200:1400] = 8
    voice = spoken(tmp_path, "b", slice(200, 1400), 1500)
    assert touched(voice, scores, LEVELS) == 1200 - PAD_FRAMES - (300 + PAD_FRAMES)


def test_the_threshold_is_lowered_until_next_to_nothing_is_touched(tmp_path: Path):
    gate, bound = promise(tmp_path, [9, 8, 3.0, 3.5])
    assert gate.levels.threshold == 3.0
    assert bound == Guarantee(1 / 5, 0.0, 4)


def test_a_lowered_threshold_leaves_noise_and_speech_where_they_were(tmp_path: Path):
    gate, _ = promise(tmp_path, [9, 8, 3.0, 3.5])
    assert gate.levels == replace(LEVELS, threshold=3.0, full_edit_below=2.0)
    assert (gate.levels.noise_ceiling, gate.levels.speech_floor) == (2.0, 6.0)
    # the next calibration starts from what was measured, so recordings like these change nothing
    frames = torch.zeros(1500, 1)
    windows = [
        window(tmp_path, "noise", frames + 2.0),
        window(tmp_path, "speech", frames + 6.0, speech=slice(0, 1500)),
    ]
    again = place_levels(gate, windows, window_scores(gate, windows), gate.levels)
    assert again.levels == replace(LEVELS, gap_below=2.0)


def test_what_the_gate_holds_for_speech_is_never_a_gap(tmp_path: Path):
    frames = torch.zeros(1500, 1)
    windows = [
        window(tmp_path, "noise", frames + 6.0),
        window(tmp_path, "speech", frames + 2.0, speech=slice(0, 1500)),
    ]
    levels = place_levels(GATE, windows, window_scores(GATE, windows)).levels
    assert levels.gap_below == levels.threshold == 2.0


def test_a_gate_that_touches_nothing_stays_where_it_is(tmp_path: Path):
    gate, bound = promise(tmp_path, [9.0] * 20)
    assert gate == GATE
    assert bound.touched_at_most == pytest.approx(1 / 21)


def test_recordings_count_once_and_a_short_word_little(tmp_path: Path):
    long = spoken(tmp_path, "long", slice(0, 1500), 1500)
    short = spoken(tmp_path, "short", slice(0, 1), 20)
    windows = [replace(w, clip=replace(w.clip, group="one")) if w.clip else w for w in (long, short)]
    gate, bound = keep_promise(GATE, windows, {"long": flat(9), "short": flat(2)})
    assert bound.recordings == 1
    assert bound.touched == pytest.approx(1 / 1501)
    assert bound.touched <= MAX_TOUCHED
    assert gate == GATE


def test_without_speech_nothing_is_promised(tmp_path: Path):
    quiet = window(tmp_path, "a", torch.zeros(1500, 1))
    with pytest.raises(CalibrationError, match="no speech recording is left"):
        keep_promise(GATE, [quiet], {"a": flat(0)})


def test_the_bound_holds_for_new_recordings(tmp_path: Path):
    rng = np.random.default_rng(0)
    windows = [spoken(tmp_path, f"{i}") for i in range(50)]
    shares: list[float] = []
    for _ in range(30):
        peaks = rng.normal(6, 2, 50)
        scores = {f"{i}": flat(peak) for i, peak in enumerate(peaks)}
        gate, bound = keep_promise(GATE, windows, scores)
        assert bound.touched == 0
        shares.append(float(np.mean(rng.normal(6, 2, 4000) < gate.levels.threshold)))
    assert np.mean(shares) <= 1 / 51 + 0.004
