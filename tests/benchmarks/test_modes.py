"""Smaller benchmark scripts: the α dial, the modes of calling Whisper, calibration on one noise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.steering import dial, modes, own_noise
from tests.support.real_models import sample, truth
from whisper_sae_steer.audio.clips import Clip, read_folder
from whisper_sae_steer.audio.writing import write_flac
from whisper_sae_steer.faster import WhisperModel


@pytest.fixture(scope="module")
def model() -> WhisperModel:
    return WhisperModel("tiny.en", compute_type="int8", cpu_threads=1)


@pytest.fixture(scope="module")
def beeps(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("beeps")
    time = np.arange(8 * 16_000) / 16_000
    beeps = 0.3 * np.sin(2 * np.pi * 500 * time) * (time % 0.25 < 0.12)
    write_flac(folder / "beeps.flac", beeps.astype(np.float32))
    return read_folder(folder, "nonspeech")


@pytest.mark.parametrize("name", ["thresholds off", "batched, no VAD"])
def test_a_mode_in_which_text_is_invented_is_emptied(name: str, model: WhisperModel, beeps: list[Clip]):
    unsteered, steered = (modes.measure(model, modes.MODES[name], beeps, alpha) for alpha in (0.0, 1.0))
    assert (unsteered["k"], steered["k"], steered["n"]) == (1, 0, 1)
    assert [*unsteered["written"]] == [beeps[0].key]


def test_every_mode_is_accepted_by_the_library(model: WhisperModel, beeps: list[Clip]):
    for name, mode in modes.MODES.items():
        if not mode.multilingual:
            assert modes.measure(model, mode, beeps, 1.0)["k"] == 0, name


def test_own_noise_counts_text_and_word_errors(model: WhisperModel, beeps: list[Clip], tmp_path: Path):
    assert own_noise.measure(model, beeps, 1.0)["k"] == 0
    (tmp_path / "a.txt").write_text(truth("speech")["speech"][0]["text"] + " Lost words.", encoding="utf-8")
    write_flac(tmp_path / "a.flac", sample("speech"))
    found = own_noise.measure(model, read_folder(tmp_path, "speech", "en"), 1.0)
    assert found == {"n": 1, "empty": 0, "wer": pytest.approx(2 / 24), "deletions": 2}


def at(rate: float, change: float | None) -> dict[str, Any]:
    interval = {"rate": rate, "low": rate / 2, "high": 2 * rate}
    change_at = None if change is None else {"value": change, "low": change - 0.01, "high": change + 0.01}
    return {"FPR_text": interval, "FPR_raw": None, "WER_change": change_at}


def test_the_dial_shows_rates_and_the_change_of_word_errors():
    cells = {"0": at(0.3, None), "1": at(0.02, 0.001)}
    left, right = dial.draw(cells, cells).axes
    (rate,), (change,) = left.lines[:-1], right.lines[:-1]  # the last marks α = 1
    assert rate.get_label() == "FPR_text"
    assert np.asarray(rate.get_xydata()).tolist() == pytest.approx(np.array([[0, 30], [1, 2]]))
    assert np.asarray(change.get_xydata()).tolist() == pytest.approx(np.array([[0, 0], [1, 0.1]]))
