"""A model whose no-speech token is dead, from its checkpoint to a pack that silences it all the same."""

from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.steering.other_weights import LOGIT, without_no_speech_token
from tests.support.calibration_parts import write_noise, write_speech
from tests.support.real_models import sample, truth, weights
from whisper_sae_steer import load_model
from whisper_sae_steer.audio import synthetic
from whisper_sae_steer.calibrate import measure, strength
from whisper_sae_steer.cli import main
from whisper_sae_steer.faster import BatchedInferencePipeline, WhisperModel
from whisper_sae_steer.reports import metrics
from whisper_sae_steer.steering.pack import read_pack

SPEECH = sample("speech")
TIME = np.arange(8 * 16_000) / 16_000
BEEPS = (0.3 * np.sin(2 * np.pi * 500 * TIME) * (TIME % 0.25 < 0.12)).astype("f4")
"""which every model writes something for"""
SILENT = [BEEPS, *(one.audio for one in synthetic.generate(4, seed=21, seconds=(3, 6)))]


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny.en without its no-speech token."""
    path = tmp_path_factory.mktemp("dead") / "dead.pt"
    logits = without_no_speech_token(weights("tiny.en"), [SPEECH, *SILENT], path)
    assert (logits < LOGIT + 10).all()
    return path


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_SAE_STEER_CACHE", str(tmp_path / "cache"))


def words(text: str) -> str:
    return metrics.normalise(text, "en").strip()


def transcribe(model: Any, audio: NDArray[np.float32], alpha: float) -> str:
    ctranslate2.set_random_seed(0)
    options: dict[str, Any] = {"steer_alpha": alpha}
    if isinstance(model, BatchedInferencePipeline):
        options["clip_timestamps"] = [{"start": 0, "end": len(audio) / 16_000}]
    if not isinstance(model, WhisperModel | BatchedInferencePipeline):
        return words(model.transcribe(audio, fp16=False, **options)["text"])
    return words(" ".join(segment.text for segment in model.transcribe(audio, **options)[0]))


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
def test_a_dead_no_speech_token_is_found_out_and_nothing_depends_on_it(
    dead: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(strength, "GRIDS", {"direction": (0.18, 0.25)})
    monkeypatch.setattr(measure, "ALPHAS", (0.0, 1.0))
    noise, speech = write_noise(tmp_path / "noise", 12, 6), write_speech(tmp_path / "speech", 6, 3)
    out = tmp_path / "mine.safetensors"
    fixed = ["calibrate", "--model", dead, "--threads", 1, "--synthetic", 0, "--base", "none", "--out", out]
    assert main([*map(str, fixed), "--nonspeech", str(noise), "--speech", str(speech)]) == 0
    metadata = read_pack(out).metadata
    assert not metadata.no_speech_works
    assert metadata.metrics["unsteered"]["no_speech_prob"] < 1e-5
    assert metadata.metrics["unsteered"]["fpr_raw"] > metadata.metrics["steered"]["fpr_raw"] == 0
    assert metadata.metrics["steered"]["wer_change"] == 0
    assert "no-speech token doesn't work" in capsys.readouterr().out

    model = WhisperModel(str(dead), "cpu", compute_type="float32", cpu_threads=1, pack=out)
    said = words(truth("speech")["speech"][0]["text"])
    assert transcribe(model, BEEPS, 0.0)
    for one in (model, BatchedInferencePipeline(model), load_model(str(dead), "cpu", pack=out)):
        assert transcribe(one, SPEECH, 1.0) == transcribe(one, SPEECH, 0.0) == said
        assert not any(transcribe(one, audio, 1.0) for audio in SILENT)
