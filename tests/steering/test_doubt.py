"""Doubt: which windows the decoder is asked about, what it is believed, and both back ends asking."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support.real_models import sample, truth
from tests.support.small_pack import WIDTH, small_pack
from whisper_sae_steer import load_model
from whisper_sae_steer.faster import BatchedInferencePipeline, WhisperModel
from whisper_sae_steer.reports import metrics
from whisper_sae_steer.steering.batch import SteeredBatch, SteeredWindow, Verdict
from whisper_sae_steer.steering.calls import CallOptions
from whisper_sae_steer.steering.doubt import (
    BRIEF_FRAMES,
    Answer,
    believes,
    in_doubt,
    resolve_doubt,
    stock_texts,
    verdicts,
)
from whisper_sae_steer.steering.metadata import GateLevels
from whisper_sae_steer.steering.operator import Operator
from whisper_sae_steer.steering.pack import read_pack, save_pack, shipped_packs
from whisper_sae_steer.steering.steerer import Steerer


def test_doubt_lies_between_the_highest_noise_and_what_is_surely_speech():
    metadata = small_pack(threshold=2.0, ramp=1.5).metadata
    scores = torch.tensor([[-9.0, -1.0], [-9.0, -0.9], [2.0, -9.0], [7.9, -9.0], [8.0, 8.0]])
    assert in_doubt(scores, metadata).tolist() == [False, True, True, True, False]
    assert not in_doubt(torch.full((2, 3), float("nan")), metadata).any()


@pytest.mark.parametrize(("level", "doubtful"), [(2.5, [True, False]), (1.5, [True, True])])
def test_above_the_threshold_only_what_is_brief_is_in_doubt(level: float, doubtful: list[bool]):
    metadata = small_pack(threshold=2.0, ramp=1.5).metadata
    scores = torch.full((2, 1500), -9.0)
    scores[0, 200 : 200 + BRIEF_FRAMES - 1] = level
    scores[1, 200 : 200 + BRIEF_FRAMES] = level
    assert in_doubt(scores, metadata).tolist() == doubtful


@pytest.mark.parametrize("gate", ["frame", "none"])
def test_only_the_window_gate_is_in_doubt(gate: str):
    metadata = small_pack(gate=gate, threshold=2.0, ramp=1.5).metadata
    assert not in_doubt(torch.zeros(1, 3), metadata).any()


def test_windows_in_doubt_wait_for_the_decoder_and_are_then_steered_in_full():
    """Of three windows one is noise, one in doubt, one speech; by the ramp the second gets half the edit."""
    h = torch.randn(3, 20, WIDTH, generator=torch.Generator().manual_seed(2))
    highest = Operator(small_pack()).scores(h).amax(1)
    low, middle, high = highest.sort().values.tolist()
    ramp = min(high - middle, middle - low) / 5
    pack = small_pack(threshold=middle + 0.5 * ramp, ramp=ramp)
    steerer, doubtful = Steerer(pack), int((highest == middle).nonzero()[0, 0])
    asking = CallOptions(0.8, in_doubt="ask")
    edited = h.clone()
    batch = steerer.steer(edited, asking)
    assert batch.rows(Verdict.DOUBT) == [doubtful]
    assert not batch.window(doubtful).is_silence()
    assert torch.equal(edited[doubtful], h[doubtful])
    given = {"asked": batch.strength[doubtful].item()}
    refused = steerer.steer(h.clone(), replace(asking, in_doubt="edit"))
    assert not refused.rows(Verdict.DOUBT)
    assert refused.window(doubtful).is_silence()
    given["decided"] = refused.strength[doubtful].item()
    in_full = steerer.edit_refused_windows(edited, [doubtful], asking)
    assert torch.equal(in_full[doubtful], refused.frames[doubtful])
    assert torch.equal(edited[doubtful], h[doubtful])
    by_ramp = steerer.steer(h, CallOptions(0.8))
    given["ramp"] = by_ramp.strength[doubtful].item()
    assert given == pytest.approx({"asked": 0, "decided": 0.8, "ramp": 0.4}, rel=1e-4)


@pytest.mark.parametrize(
    ("text", "logprob", "no_speech", "credible"),
    [
        ("Seven.", -0.6, 0.5, True),
        ("Seven.", -1.1, 0.1, False),
        ("Seven.", -0.6, 0.7, False),
        ("", -0.2, 0.1, False),
        ("The train to the coast leaves at noon.", -0.2, 0.1, True),
        ("No, no, no, no, no, no, no, no.", -0.2, 0.1, False),
        ("That's it. That's it. That's it.", -0.5, 0.1, False),
        ("AHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHH", -0.3, 0.1, False),
        ("七", -0.6, 0.1, True),
    ],
)
def test_text_is_credible_if_likely_spoken_and_not_repeated(
    text: str, logprob: float, no_speech: float, credible: bool
):
    answer = Answer(text, logprob, no_speech)
    assert (answer.could_be_said(voiced_frames=60) and answer.is_likely(())) is credible


@pytest.mark.parametrize(
    ("text", "logprob", "voiced_frames", "credible"),
    [
        ("No, no, no.", -0.6, 36, True),
        ("0 0 0", -0.6, 36, True),
        ("No, no, no.", -0.6, 35, False),  # nobody is so quick
        ("No, no, no.", -1.1, 36, False),
        ("Come on, come on.", -0.6, 48, False),  # barks and sneezes give such texts
        (", ".join(["Six"] * 100), -0.1, 1500, False),
        ("...", -0.1, 1500, False),
    ],
)
def test_a_word_said_again_is_credible_if_it_is_likely_and_had_time(
    text: str, logprob: float, voiced_frames: int, credible: bool
):
    assert Answer(text, logprob, 0.1).could_be_said(voiced_frames) is credible


@pytest.mark.parametrize(
    ("text", "prompt", "echoes"),
    [
        ("And so, my fellow", "he said: and so my fellow Americans", True),
        ("And so, my fellow", "", False),
        ("And so, my fellow", "And so my dear fellow", False),
        ("No, no.", "no no", False),  # a short answer is given more than once
    ],
)
def test_an_echo_is_nothing_but_words_of_the_prompt(text: str, prompt: str, echoes: bool):
    answer = Answer(text, -0.3, 0.1, prompt)
    assert answer.echoes_prompt() is echoes
    window = SteeredWindow(torch.full((1500,), 2.5), torch.tensor(Verdict.DOUBT))
    metadata = small_pack(threshold=2.0, ramp=1.5).metadata
    assert believes(window, answer, metadata) is not echoes


def test_what_is_written_for_any_noise_is_not_credible():
    texts = ["Thank you.", " thank you!", "Thank you", *"abcdefg", "", "", "", "", "Okay.", "okay"]
    assert stock_texts(texts) == ("thank you",)
    assert stock_texts(texts * 2, share=0.1) == ("okay", "thank you")
    assert not Answer("Thank you!", -0.3, 0.1).is_likely(stock_texts(texts))
    assert Answer("Thank you, train.", -0.3, 0.1).is_likely(stock_texts(texts))
    assert not Answer("Thank you. Thank you.", -0.3, 0.1).is_likely(stock_texts(texts))
    assert Answer("Thank you you.", -0.3, 0.1).is_likely(stock_texts(texts))


def doubtful_batch() -> SteeredBatch:
    """Two windows in doubt, the first of which leans to speech."""
    scores = torch.tensor([[-3.0, 2.1], [-3.0, 1.9]])
    doubt = torch.full((2,), Verdict.DOUBT, dtype=torch.int8)
    return SteeredBatch(torch.zeros(2, 2, WIDTH), scores, torch.zeros(2, 1), doubt)


def test_where_the_gate_leans_to_speech_less_speaks_against_the_text():
    metadata = small_pack(threshold=2.0, ramp=1.5, stock_texts=("thank you",)).metadata
    above, below = (doubtful_batch().window(row) for row in (0, 1))
    for doubtful in (Answer("Thank you.", -0.3, 0.1), Answer("Off.", -1.1, 0.1), Answer("Six.", -0.3, 0.8)):
        assert believes(above, doubtful, metadata)
        assert not believes(below, doubtful, metadata)
    for never in (Answer("Seven.", -1.4, 0.1), Answer("No, no, no.", -0.3, 0.1)):
        assert not believes(above, never, metadata)
        assert not believes(below, never, metadata)
    assert believes(below, Answer("Seven.", -0.3, 0.1), metadata)


def test_a_no_speech_token_that_does_not_work_is_not_asked():
    answer = Answer("Six.", -0.3, 0.8)
    working = small_pack(threshold=2.0, ramp=1.5, stock_texts=("thank you",)).metadata
    below, dead = doubtful_batch().window(1), replace(working, no_speech_works=False)
    assert not believes(below, answer, working)
    assert believes(below, answer, dead)
    for never in (Answer("Thank you.", -0.3, 0.0), Answer("Six.", -1.1, 0.0)):
        assert not believes(below, never, dead)


def test_what_the_decoder_stands_by_is_speech_and_the_rest_is_edited_as_silence():
    metadata = small_pack(threshold=2.0, ramp=1.5, stock_texts=("thank you",)).metadata
    answers = [Answer("Thank you.", -0.3, 0.1)] * 2
    asked: list[list[int]] = []
    edited: list[list[int]] = []

    def ask(rows: Sequence[int]) -> list[Answer]:
        asked.append(list(rows))
        return [answers[row] for row in rows]

    def edit_refused(batch: SteeredBatch, rows: Sequence[int]) -> SteeredBatch:
        edited.append(list(rows))
        return batch._replace(frames="edited")

    batch = doubtful_batch()
    resolved = resolve_doubt(batch, metadata, ask, edit_refused)
    assert (asked, edited, resolved.frames) == ([[0, 1]], [[1]], "edited")
    assert resolved.verdict.tolist() == [Verdict.SPEECH, Verdict.SILENCE]
    assert batch.verdict.tolist() == [Verdict.DOUBT] * 2
    assert resolve_doubt(resolved, metadata, ask, edit_refused) is resolved
    assert len(asked) == 1


def test_verdicts_of_the_gate_alone():
    """The gate is fully open at the first score, half open at the second, shut at the last."""
    metadata = small_pack(threshold=2.0, ramp=1.5).metadata
    scores = torch.tensor([[-9.0], [1.25], [9.0]])
    speech, doubt, silence = Verdict.SPEECH, Verdict.DOUBT, Verdict.SILENCE
    assert verdicts(scores, metadata, "ramp").tolist() == [silence, speech, speech]
    assert verdicts(scores, metadata, "ask").tolist() == [silence, doubt, speech]
    assert verdicts(scores, metadata, "edit").tolist() == [silence, silence, speech]
    ungated = small_pack(gate="none", threshold=2.0, ramp=1.5).metadata
    assert verdicts(scores, ungated, "ask").tolist() == [speech] * 3
    assert verdicts(torch.zeros(0, 3), metadata, "ask").shape == (0,)


# --- real models: a gate that is in doubt about everything ---------------------------------------


@pytest.fixture(scope="module")
def doubting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return doubting_pack("tiny.en", tmp_path_factory.mktemp("packs"))


def doubting_pack(model: str, folder: Path) -> Path:
    pack = read_pack(shipped_packs()[model])
    metadata = replace(pack.metadata, levels=GateLevels.spaced(1e4, 1e4, pack.metadata.levels.gap_below))
    save_pack(pack._replace(metadata=metadata), folder / "doubting.safetensors")
    return folder / "doubting.safetensors"


def words(text: str) -> str:
    return metrics.normalise(text, "en").strip()


def transcribe(kind: str, pack: Path, audio: NDArray[np.float32], **options: Any) -> str:
    if kind == "openai":
        return words(load_model("tiny.en", pack=pack).transcribe(audio, fp16=False, **options)["text"])
    model = WhisperModel("tiny.en", compute_type="int8", cpu_threads=1, pack=pack)
    chosen = BatchedInferencePipeline(model) if kind == "batched" else model
    given = {"clip_timestamps": [{"start": 0, "end": len(audio) / 16_000}]} if kind == "batched" else {}
    return words(" ".join(s.text for s in chosen.transcribe(audio, **given, **options)[0]))


@pytest.mark.parametrize("kind", ["faster", "batched", "openai"])
def test_speech_that_the_gate_doubts_is_heard_by_the_decoder(kind: str, doubting: Path):
    audio = sample("speech")
    heard = transcribe(kind, doubting, audio)
    assert heard == transcribe(kind, doubting, audio, steer_alpha=0)
    assert heard == words(truth("speech")["speech"][0]["text"])


@pytest.mark.parametrize("kind", ["faster", "batched", "openai"])
def test_a_word_said_twice_that_the_gate_doubts_is_heard(kind: str, doubting: Path):
    """tiny.en hears another word than "close", but twice."""
    word = sample("speech")[round(6.69 * 16_000) : round(7.31 * 16_000)]
    audio = np.concatenate([word, np.zeros(1600, np.float32), word])
    heard = transcribe(kind, doubting, audio, temperature=0.0, beam_size=5)
    assert heard == transcribe(kind, doubting, audio, steer_alpha=0, temperature=0.0, beam_size=5)
    first, second = heard.split()
    assert first == second


@pytest.mark.parametrize("kind", ["faster", "batched", "openai"])
def test_noise_that_the_gate_doubts_is_steered(kind: str, doubting: Path):
    time = np.arange(8 * 16_000) / 16_000
    beeps = 0.3 * np.sin(2 * np.pi * 500 * time) * (time % 0.25 < 0.12)
    options = {"temperature": 0.0, "no_speech_threshold": None, "beam_size": 5}
    assert transcribe(kind, doubting, beeps.astype("f4"), steer_alpha=0, **options)
    assert not transcribe(kind, doubting, beeps.astype("f4"), **options)


def test_the_language_of_a_window_in_doubt_is_detected_as_it_is(tmp_path: Path):
    """Steered, single words of robotic voices were read in another language, and then as nothing."""
    model = WhisperModel("base", compute_type="int8", cpu_threads=1, pack=doubting_pack("base", tmp_path))
    speech = sample("speech")
    _, steered = model.transcribe(speech, steer_language_detection=True)
    window = model.feature_extractor(speech)[:, :-1]  # transcribe leaves the last frame out
    assert steered.all_language_probs == model.detect_language(features=window)[2]
