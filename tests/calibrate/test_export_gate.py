"""The gate of exports: fitted on frames with a known direction of speech, judged on other recordings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.calibration_parts import window
from tests.support.small_whisper import small_whisper
from whisper_sae_steer.calibrate.export_gate import FOLDS, SHARPNESS, _folds, fit_export_gate, speech_evidence
from whisper_sae_steer.calibrate.windows import CalibrationWindow
from whisper_sae_steer.errors import CalibrationError

WIDTH = 16
SPEECH = torch.eye(WIDTH)[0]
MODEL: Any = small_whisper(width=WIDTH).float()


def frames(seed: int, speech: slice | None) -> Tensor:
    """Noise, a voice's own offset on all of them, and 10 along one direction where there is speech."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(1500, WIDTH, generator=generator) + 0.1 * torch.randn(WIDTH, generator=generator)
    made[:, 0] *= 0.3
    if speech is not None:
        made[speech] += 10 * SPEECH
    return made


def recordings(folder: Path, spoken: int, other: int, seed: int = 0) -> list[CalibrationWindow]:
    rng = np.random.default_rng(seed)
    windows: list[CalibrationWindow] = []
    for i in range(spoken):
        start = int(rng.integers(0, 600))
        part = slice(start, start + int(rng.integers(300, 900)))
        windows.append(window(folder, f"voice{seed}-{i}", frames(1000 * seed + i, part), speech=part))
    for i in range(other):
        windows.append(window(folder, f"noise{seed}-{i}", frames(1000 * seed + 500 + i, None)))
    return windows


def test_speech_of_others_comes_to_nothing_and_noise_is_below_the_ramp(tmp_path: Path):
    gate = fit_export_gate(MODEL, recordings(tmp_path, 24, 24))
    assert gate.key.shape == gate.value.shape == (len(SHARPNESS), WIDTH)
    assert -1 < gate.full < gate.shut < 0
    unseen = recordings(tmp_path, 12, 12, seed=1)
    found = speech_evidence(gate, unseen)
    assert (found[:12] > float(gate.shut)).all()
    assert (found[12:] < float(gate.full)).all()
    z = (unseen[0].frames() - gate.centre) / gate.scale
    heads = [(key @ z.T).softmax(0) @ z @ value for key, value in zip(gate.key, gate.value, strict=True)]
    assert found[0] == pytest.approx(float(sum(heads) + gate.offset), abs=1e-4)
    blunt, sharp = (key / sharpness for key, sharpness in zip(gate.key, SHARPNESS, strict=True))
    torch.testing.assert_close(blunt, sharp)
    assert blunt.argmax() == 0


def test_the_ramp_is_placed_by_recordings_that_a_fit_has_not_seen(tmp_path: Path):
    """One voice is nothing like the others: a fit that knew it would bring it to 0 and see no risk."""
    windows = recordings(tmp_path, 24, 24)
    usual = fit_export_gate(MODEL, windows)
    odd = window(tmp_path, "odd", frames(7, None) - 1.5 * torch.eye(WIDTH)[1], speech=slice(0, 400))
    careful = fit_export_gate(MODEL, [*windows, odd])
    assert careful.shut < usual.shut - 0.05


def test_where_speech_and_noise_overlap_speech_is_kept(tmp_path: Path):
    windows = recordings(tmp_path, 8, 8)
    mislabelled = [window(tmp_path, f"odd{i}", frames(i, None), speech=slice(0, 400)) for i in range(4)]
    gate = fit_export_gate(MODEL, [*windows, *mislabelled])
    assert gate.full < gate.shut < float(np.median(speech_evidence(gate, mislabelled)))


def test_a_recordings_windows_stay_in_one_fold(tmp_path: Path):
    windows = recordings(tmp_path, 6, 3)
    folds = _folds([*windows, *windows])
    assert (folds[: len(windows)] == folds[len(windows) :]).all()
    assert np.bincount(folds[:6], minlength=FOLDS).tolist() == [2, 2, 1, 1]
    assert np.bincount(folds[6:9], minlength=FOLDS).tolist() == [1, 1, 1, 0]


def test_a_base_is_corrected(tmp_path: Path):
    base = fit_export_gate(MODEL, recordings(tmp_path, 24, 24))
    gate = fit_export_gate(MODEL, recordings(tmp_path, 3, 3, seed=2), base=base)
    for name in ("centre", "scale", "key", "spare"):
        assert torch.equal(getattr(gate, name), getattr(base, name))
    assert not torch.equal(gate.value, base.value)
    assert torch.cosine_similarity(gate.value.flatten(), base.value.flatten(), dim=0) > 0.9


def test_one_recording_of_a_kind_is_too_few(tmp_path: Path):
    for spoken, other in ((1, 5), (5, 1)):
        with pytest.raises(CalibrationError, match="two with speech and two without"):
            fit_export_gate(MODEL, recordings(tmp_path, spoken, other))
    unheard = [window(tmp_path, f"mute{i}", frames(i, None), speech=slice(0, 0)) for i in range(3)]
    unheard += recordings(tmp_path, 0, 5)
    with pytest.raises(CalibrationError, match="two with speech and two without"):
        fit_export_gate(MODEL, unheard)
