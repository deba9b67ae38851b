"""Features that make Whisper write: criteria, single-feature edits on tiny.en, and other SAEs."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.stats import spearmanr
from torch import Tensor
from whisper import DecodingOptions, decode

from tests.support.analysis_parts import make_store, sparse_features
from tests.support.calibration_parts import random_sae
from tests.support.real_models import SAMPLES, sample, truth, weights
from whisper_sae_steer.analysis.hallucination import analysis as hallucination
from whisper_sae_steer.analysis.hallucination import causes
from whisper_sae_steer.analysis.hallucination.causes import EffectConfig, measure
from whisper_sae_steer.analysis.hallucination.criteria import (
    ComparedSAE,
    agreements,
    choose_windows,
    frame_sample,
    overlaps,
)
from whisper_sae_steer.analysis.hallucination.effects import (
    Effect,
    FeatureEdits,
    Reading,
    SpeechEffect,
    TapDecoder,
    effect,
    speech_effect,
)
from whisper_sae_steer.analysis.results import Analysis, write_result
from whisper_sae_steer.analysis.store.activations import INDEX, ActivationStore
from whisper_sae_steer.analysis.store.encode import add_sae, build_store
from whisper_sae_steer.audio.clips import Clip
from whisper_sae_steer.audio.synthetic import generate
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.calibrate.attribution import path_gradient
from whisper_sae_steer.calibrate.windows import CalibrationWindow
from whisper_sae_steer.errors import AnalysisError
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.reports import metrics
from whisper_sae_steer.sae.autoencoder import SAE
from whisper_sae_steer.training.encoders import WhisperFrames

NAME, WIDTH = "tiny.en", 384
Decoders = dict[str, TapDecoder]


@pytest.fixture(scope="module")
def decoders() -> Decoders:
    return {tap: TapDecoder(weights(NAME), tap, threads=1) for tap in ("encoder_output", "block.1")}


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[CalibrationWindow]]:
    """The sample of speech and a noise, at both taps."""
    folder = tmp_path_factory.mktemp("windows")
    noise = next(generate(1, seed=3, seconds=(3, 4))).audio
    windows: dict[str, list[CalibrationWindow]] = {}
    for tap in ("encoder_output", "block.1"):
        encoder = WindowEncoder(weights(NAME), tap, threads=1)
        windows[tap] = []
        for name, audio in (("speech", sample("speech")), ("noise", noise)):
            path = folder / f"{tap}-{name}.npz"
            np.savez(path, frames=encoder([audio])[0].numpy())
            windows[tap].append(
                CalibrationWindow(name, None, name == "speech", "", 1, 100, np.zeros(1500, dtype=bool), path)
            )
    return windows


def sae_at(tap: str = "encoder_output") -> SAE:
    """Random, with thresholds so high that some features never fire."""
    sae = random_sae(WIDTH, 32)
    sae.config = replace(sae.config, tap=tap)
    sae.W_enc.data *= 4
    sae.threshold[:4] = 1e6
    return sae


def test_readings_are_whispers_own(decoders: Decoders, encoded: dict[str, list[CalibrationWindow]]):
    frames = torch.stack([window.frames() for window in encoded["encoder_output"]])
    readings = decoders["encoder_output"](frames, ["en", "en"])
    model = decoders["encoder_output"].objective.model
    options = DecodingOptions(language="en", fp16=False, sample_len=8)
    found: Any = decode(model, frames, options)
    for reading, expected in zip(readings, found, strict=True):
        assert reading.no_speech == pytest.approx(expected.no_speech_prob, rel=1e-3)
    spoken = metrics.word_errors(
        " ".join(part["text"] for part in truth("speech")["speech"]), readings[0].text
    )
    assert spoken is not None
    assert spoken.rate < 0.2
    tokenizer = decoders["encoder_output"].objective.tokenizer("en")
    tokens = torch.tensor([[*tokenizer.sot_sequence, tokenizer.timestamp_begin]])
    with torch.no_grad():
        end = model.decoder(tokens, frames[:1]).softmax(-1)[0, -1, tokenizer.eot]
    assert readings[0].end_of_text == pytest.approx(float(end), rel=1e-3)
    at_block = torch.stack([window.frames() for window in encoded["block.1"]])
    for reading, same in zip(decoders["block.1"](at_block, ["en", "en"]), readings, strict=True):
        assert reading.no_speech == pytest.approx(same.no_speech, rel=1e-2)
        assert reading.end_of_text == pytest.approx(same.end_of_text, rel=1e-2)
        assert reading.text == same.text


@pytest.mark.parametrize("tap", ["encoder_output", "block.1"])
def test_one_feature_is_taken_out_or_added(
    tap: str, decoders: Decoders, encoded: dict[str, list[CalibrationWindow]]
):
    seen: list[Tensor] = []

    class Recording(TapDecoder):
        def __init__(self) -> None: ...
        def __call__(self, frames: Tensor, languages: Sequence[str]) -> list[Reading]:
            seen.append(frames)
            return [Reading(0.5, 0.5, "after")] * len(frames)

    sae, windows = sae_at(tap), encoded[tap]
    before = [Reading(0.1, 0.2, "before")] * 2
    edited = FeatureEdits(Recording(), sae, windows, before)
    frames = torch.stack([window.frames() for window in windows])
    with torch.no_grad():
        acts = sae.encode(frames)
        feature = int((acts > 0).float().mean((0, 1)).argmax())
        only = torch.zeros_like(acts)
        only[..., feature] = acts[..., feature]
        without = frames - only @ sae.W_dec
    fires = acts[..., feature].any(1)
    assert [r.text for r in edited.removed(feature)] == ["after" if f else "before" for f in fires]
    torch.testing.assert_close(seen[0], without[fires], rtol=1e-4, atol=1e-4)
    assert edited.removed(0) == before  # never fires: not decoded again
    assert len(seen) == 1
    edited.added(0, 2.5)
    torch.testing.assert_close(seen[1], frames + 2.5 * sae.W_dec[0])


def test_what_the_decoder_listens_to_ends_the_text(
    decoders: Decoders, encoded: dict[str, list[CalibrationWindow]]
):
    decoder, noise = decoders["encoder_output"], encoded["encoder_output"][1:]
    direction = path_gradient(decoder.objective, [noise[0].frames()], 5.0, steps=2)
    sae = sae_at()
    sae.W_dec.data[0] = direction
    edited = FeatureEdits(decoder, sae, noise, decoder(noise[0].frames()[None], ["en"]))
    more, less = effect(edited.before, edited.added(0, 5.0)), effect(edited.before, edited.added(0, -5.0))
    assert more.d_no_speech + more.d_end_of_text > 0.05
    assert less.d_no_speech + less.d_end_of_text < more.d_no_speech + more.d_end_of_text


def test_effects_are_counted():
    before = [Reading(0.25, 0.5, "Thank you."), Reading(0.5, 0.25, "..."), Reading(0.5, 0.0, "you")]
    after = [Reading(0.75, 0.5, ""), Reading(0.5, 0.5, "Hello"), Reading(0.25, 0.0, "You!")]
    found = effect(before, after)
    assert found[:2] == pytest.approx((0.25 / 3, 0.25 / 3))
    assert found == Effect(*found[:2], emptied=1, filled=1, changed=2, windows=3)
    heard = [Reading(0, 0, "the red house"), Reading(0, 0, "yes"), Reading(0, 0, "")]
    edited = [Reading(0, 0, "The bed house."), Reading(0, 0, "Yes!"), Reading(0, 0, "text")]
    assert speech_effect(heard, edited, ["en"] * 3) == SpeechEffect(1, 2, 1, 4)
    assert speech_effect(heard[2:], edited[2:], ["en"]) is None


def test_criteria_agree_as_far_as_their_ranks():
    rng = np.random.default_rng(0)
    found: dict[str, NDArray[np.float64]] = {name: rng.normal(size=300) for name in ("x", "y")}
    found["z"] = -found["x"]
    alive = np.arange(300) < 250
    by_pair = {(a.a, a.b): a for a in agreements(found, alive, 10)}
    expected = spearmanr(np.abs(found["x"][alive]), np.abs(found["y"][alive]))[0]
    assert by_pair["x", "y"].spearman == pytest.approx(expected)
    assert by_pair["x", "z"][2:] == (pytest.approx(1), 1, 1)  # the sign doesn't count
    top = [set(np.argsort(-np.abs(found[n]))[:10].tolist()) for n in "xy"]
    assert by_pair["x", "y"].jaccard == len(top[0] & top[1]) / len(top[0] | top[1])


def test_top_features_are_found_again_in_another_sae(tmp_path: Path):
    features = sparse_features(300, 40, 3)
    order = np.random.default_rng(1).permutation(40)
    shuffled = csr_matrix(features[:, order])
    importance = {n: np.random.default_rng(i).normal(size=40) for i, n in enumerate(("a", "b", "c"))}
    names = dict(zip(importance, ("logistic", "fisher", "attribution"), strict=True))
    one = {names[n]: v for n, v in importance.items()}
    other = {names[n]: v[order] for n, v in importance.items()} | {"fisher": np.zeros(40)}
    store = make_store(tmp_path / "store", {"one": features, "other": shuffled})
    compared = [ComparedSAE("one", store, features, one), ComparedSAE("other", store, shuffled, other)]
    found = {(o.criterion, o.a): o for o in overlaps(compared, 5)}
    assert len(found) == 6
    same = found["logistic", "one"]
    assert (same.top, same.matched, same.median_iou, same.shared, same.chance) == (5, 1, 1, 1, 5 / 40)
    zero = set(order[:5].tolist())  # of equal importances the first count as top
    best = np.argsort(-np.abs(one["fisher"]))[:5]
    assert found["fisher", "one"].shared == pytest.approx(np.mean([f in zero for f in best]))


def test_frames_to_tell_speech_by(tmp_path: Path):
    mel = np.tile(np.arange(50.0)[:, None], (6, 80)) / 50
    store = make_store(tmp_path / "store", mel=mel)
    sample = frame_sample(store, store.features())
    assert sample.is_speech.sum() == 2 * 25  # the louder half
    assert len(sample.is_speech) == 2 * 25 + 4 * 40
    spoken = csr_matrix(store.features()[25:50])
    assert abs(sample.features[:25] - spoken).nnz == 0
    only = make_store(tmp_path / "only", domains=["speech"] * 3)
    with pytest.raises(AnalysisError, match="holds nothing but speech; both are needed"):
        frame_sample(only, only.features())


def test_windows_are_of_as_many_recordings_as_can_be(tmp_path: Path):
    store = make_store(
        tmp_path / "store", domains=["sound"] * 4 + ["speech"], lengths=[1500, 500, 60, 30, 70],
        clips=["a", "a", "b", "c", "d"], groups=["a", "a", "b", "c", "d"], starts=[0, 30, 0, 0, 0],
    )  # fmt: skip
    first = choose_windows(store, False, 2)
    assert {recipe.clip.group for recipe in first if recipe.clip} == {"a", "b"}
    every = {(recipe.key, recipe.start) for recipe in choose_windows(store, False, 9)}
    assert every == {("a@0", 0), ("a@30", 480_000), ("b@0", 0)}  # c is shorter than a second
    assert [recipe.key for recipe in choose_windows(store, True, 9)] == ["d@0"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    """Two noises and the sample of speech in tiny.en, with a random SAE."""
    folder = tmp_path_factory.mktemp("real")
    clips: list[Clip] = []
    for i, made in enumerate(generate(2, seed=1, seconds=(2, 3))):
        write_wav(folder / f"{i}.wav", made.audio)
        clips.append(_clip(folder / f"{i}.wav", "nonspeech"))
    clips.append(_clip(SAMPLES / "speech.ogg", "speech"))
    made = build_store(WhisperFrames(weights(NAME), ["encoder_output"]), clips, folder / "store")
    add_sae(made, "random", sae_at())
    return made


def _clip(path: Path, kind: str) -> Clip:
    return Clip(path, path.name, "here", kind, kind, "en" if kind == "speech" else "", "", path.name, None)


def test_measured_and_gone_on_with(store: ActivationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out, config = tmp_path / "out", EffectConfig(windows=2, speech=1, top=1, factor=3.0)
    args = argparse.Namespace(
        stores=[f"{store.path}:random"], model=None, windows=2, speech=1, top=1, factor=3.0, out=out
    )
    result = hallucination.run(args)
    write_result(cast(Analysis, hallucination), "hallucination", result, out)
    saved = json.loads((out / "hallucination.json").read_text())
    assert (result.windows, result.speech_windows, result.tap) == (2, 1, "encoder_output")
    counts = {group.name: group.features for group in result.groups}
    assert counts == {"logistic": 1, "fisher": 1, "attribution": 1, "random": 1}
    features = store.features()
    for one, line in zip(result.features, saved["features"], strict=True):
        column = features[:, [one.feature]].data
        assert one.amount == pytest.approx(3 * column.mean(), rel=1e-4)
        assert one.rate == pytest.approx(len(column) / store.rows, abs=1e-6)
        assert one.removed.windows == one.added.windows == 2
        assert line["feature"] == one.feature
        assert line["removed"]["d_no_speech"] == pytest.approx(one.removed.d_no_speech)
        assert one.speech is not None
    assert any(one.added.d_no_speech for one in result.features)

    def no_more(*_: Any) -> Any:
        raise AssertionError("decoded again")

    monkeypatch.setattr(causes.TapDecoder, "__call__", no_more)
    work = out / hallucination.WORK
    assert measure([(store, "random")], work, config) == result
    with pytest.raises(AnalysisError, match="is of another store, SAE or settings"):
        measure([(store, "random")], work, replace(config, factor=1.0))


def test_stores_that_cannot_be_measured(store: ActivationStore, tmp_path: Path):
    with pytest.raises(AnalysisError, match="at least one window without speech"):
        measure([(store, "random")], tmp_path, EffectConfig(windows=0))
    other = make_store(tmp_path / "other", model=NAME)
    with pytest.raises(AnalysisError, match=r"was made by other weights than tiny\.en"):
        measure([(other, "sae")], tmp_path / "work")
    spoken = make_store(tmp_path / "spoken", domains=["speech"] * 3, model=NAME)
    index = json.loads((spoken.path / INDEX).read_text())
    index["fingerprint"] = weights(NAME).fingerprint
    (spoken.path / INDEX).write_text(json.dumps(index))
    gone = ActivationStore.open(spoken.path)
    with pytest.raises(AnalysisError, match="holds nothing but speech"):
        measure([(gone, "sae")], tmp_path / "work")
