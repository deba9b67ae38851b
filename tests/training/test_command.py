"""The command `train` on real weights, and options made of dataclasses."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.support.paths import ROOT
from tests.support.real_models import weights
from tests.support.training_parts import small_recordings
from whisper_sae_steer.cli import main
from whisper_sae_steer.commands.fields import add_fields, from_fields
from whisper_sae_steer.sae.formats import load_sae

SMALL = [
    *("--model", "tiny.en", "--steps", "4", "--batch_size", "64", "--k", "4"),
    *("--expansion", "1", "--buffer_frames", "1000"),
]


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    return small_recordings(tmp_path)


def test_train_writes_saes_and_a_report(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    options = ["--taps", "encoder_output", "block.2", "--seeds", "0", "7", "--noise_share", "1"]
    assert main(["train", *folders, "--out", str(out), *SMALL, *options]) == 0
    for tap in ("encoder_output", "block.2"):
        for seed in (0, 7):
            config = load_sae(out / tap / f"seed{seed}").config
            assert (config.tap, config.model, config.d_in, config.d_sae) == (tap, "tiny.en", 384, 384)
            assert config.metadata["fingerprint"] == weights("tiny.en").fingerprint
            assert config.metadata["encoder_mark"] == weights("tiny.en").encoder_mark
            assert json.loads(json.dumps(config.metadata))["held_back"]["frames"] > 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "4 sparse autoencoders" in page
    printed = capsys.readouterr().out
    assert "FVU" in printed
    assert "block.2-seed7" in printed


def test_train_on_the_fly_keeps_no_activations(folders: list[str], tmp_path: Path):
    out = tmp_path / "out"
    assert main(["train", *folders, "--out", str(out), *SMALL, "--on_the_fly"]) == 0
    assert [path.parent for path in out.rglob("*.safetensors")] == [out]
    assert load_sae(out).config.tap == "encoder_output"


def test_train_refuses_other_domains(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", f"voices={tmp_path}", "--out", str(tmp_path / "out"), *SMALL]) == 2
    assert "'voices' is none of speech, music, sound" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@dataclass(frozen=True)
class Options:
    """Of every form."""

    count: int = 3
    """how many; at
    least 1"""
    limit: int | None = None
    """none at all"""
    share: float = 0.5
    """100% at most"""
    shares: tuple[float, ...] = (0.5, 1.0)
    """several"""
    way: Literal["up", "down"] = "up"
    """where"""
    fast: bool = False
    """hurry"""


def test_options_of_a_dataclass():
    parser = argparse.ArgumentParser()
    add_fields(parser, Options)
    assert from_fields(parser.parse_args([]), Options) == Options()
    words = "--count=4 --limit=2 --share=0.25 --shares 1 2 3 --way=down --fast"
    given = parser.parse_args(words.split(" "))
    assert from_fields(given, Options) == Options(4, 2, 0.25, (1, 2, 3), "down", True)
    shown = " ".join(parser.format_help().split())
    for text in ("how many; at least 1", "100% at most", "{up,down}"):
        assert text in shown
    with pytest.raises(SystemExit):
        parser.parse_args(["--way", "left"])


def test_skipped_options_keep_their_defaults_elsewhere():
    parser = argparse.ArgumentParser()
    add_fields(parser, Options, skip=("fast",))
    with pytest.raises(SystemExit):
        parser.parse_args(["--fast"])


def test_quality_of_saes_on_a_store(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    assert main(["train", *folders, "--out", str(out), *SMALL, "--taps", "encoder_output"]) == 0
    capsys.readouterr()
    page = tmp_path / "quality.html"
    arguments = ["--frames", str(out / "work" / "frames"), "--out", str(page), "--model", "tiny.en"]
    assert main(["quality", str(out), *arguments]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(str(out)))
    trained = load_sae(out).config.metadata["held_back"]
    assert isinstance(trained, dict)
    assert f"{trained['fvu']:.4f}"[:5] in line  # the matrices were rounded to float16
    assert "Training curves" in page.read_text(encoding="utf-8")


def test_quality_refuses_another_tap(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    assert main(["train", *folders, "--out", str(out), *SMALL, "--taps", "block.0"]) == 0
    shipped = ROOT / "saes" / "tiny.en" / "encoder_output"
    arguments = ["--frames", str(out / "work" / "frames"), "--out", str(tmp_path / "quality.html")]
    assert main(["quality", str(shipped), *arguments]) == 2
    assert "reads encoder_output; " in capsys.readouterr().err
    assert not (tmp_path / "quality.html").exists()
