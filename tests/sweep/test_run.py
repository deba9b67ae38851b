"""A sweep end to end on small frames: as trainings alone, resumed to the bit, nothing done twice."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.training_parts import CONFIG, same, sparse_store, write_store
from whisper_sae_steer.errors import CalibrationError, ConfigError
from whisper_sae_steer.sae.autoencoder import SAE
from whisper_sae_steer.sae.formats import load_sae
from whisper_sae_steer.sweep import GateFrames, Sweep, SweepConfig, groups, sweep
from whisper_sae_steer.sweep.gate import Labelled, gate_auc
from whisper_sae_steer.sweep.report import text_report, write_html
from whisper_sae_steer.sweep.results import frontier, verdict
from whisper_sae_steer.training import FrameStore, train
from whisper_sae_steer.training.quality import measure
from whisper_sae_steer.training.saving import save_trained
from whisper_sae_steer.training.trainee import Trainee

SHORT = replace(CONFIG, steps=60, checkpoint_every=25)
SETTINGS = (SHORT, replace(SHORT, k=6), replace(SHORT, architecture="jumprelu", d_sae=256))
SWEEP = SweepConfig(SETTINGS, seeds=(0, 1))
TAP = "encoder_output"


@pytest.fixture
def frames(tmp_path: Path) -> FrameStore:
    return sparse_store(tmp_path / "frames")


@pytest.fixture
def two_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four SAEs fit into memory, the rest doesn't."""
    members = list(SWEEP.members([TAP]).items())
    monkeypatch.setattr(groups, "PROCESS_BYTES", 0)
    monkeypatch.setattr(groups, "STEP_BYTES", 0)
    four = groups.gigabytes(dict(members[:4]), {TAP: 64})
    monkeypatch.setattr(groups, "PROCESS_BYTES", 1e9 * (SWEEP.memory_gb - four) - 1)


def written(out: Path) -> dict[str, bytes]:
    """What a sweep leaves, but for its page, whose plots have a date, and its curves for TensorBoard."""
    kept = ("cfg.json", "sae_weights.safetensors", "history.json", "sweep.json", "ledger.json")
    return {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.name in kept}


def stop_at(monkeypatch: pytest.MonkeyPatch, stops: dict[int, type[BaseException] | None]) -> list[int]:
    """Break, or with None interrupt, the calls of a training step with these numbers; the steps made."""
    real, steps = Trainee.step, list[int]()

    def step(self: Trainee, batch: Tensor, number: int, of: int | None = None) -> Any:
        steps.append(number)
        if len(steps) in stops:
            if error := stops[len(steps)]:
                raise error
            signal.raise_signal(signal.SIGINT)
        return real(self, batch, number, of)

    monkeypatch.setattr(Trainee, "step", step)
    return steps


def test_each_sae_is_the_one_that_training_alone_makes(frames: FrameStore, tmp_path: Path):
    result = sweep(frames, SWEEP, tmp_path / "out")
    assert len(result.settings) == 3
    for setting in result.settings:
        for found in setting.saes:
            (one,) = train(frames, setting.config, tmp_path / setting.name, seeds=[found.seed])
            quality = save_trained(one, frames, tmp_path / "alone")
            assert same(load_sae(tmp_path / "out" / found.folder), load_sae(tmp_path / "alone"))
            assert (found.fvu, found.l0, found.dead) == (quality.fvu, quality.l0, quality.dead)
            assert found.fvu == measure(one.sae, frames.held_back_frames(TAP)).fvu
        assert len(setting.pairs) == 1
    assert not list((tmp_path / "out").rglob("checkpoint.pt"))


@pytest.mark.usefixtures("two_groups")
def test_stopped_in_the_middle_it_leaves_the_same_bytes(
    frames: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sweep(frames, SWEEP, tmp_path / "whole")
    # in the first group by Ctrl-C, in the second by a kill, and there again by Ctrl-C
    steps = stop_at(monkeypatch, {4 * 30: None, 4 * 60 + 2 * 30: MemoryError, 4 * 60 + 2 * 40: None})
    for error in (KeyboardInterrupt, MemoryError, KeyboardInterrupt):
        with pytest.raises(error):
            sweep(frames, SWEEP, tmp_path / "parts")
    sweep(frames, SWEEP, tmp_path / "parts")
    assert len(steps) > 4 * 60 + 2 * 60
    assert written(tmp_path / "whole") == written(tmp_path / "parts")


@pytest.mark.usefixtures("two_groups")
def test_a_finished_group_is_not_trained_again(
    frames: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    steps = stop_at(monkeypatch, {4 * 60 + 10: MemoryError})  # before the second group's first checkpoint
    with pytest.raises(MemoryError):
        sweep(frames, SWEEP, tmp_path / "out")
    del steps[:]
    sweep(frames, SWEEP, tmp_path / "out")
    assert len(steps) == 2 * 60
    del steps[:]
    again = sweep(frames, replace(SWEEP, settings=(*SETTINGS, replace(SHORT, k=2))), tmp_path / "out")
    assert len(steps) == 2 * 60  # the new setting alone
    assert len(again.settings) == 4


def test_an_sae_of_other_frames_or_deleted_is_trained_again(
    frames: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = replace(SWEEP, settings=(SHORT,))
    sweep(frames, config, tmp_path / "out")
    before = written(tmp_path / "out")
    steps = stop_at(monkeypatch, {})
    (weights,) = (tmp_path / "out").rglob("seed1/sae_weights.safetensors")
    weights.unlink()
    sweep(frames, config, tmp_path / "out")
    assert len(steps) == 60
    assert written(tmp_path / "out") == before
    sweep(replace(frames, key="b"), config, tmp_path / "out")
    assert len(steps) == 3 * 60
    sweep(frames, config, tmp_path / "out")  # whose folders the other took
    assert len(steps) == 5 * 60


@pytest.mark.parametrize(
    ("change", "taps", "said"),
    [
        ({"d_sae": 2}, (), "2 features are fewer than k = 3"),
        ({"k": 4, "batch_size": 128}, (), "give one batch_size"),
        ({"d_sae": 2**26}, (), "more than 4"),
        ({"k": 4}, ("block.9",), r"no frames of tap block\.9"),
    ],
)
def test_a_setting_that_cannot_be_had_is_refused_before_work(
    frames: FrameStore, tmp_path: Path, change: dict[str, Any], taps: tuple[str, ...], said: str
):
    config = SweepConfig((SHORT, replace(SHORT, **change)), taps)
    with pytest.raises(ConfigError, match=said):
        sweep(frames, config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_recordings_held_back_nothing_is_trained(tmp_path: Path):
    alone = write_store(tmp_path / "few", [torch.randn(2000, 64)], [])
    with pytest.raises(CalibrationError, match="held back"):
        sweep(alone, SWEEP, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_ledger(frames: FrameStore, tmp_path: Path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "ledger.json").write_text("{")
    with pytest.raises(CalibrationError, match=r"ledger\.json is damaged"):
        sweep(frames, SWEEP, tmp_path)


def labelled(seed: int) -> Labelled:
    """Frames whose first value tells speech, off by noise."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(400, 64, generator=generator)
    is_speech = np.arange(400) % 2 == 0
    frames[::2, 0] += 4
    return Labelled(frames, is_speech)


def test_gates_and_the_cost_downstream_are_measured_once(
    frames: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = replace(SWEEP, settings=SETTINGS[:2])
    gate = GateFrames(labelled(0), labelled(1), "k")
    made: list[SAE] = []

    def counted(sae: SAE, frames: GateFrames) -> float:
        made.append(sae)
        return gate_auc(sae, frames)

    monkeypatch.setattr("whisper_sae_steer.sweep.run.gate_auc", counted)
    result = sweep(frames, config, tmp_path / "out", {TAP: gate})
    auc = result.settings[0].gate_auc
    assert auc is not None
    assert 0.8 < auc < 1
    assert sweep(frames, config, tmp_path / "out", {TAP: gate}) == result
    assert len(made) == 4
    upside_down = GateFrames(gate.fitted, gate.held_back._replace(is_speech=~gate.held_back.is_speech), "l")
    turned = sweep(frames, config, tmp_path / "out", {TAP: upside_down}).settings[0].gate_auc
    assert turned == pytest.approx(1 - auc, abs=1e-6)


def test_the_same_seed_has_the_same_features_and_another_few(frames: FrameStore, tmp_path: Path):
    long = replace(SHORT, steps=600)
    result = sweep(frames, SweepConfig((long, SHORT), seeds=(0, 1)), tmp_path / "out")
    trained, barely = (setting.shared("found") for setting in result.settings)
    assert trained is not None
    assert barely is not None
    assert trained > barely + 0.2


def test_verdict_table_json_and_page(frames: FrameStore, tmp_path: Path):
    result = sweep(frames, SWEEP, tmp_path / "out")
    best = frontier(result.settings)
    assert 1 <= len(best) <= 3
    for one in result.settings:
        beaten = any(o.fvu <= one.fvu and o.l0 <= one.l0 for o in result.settings if o is not one)
        assert (one in best) is not beaten
    sentence = verdict(result)
    assert sentence.startswith(f"At encoder_output {len(best)} of 3 settings lie")
    assert all(one.label in sentence for one in best)
    lines = text_report(result).splitlines()
    assert lines[0] == sentence
    assert len(lines) == 2 + 1 + 3
    assert "found again" in lines[2]
    assert "gate AUC" not in lines[2]
    assert [("✓" in line) for line in lines[3:]] == [one in best for one in result.settings]
    saved = json.loads((tmp_path / "out" / "sweep.json").read_text(encoding="utf-8"))
    assert saved["verdict"] == sentence
    assert [one["on_frontier"] for one in saved["settings"]] == [one in best for one in result.settings]
    assert saved["settings"][1]["mean"]["fvu"] == result.settings[1].fvu
    assert saved["settings"][1]["config"]["k"] == 6
    assert str(tmp_path) not in json.dumps(saved)
    write_html(result, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "3 settings of SAEs for synthetic" in page
    assert page.count("<img") == 2


def test_settings_are_judged_tap_by_tap(frames: FrameStore, tmp_path: Path):
    result = sweep(frames, SweepConfig((SHORT,)), tmp_path / "out")
    other = tuple(setting._replace(tap="block.0") for setting in result.settings)
    both = Sweep(result.conditions, (*result.settings, *other))
    assert verdict(both).count("1 of 1 settings lies") == 2
    assert "block.0 " in text_report(both)
