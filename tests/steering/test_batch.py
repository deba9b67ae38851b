"""What results report of a window as no_speech_prob: the decoder's own, or 1 where nobody speaks."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import whisper
from faster_whisper.audio import pad_or_trim
from numpy.typing import NDArray

from tests.support.real_models import OPEN, SHUT, sample, saved, vector_pack
from whisper_sae_steer import load_model
from whisper_sae_steer.audio import synthetic
from whisper_sae_steer.faster import BatchedInferencePipeline, WhisperModel
from whisper_sae_steer.models.rules import NO_SPEECH_THRESHOLD
from whisper_sae_steer.steering.batch import SteeredBatch, Verdict

SILENT = {
    "silence": np.zeros(5 * 16_000, np.float32),
    "faint": 1e-3 * np.random.default_rng(0).standard_normal(8 * 16_000).astype(np.float32),
    **{f"sound{i}": one.audio for i, one in enumerate(synthetic.generate(3, seed=3, seconds=(2, 6)))},
}
SPEECH = sample("speech")
Probability = Callable[[NDArray[np.float32], float], float]
"""of nobody speaking in a recording of one window, at α"""


def test_it_is_1_only_where_nobody_speaks_and_the_edit_is_whole():
    rows = [
        (Verdict.SILENCE, 1.0),
        (Verdict.SILENCE, 2.0),
        (Verdict.SILENCE, 0.99),
        (Verdict.SILENCE, -1.0),
        (Verdict.SILENCE, float("nan")),
        (Verdict.DOUBT, 0.0),
        (Verdict.SPEECH, 1.0),  # of the gates that don't look at whole windows
    ]
    verdict = torch.tensor([verdict for verdict, _ in rows], dtype=torch.int8)
    strength = torch.tensor([[strength] for _, strength in rows])
    batch = SteeredBatch(None, torch.zeros(len(rows), 3), strength, verdict)
    assert [batch.no_speech_prob(row, 0.125) for row in range(len(rows))] == [1.0, 1.0, *[0.125] * 5]


# --- real models ---------------------------------------------------------------------------------


@cache
def faster(pack: Path | str = "auto") -> WhisperModel:
    return WhisperModel("tiny.en", "cpu", compute_type="float32", cpu_threads=1, pack=pack)


@cache
def openai(pack: Path | str = "auto") -> Any:
    return load_model("tiny.en", device="cpu", pack=pack)


def by_faster(audio: NDArray[np.float32], alpha: float) -> float:
    """As whisperX and others do, who generate from what the model encodes."""
    model = faster()
    start = [model.hf_tokenizer.token_to_id("<|startoftranscript|>")]
    features = pad_or_trim(model.feature_extractor(audio)[:, :-1])
    with model.steering(alpha):
        encoded = model.encode(features)
        (result,) = model.model.generate(encoded, [start], beam_size=1, return_no_speech_prob=True)
    assert {"sequences", "sequences_ids", "scores", "logits"} <= set(dir(result))
    return result.no_speech_prob


def by_openai(audio: NDArray[np.float32], alpha: float) -> float:
    mel: Any = whisper.pad_or_trim(whisper.log_mel_spectrogram(audio, padding=480_000), 3000)
    (result,) = openai().decode(mel[None], language="en", fp16=False, steer_alpha=alpha)
    assert openai().decode(mel, language="en", fp16=False, steer_alpha=alpha).no_speech_prob == pytest.approx(
        result.no_speech_prob, abs=1e-4
    )
    return result.no_speech_prob


@pytest.mark.parametrize("probability", [by_faster, by_openai])
@pytest.mark.parametrize("name", SILENT)
def test_it_never_falls_where_nobody_speaks(probability: Probability, name: str):
    steered = probability(SILENT[name], 1.0)
    assert steered > NO_SPEECH_THRESHOLD
    assert steered >= probability(SILENT[name], 0.0)


@pytest.mark.parametrize("probability", [by_faster, by_openai])
def test_speech_keeps_its_own_to_the_bit(probability: Probability):
    assert probability(SPEECH, 1.0) == probability(SPEECH, 0.0) < NO_SPEECH_THRESHOLD


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    """Gates that find silence in everything, or speech; their edit is too small for the decoder to notice."""
    return {
        bias: saved(
            vector_pack("tiny.en", bias, gate="window", alpha_unit=1e-6),
            tmp_path_factory.mktemp("packs"),
        )
        for bias in (OPEN, SHUT)
    }


@pytest.mark.parametrize("kind", ["faster", "openai"])
def test_segments_report_it(kind: str, packs: dict[float, Path]):
    """Below α = 1 the decoder's text stays; at 1 nothing is decoded where the gate hears nobody."""

    def reported(bias: float, alpha: float) -> list[float]:
        if kind == "faster":
            segments = faster(packs[bias]).transcribe(SPEECH, steer_alpha=alpha)[0]
            return [segment.no_speech_prob for segment in segments]
        segments = openai(packs[bias]).transcribe(SPEECH, steer_alpha=alpha, fp16=False)["segments"]
        return [segment["no_speech_prob"] for segment in segments]

    own = reported(SHUT, 1.0)
    assert own == reported(SHUT, 0.0)
    assert own[0] < NO_SPEECH_THRESHOLD
    assert reported(OPEN, 0.5) == pytest.approx(own, abs=1e-4)
    assert reported(OPEN, 1.0) == []


def test_the_batched_pipeline_goes_by_it(packs: dict[float, Path]):
    def texts(bias: float, **options: Any) -> list[str]:
        clips = [{"start": 0, "end": len(SPEECH) / 16_000}]
        pipeline = BatchedInferencePipeline(faster(packs[bias]))
        return [s.text for s in pipeline.transcribe(SPEECH, clip_timestamps=clips, **options)[0]]

    spoken = texts(SHUT)
    assert spoken
    assert texts(OPEN) == []
    assert texts(OPEN, steer_alpha=0.5) == texts(OPEN, no_speech_threshold=None) == spoken
