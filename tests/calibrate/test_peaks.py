"""The gate fitted on whole windows: one frame in a window decides."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from tests.support.calibration_parts import window
from whisper_sae_steer.calibrate.peaks import fit_peaks
from whisper_sae_steer.calibrate.selection import LinearModel
from whisper_sae_steer.calibrate.windows import CalibrationWindow
from whisper_sae_steer.kernels import smooth
from whisper_sae_steer.steering.pack import Features

WIDTH = 4
FEATURES = Features(torch.arange(WIDTH), torch.eye(WIDTH), torch.zeros(WIDTH), torch.zeros(WIDTH))
SPEECH, BARKS = slice(400, 420), slice(900, 920)
FRAMES_SAY = LinearModel(np.array([1.0, 0.0, 0.0, 0.0]), -1.0)
"""what single frames teach: nearly all that have the first feature are of speech"""


def barks_and_words(folder: Path, count: int = 20) -> list[CalibrationWindow]:
    """Both have the first feature, words the second too, barks the third. The last tells nothing."""
    rng = np.random.default_rng(0)
    windows: list[CalibrationWindow] = []
    for i in range(2 * count):
        frames = torch.from_numpy(rng.uniform(0, 0.2, (1500, WIDTH))).float()
        where = SPEECH if i % 2 else BARKS
        frames[where, 0] = float(rng.uniform(2, 3))
        frames[where, 1 if i % 2 else 2] = float(rng.uniform(1, 2))
        windows.append(window(folder, f"{i}", frames, speech=SPEECH if i % 2 else None))
    return windows


def highest(model: LinearModel, windows: list[CalibrationWindow], smoothing: int = 5) -> list[float]:
    weight = torch.from_numpy(model.weight).float()
    logits = torch.stack([FEATURES.activations(w.frames()) @ weight + model.bias for w in windows])
    return smooth(logits, smoothing).amax(1).tolist()


def test_what_tells_windows_apart_is_learnt(tmp_path: Path):
    windows = barks_and_words(tmp_path)
    labels = [w.is_speech for w in windows]
    assert roc_auc_score(labels, highest(FRAMES_SAY, windows)) < 0.8
    fitted = fit_peaks(FEATURES, np.ones(WIDTH), FRAMES_SAY, windows, 5)
    scores = np.array(highest(fitted, windows))
    assert scores[labels].min() > 0 > scores[np.invert(labels)].max()
    assert fitted.weight[1] > 1
    assert fitted.weight[2] < -1
    assert abs(fitted.weight[3]) < 0.5


def test_the_units_of_features_make_no_difference(tmp_path: Path):
    windows, scale = barks_and_words(tmp_path, 6), np.array([1.0, 4.0, 0.5, 2.0])
    scaled = Features(FEATURES.ids, torch.diag(torch.from_numpy(scale).float()), *FEATURES[2:])
    start = LinearModel(FRAMES_SAY.weight / scale, FRAMES_SAY.bias)
    one = fit_peaks(FEATURES, np.ones(WIDTH), FRAMES_SAY, windows, 5)
    other = fit_peaks(scaled, scale, start, windows, 5)
    np.testing.assert_allclose(other.weight * scale, one.weight, rtol=1e-2, atol=1e-3)
    assert other.bias == pytest.approx(one.bias, abs=1e-2)


def test_windows_of_speech_in_which_nobody_is_heard_teach_nothing(tmp_path: Path):
    windows = barks_and_words(tmp_path, 6)
    mute = window(tmp_path, "mute", torch.zeros(1500, WIDTH), speech=slice(0, 0))
    one, other = (fit_peaks(FEATURES, np.ones(WIDTH), FRAMES_SAY, w, 5) for w in (windows, [*windows, mute]))
    np.testing.assert_array_equal(one.weight, other.weight)
