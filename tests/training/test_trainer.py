"""Training end to end: it learns, side by side, and goes on to the bit wherever it was stopped."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.training_parts import CONFIG, Meaner, clip, same, sparse_store, write_store, write_wav
from whisper_sae_steer.errors import CalibrationError, ConfigError
from whisper_sae_steer.training import FrameStore, LiveFrames, TrainConfig, build_store, train, trainer
from whisper_sae_steer.training.config import ArchitectureName
from whisper_sae_steer.training.quality import measure
from whisper_sae_steer.training.trainer import Member, train_team


@pytest.fixture
def frames(tmp_path: Path) -> FrameStore:
    return sparse_store(tmp_path / "frames")


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu", "matryoshka"])
def test_training_explains_sparse_data(frames: FrameStore, tmp_path: Path, architecture: ArchitectureName):
    config = replace(CONFIG, architecture=architecture)
    ((member, sae, history),) = train(frames, config, tmp_path / "work")
    assert (member.tap, member.seed) == ("encoder_output", 0)
    quality = measure(sae, frames.held_back_frames("encoder_output"))
    assert quality.fvu < (0.15 if architecture == "matryoshka" else 0.06)
    assert quality.l0 == pytest.approx(3, abs=0.5)
    torch.testing.assert_close(sae.W_dec.norm(dim=-1), torch.ones(128))
    assert (sae.config.architecture, sae.config.k, sae.config.model) == ("jumprelu", 3, "synthetic")
    assert history[-1].step == 600
    assert history[-1].frames == 600 * 512
    assert history[-1].fvu < history[0].fvu
    assert list((tmp_path / "work" / "tensorboard" / member.name).glob("events*"))


def test_falling_k(frames: FrameStore, tmp_path: Path):
    config = replace(CONFIG, k_start=20, sparsity_share=0.5, steps=200)
    ((_, sae, history),) = train(frames, config, tmp_path / "work")
    assert [point.l0 for point in history] == pytest.approx([12, 3, 3, 3], abs=0.51)
    assert sae.config.k == 3


def test_bfloat16_products_learn_as_well(frames: FrameStore, tmp_path: Path):
    ((_, sae, _),) = train(frames, replace(CONFIG, bf16=True), tmp_path / "work")
    assert sae.W_enc.dtype == torch.float32
    assert measure(sae, frames.held_back_frames("encoder_output")).fvu < 0.06


def test_taps_and_seeds_side_by_side_equal_each_alone(tmp_path: Path):
    clips = [clip(write_wav(tmp_path / f"{i}.wav", 20, i)) for i in range(3)]
    built = build_store(Meaner(), clips, tmp_path / "frames")
    config = TrainConfig(expansion=4, k=2, steps=20, batch_size=256, buffer_frames=1000)
    team = train(built, config, tmp_path / "team", seeds=[0, 1])
    assert [m.name for m, _, _ in team] == [
        f"{tap}-seed{seed}" for tap in ("block.0", "encoder_output") for seed in (0, 1)
    ]
    for member, sae, _ in team:
        ((_, alone, _),) = train(built, config, tmp_path / member.name, [member.tap], [member.seed])
        assert same(sae, alone)
        assert sae.config.tap == member.tap
    assert not same(team[0].sae, team[1].sae)


TEAM = {
    Member("encoder_output", 0, "short"): replace(CONFIG, steps=35, checkpoint_every=25, dead_after=2000),
    Member("encoder_output", 1, "wide"): replace(
        CONFIG, steps=60, checkpoint_every=25, architecture="topk", d_sae=256, k=5, lr=1e-3
    ),
    Member("encoder_output", 0, "jump"): replace(
        CONFIG, steps=60, checkpoint_every=25, architecture="jumprelu"
    ),
}
"""options of every kind that SAEs of one team may differ in"""


def test_a_team_of_different_options_equals_each_alone(frames: FrameStore, tmp_path: Path):
    for member, sae, history in train_team(frames, TEAM, tmp_path / "team"):
        config = TEAM[member]
        ((_, alone, curves),) = train(frames, config, tmp_path / member.name, seeds=[member.seed])
        assert same(sae, alone)
        assert history == curves
        assert history[-1].step == config.steps
        assert sae.config == alone.config


@pytest.mark.parametrize("stops", [{8, 50}, {110, 120}])  # beside the short one, and when it is done
def test_a_stopped_team_goes_on_to_the_bit(
    frames: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: set[int]
):
    whole = train_team(frames, TEAM, tmp_path / "whole")
    stop_at(monkeypatch, stops, None)
    for _ in stops:
        with pytest.raises(KeyboardInterrupt):
            train_team(frames, TEAM, tmp_path / "parts")
    for one, other in zip(whole, train_team(frames, TEAM, tmp_path / "parts"), strict=True):
        assert one.member == other.member
        assert same(one.sae, other.sae)
        assert one.history == other.history


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_size": 256}, "share their batches: give one batch_size"),
        ({"seed": 3}, "give one seed"),
        ({"max_fvu": 0.2}, "give them the same options"),
        ({"d_sae": 2}, "2 features are fewer than k = 3"),
    ],
)
def test_options_that_cannot_be_had_side_by_side(
    frames: FrameStore, tmp_path: Path, change: dict[str, Any], said: str
):
    members = [Member("encoder_output", 0, name) for name in "ab"]
    for configs in ([CONFIG, replace(CONFIG, **change)], [replace(CONFIG, **change), CONFIG]):
        with pytest.raises(ConfigError, match=said):
            train_team(frames, dict(zip(members, configs, strict=True)), tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("lr", [0.0, -1.0, float("nan"), float("inf")])
def test_learning_rates_that_make_no_sense(lr: float):
    with pytest.raises(ConfigError, match="lr must be above 0"):
        replace(CONFIG, lr=lr)


def stop_at(monkeypatch: pytest.MonkeyPatch, stops: set[int], error: type[BaseException] | None) -> list[int]:
    """Interrupt or break the calls of a training step with these numbers; returns the steps made."""
    real, steps = trainer.Trainee.step, list[int]()

    def step(self: trainer.Trainee, batch: Tensor, number: int, of: int | None = None) -> Any:
        steps.append(number)
        if len(steps) in stops:
            if error:
                raise error
            signal.raise_signal(signal.SIGINT)
        return real(self, batch, number, of)

    monkeypatch.setattr(trainer.Trainee, "step", step)
    return steps


@pytest.mark.parametrize("architecture", ["batchtopk", "jumprelu"])
def test_interrupted_and_continued_equals_uninterrupted(
    frames: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: ArchitectureName
):
    config = replace(CONFIG, architecture=architecture, steps=60, checkpoint_every=25, dead_after=2000)
    (whole,) = train(frames, config, tmp_path / "whole")
    steps = stop_at(monkeypatch, {8, 40}, None)
    handler = signal.getsignal(signal.SIGINT)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(frames, config, tmp_path / "parts")
    (continued,) = train(frames, config, tmp_path / "parts")
    assert steps == list(range(60))
    assert same(whole.sae, continued.sae)
    assert whole.history == continued.history
    assert signal.getsignal(signal.SIGINT) is handler


def test_training_ends_when_it_is_good_enough(
    frames: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = replace(CONFIG, max_fvu=0.2, checkpoint_every=25)
    ((_, sae, history),) = train(frames, config, tmp_path / "whole")
    steps = history[-1].step
    assert 50 <= steps < config.steps
    assert history[-1].lr < 0.05 * config.lr
    assert measure(sae, frames.held_back_frames("encoder_output")).fvu < 0.2
    stop_at(monkeypatch, {steps - 3}, None)  # while the rate falls
    with pytest.raises(KeyboardInterrupt):
        train(frames, config, tmp_path / "parts")
    ((_, continued, again),) = train(frames, config, tmp_path / "parts")
    assert same(sae, continued)
    assert history == again


def test_good_enough_needs_frames_held_back(frames: FrameStore, tmp_path: Path):
    alone = replace(frames, held_back=())
    with pytest.raises(CalibrationError, match="held back"):
        train(alone, replace(CONFIG, max_fvu=0.2), tmp_path / "work")


def test_killed_training_goes_on_from_its_last_checkpoint(
    frames: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = replace(CONFIG, steps=30, checkpoint_every=10)
    (whole,) = train(frames, config, tmp_path / "whole")
    steps = stop_at(monkeypatch, {15}, MemoryError)
    with pytest.raises(MemoryError):
        train(frames, config, tmp_path / "parts")
    (continued,) = train(frames, config, tmp_path / "parts")
    assert steps[15:] == list(range(10, 30))
    assert same(whole.sae, continued.sae)


@pytest.mark.slow
def test_training_on_the_fly_continues_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clips = [clip(write_wav(tmp_path / f"{i}.wav", 20, i)) for i in range(4)]
    config = TrainConfig(expansion=4, k=2, steps=30, batch_size=256, buffer_frames=2048)
    taps = ["block.0"]
    (whole,) = train(LiveFrames(Meaner(), clips), config, tmp_path / "whole", taps)
    stop_at(monkeypatch, {11}, None)
    with pytest.raises(KeyboardInterrupt):
        train(LiveFrames(Meaner(), clips), config, tmp_path / "parts", taps)
    (continued,) = train(LiveFrames(Meaner(), clips), config, tmp_path / "parts", taps)
    assert same(whole.sae, continued.sae)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("change", [{"seed": 1}, {"k": 4}, {"lr": 1e-3}, {"key": "b"}])
def test_checkpoint_of_another_run_is_ignored(frames: FrameStore, tmp_path: Path, change: dict[str, Any]):
    config = replace(CONFIG, steps=20, checkpoint_every=10)
    (fresh,) = train(frames, config, tmp_path / "fresh")
    if "key" in change:
        train(replace(frames, **change), config, tmp_path / "shared")
    else:
        train(frames, replace(config, **change), tmp_path / "shared")
    (after,) = train(frames, config, tmp_path / "shared")
    assert same(fresh.sae, after.sae)


def test_damaged_checkpoint(frames: FrameStore, tmp_path: Path):
    config = replace(CONFIG, steps=2)
    train(frames, config, tmp_path / "work")
    file = tmp_path / "work" / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CalibrationError, match=r"checkpoint\.pt is damaged; delete it"):
        train(frames, config, tmp_path / "work")


def test_too_few_frames(tmp_path: Path):
    small = write_store(tmp_path / "few", [torch.randn(100, 64)], [])
    with pytest.raises(CalibrationError, match="100 frames don't fill a batch of 512"):
        train(small, CONFIG, tmp_path / "work")
    assert not (tmp_path / "work").exists() or not list((tmp_path / "work").glob("*.pt"))


def test_tap_that_is_not_there(frames: FrameStore, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"no frames of tap block\.7; these are there: encoder_output"):
        train(frames, CONFIG, tmp_path / "work", ["block.7"])
