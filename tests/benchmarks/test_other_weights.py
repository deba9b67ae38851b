"""Weights that stand for models without a shipped pack: what is written is read again, and told apart."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.steering import other_weights
from benchmarks.steering.other_weights import BATCH, fine_tuned
from tests.support.calibration_parts import clip
from tests.support.real_models import SAMPLES, truth, weights
from whisper_sae_steer.errors import PackError
from whisper_sae_steer.models.weights import resolve
from whisper_sae_steer.steering.pack import load_pack


def test_a_fine_tune_is_other_weights_and_no_shipped_pack_is_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(other_weights, "STEPS", 1)
    monkeypatch.setenv("WHISPER_SAE_STEER_CACHE", str(tmp_path / "cache"))
    text = " ".join(said["text"] for said in truth("speech")["speech"])
    clips = [
        replace(clip(f"{number}", "speech", path=SAMPLES / "speech.ogg", text=text), language="en")
        for number in range(BATCH)
    ]
    fine_tuned(weights("tiny.en"), clips, tmp_path / "tuned")
    tuned = resolve(str(tmp_path / "tuned"))
    assert tuned.encoder_mark != weights("tiny.en").encoder_mark
    assert tuned.decoder_mark != weights("tiny.en").decoder_mark
    with pytest.raises(PackError, match="make-pack"):
        load_pack("auto", tuned)
