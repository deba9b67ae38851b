"""The command `make-pack`, on tiny.en."""

from pathlib import Path

import pytest

from tests.support.calibration_parts import write_noise, write_speech
from tests.support.real_models import sample, weights
from whisper_sae_steer import faster
from whisper_sae_steer.calibrate import measure, strength
from whisper_sae_steer.cli import main
from whisper_sae_steer.making import autoencoder
from whisper_sae_steer.making.audio import BUNDLE
from whisper_sae_steer.models.cache import cache_dir
from whisper_sae_steer.sae.find import find_sae
from whisper_sae_steer.steering import pack
from whisper_sae_steer.steering.pack import load_pack
from whisper_sae_steer.training.config import TrainConfig


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, where installed packs count."""
    weights("tiny.en")  # found before the cache is another one
    monkeypatch.undo()  # of the fixture that hides installed packs
    monkeypatch.setenv("WHISPER_SAE_STEER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(strength, "GRIDS", {"direction": (0.09, 0.18)})
    monkeypatch.setattr(measure, "ALPHAS", (0.0, 1.0))
    return tmp_path / "cache"


def run(*more: object) -> int:
    return main(["make-pack", "--model", "tiny.en", "--threads", "1", "--no_bundle", *map(str, more)])


def test_too_few_recordings_make_no_pack(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    noise = write_noise(tmp_path / "noise", fitted=3, held=1)
    speech = write_speech(tmp_path / "speech", fitted=2, held=1)
    assert run("--nonspeech", noise, "--speech", speech) == 1
    printed = capsys.readouterr().out
    assert "This takes about" in printed
    assert "SAE" in printed
    assert "not good enough to be installed" in printed
    assert "1 sounds held back are too few" in printed
    assert "20 speakers and 20 sounds at the least" in printed
    assert not pack.installed_packs()
    (work,) = (cache / "make-pack").iterdir()
    assert load_pack(work / "pack.safetensors", weights("tiny.en")).metadata.model == "tiny.en"
    page = (work / "pack.html").read_text(encoding="utf-8")
    assert page.index("not good enough") < page.index("Gains and costs") < page.index("How it was made")


def test_both_kinds_are_needed_without_the_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    noise = write_noise(tmp_path / "noise", fitted=1, held=0)
    assert run("--nonspeech", noise) == 2
    assert "--nonspeech and --speech" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("cache")
def test_from_weights_to_an_installed_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A new SAE, on a part of the bundle; stopped while it is trained, the same command goes on."""
    monkeypatch.setattr(autoencoder, "OPTIONS", TrainConfig(lr=2e-3, steps=400, max_fvu=0.1))
    arguments = ("--nonspeech", BUNDLE, "--speech", BUNDLE, "--per_class", 8, "--sae", "new")
    train = autoencoder.train

    def stopped(*_args: object, **_options: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(autoencoder, "train", stopped)
    assert run(*arguments) == 130
    monkeypatch.setattr(autoencoder, "train", train)
    assert run(*arguments) == 0
    printed = capsys.readouterr().out
    assert "good enough to use" in printed
    (installed,) = pack.installed_packs()
    assert installed.with_suffix(".html").is_file()
    assert find_sae("auto", weights("tiny.en")).is_relative_to(Path("saes").resolve())  # it is the better one
    assert (cache_dir() / "saes").is_dir()
    assert not list((cache_dir() / "make-pack").iterdir())
    model = faster.WhisperModel("tiny.en", device="cpu", compute_type="int8", cpu_threads=1)
    assert model.steerer is not None
    assert model.steerer.pack.path == installed
    segments, _ = model.transcribe(sample("gap"))
    assert "boxes" in " ".join(segment.text for segment in segments)
