"""Greedy decoding of windows equals what faster-whisper itself writes with one beam."""

import faster_whisper
import numpy as np
import pytest
from ctranslate2 import StorageView

from tests.support.real_models import sample, truth, weights
from whisper_sae_steer.models.greedy import decode_windows
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.reports import metrics


@pytest.fixture(scope="module")
def model() -> faster_whisper.WhisperModel:
    return plain("tiny.en")


def plain(name: str) -> faster_whisper.WhisperModel:
    return faster_whisper.WhisperModel(
        str(weights(name).ct2_dir), device="cpu", compute_type="float32", cpu_threads=1
    )


def view(name: str, *audio: np.ndarray) -> StorageView:
    return StorageView.from_array(WindowEncoder(weights(name), threads=1)(audio).numpy())


def test_text_and_figures_are_those_of_faster_whisper(model: faster_whisper.WhisperModel):
    segments, _ = model.transcribe(sample("speech"), beam_size=1, temperature=0.0)
    own = list(segments)
    (raw,) = decode_windows(model, view("tiny.en", sample("speech")), [None])
    assert raw["text"] == "".join(segment.text for segment in own).strip()
    assert metrics.normalise(raw["text"], "en") == metrics.normalise(
        truth("speech")["speech"][0]["text"], "en"
    )
    assert raw["no_speech_prob"] == pytest.approx(own[0].no_speech_prob, abs=1e-4)
    assert raw["avg_logprob"] == pytest.approx(own[0].avg_logprob, abs=1e-3)


def test_windows_of_a_batch_do_not_change_each_other(model: faster_whisper.WhisperModel):
    noise = 0.01 * np.random.default_rng(0).standard_normal(80_000).astype(np.float32)
    alone = [decode_windows(model, view("tiny.en", audio), ["en"])[0] for audio in (sample("speech"), noise)]
    together = decode_windows(model, view("tiny.en", sample("speech"), noise), ["en", None])
    assert [raw["text"] for raw in together] == [raw["text"] for raw in alone]
    assert alone[1]["no_speech_prob"] > alone[0]["no_speech_prob"]


def test_limit_cuts_the_text(model: faster_whisper.WhisperModel):
    encoded = view("tiny.en", sample("speech"))
    (whole,) = decode_windows(model, encoded, ["en"])
    (part,) = decode_windows(model, encoded, ["en"], max_new_tokens=6)
    assert part["text"]
    assert whole["text"].startswith(part["text"])
    assert len(part["text"]) < len(whole["text"])


def test_language_is_detected_or_taken():
    model = plain("base")
    encoded = view("base", sample("speech"), sample("speech"), sample("speech"))
    detected, given, forced = decode_windows(model, encoded, [None, "en", "de"])
    assert detected == given
    assert metrics.normalise(forced["text"], "de") != metrics.normalise(given["text"], "de")
