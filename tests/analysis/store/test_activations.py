"""Activation stores: rows that fit the audio, resuming, and stores that can't be used."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from faster_whisper.feature_extractor import FeatureExtractor

from tests.support.analysis_parts import make_sae, make_store, sparse_features
from tests.support.real_models import SAMPLES, sample, weights
from tests.support.training_parts import Meaner, clip, enlarge_activations, write_wav
from whisper_sae_steer.analysis.store import activations as store
from whisper_sae_steer.analysis.store import encode
from whisper_sae_steer.analysis.store.activations import ActivationStore, open_sae, order_of_tap
from whisper_sae_steer.analysis.store.encode import add_sae, build_store
from whisper_sae_steer.audio.clips import Clip
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.errors import AnalysisError, SAEFormatError
from whisper_sae_steer.sae.autoencoder import SAE, SAEConfig
from whisper_sae_steer.sae.formats import load_sae, save_sae
from whisper_sae_steer.training.encoders import WhisperFrames


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    kinds = ("speech", "nonspeech", "music", "speech")
    return [
        clip(write_wav(tmp_path / f"{i}.wav", 3.01 + 0.5 * i + 30 * (i == 2), i), kind)
        for i, kind in enumerate(kinds)
    ]


def small_sae(tap: str = "block.0", seed: int = 0) -> SAE:
    return make_sae(8, 20, tap, seed)


def test_rows_are_the_content_of_the_windows(clips: list[Clip], tmp_path: Path):
    built = build_store(Meaner(), clips, tmp_path / "store")
    assert ActivationStore.open(tmp_path / "store") == built
    assert [(w.clip, w.start, w.domain) for w in built.windows] == [
        ("0.wav", 0, "speech"), ("1.wav", 0, "sound"), ("2.wav", 0, "music"), ("2.wav", 30, "music"),
        ("3.wav", 0, "speech"),
    ]  # fmt: skip
    assert [window.frames for window in built.windows] == [151, 176, 1500, 201, 226]
    assert built.rows == sum(window.frames for window in built.windows)
    assert built.seconds == pytest.approx(built.rows / 50)
    frames, second = built.frames("encoder_output"), load_audio(clips[2].path)[480_000:]
    (expected,) = Meaner()([second])
    last = built.windows[3]
    np.testing.assert_array_equal(
        frames[last.rows], expected.taps["encoder_output"][: expected.content].half().numpy()
    )
    assert list(np.unique(built.labels(lambda window: window.domain)[last.rows])) == ["music"]
    assert (built.window_numbers()[last.rows] == 3).all()
    with pytest.raises(AnalysisError, match=r"no frames of block\.7; it has block\.0, encoder_output"):
        built.frames("block.7")


def test_mel_rows_lie_on_the_frames(tmp_path: Path):
    samples = np.zeros(3 * 16_000, np.float32)
    samples[20_000:24_000] = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(4000) / 16_000)  # 1.25 s to 1.5 s
    path = write_wav(tmp_path / "tone.wav", 3, 0)
    pcm = (samples * 32767).astype(np.int16).tobytes()
    path.write_bytes(path.read_bytes()[:44] + pcm)
    mel = build_store(Meaner(), [clip(path)], tmp_path / "store").mel()
    whole = FeatureExtractor()(load_audio(path), padding=0)
    expected = [(whole[:, 2 * i] + whole[:, 2 * i + 1]) / 2 for i in range(150)]
    np.testing.assert_allclose(mel, expected, atol=2e-3)
    loud = np.flatnonzero(mel.max(1) > mel.max() - 0.5)
    assert (loud[0], loud[-1]) == (pytest.approx(62, abs=1), pytest.approx(75, abs=1))


def test_interrupted_encoding_goes_on(clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encode, "CLIPS_A_PART", 1)
    whole_encoder, encoder, real = Meaner(), Meaner(), Meaner.__call__
    whole = build_store(whole_encoder, clips, tmp_path / "whole")

    def interrupt(self: Meaner, windows: list[np.ndarray]):
        if self.windows == 2:
            raise KeyboardInterrupt
        return real(self, windows)

    monkeypatch.setattr(Meaner, "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_store(encoder, clips, tmp_path / "parts")
    with pytest.raises(AnalysisError, match="no finished activations; make them with"):
        ActivationStore.open(tmp_path / "parts")
    monkeypatch.setattr(Meaner, "__call__", real)
    resumed = build_store(encoder, clips, tmp_path / "parts")
    assert encoder.windows == whole_encoder.windows == 5
    assert (resumed.windows, resumed.parts, resumed.key) == (whole.windows, whole.parts, whole.key)
    for tap in whole.taps:
        np.testing.assert_array_equal(resumed.frames(tap), whole.frames(tap))
    build_store(encoder, clips, tmp_path / "parts")
    assert encoder.windows == 5  # a finished one is not encoded again


def test_damaged_part(clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encode, "CLIPS_A_PART", 2)
    built = build_store(Meaner(), clips, tmp_path / "store")
    before = built.frames("block.0")
    part = tmp_path / "store" / store.PARTS / built.parts[1].name
    part.write_bytes(part.read_bytes()[:-10])
    with pytest.raises(AnalysisError, match=r"missing or damaged; remove index\.json and encode again"):
        built.frames("block.0")
    (tmp_path / "store" / store.INDEX).unlink()
    encoder = Meaner()
    again = build_store(encoder, clips, tmp_path / "store")
    assert encoder.windows == 3  # of the damaged part alone
    np.testing.assert_array_equal(again.frames("block.0"), before)


@pytest.mark.parametrize("change", ["clips", "label", "weights"])
def test_a_store_of_something_else_is_refused(clips: list[Clip], tmp_path: Path, change: str):
    build_store(Meaner(), clips, tmp_path / "store")
    encoder = Meaner()
    if change == "weights":
        encoder.fingerprint = "e" * 32
    others = {"clips": clips[1:], "label": [clip(clips[0].path, "music"), *clips[1:]], "weights": clips}
    with pytest.raises(AnalysisError, match="other audio, weights or taps; choose another"):
        build_store(encoder, others[change], tmp_path / "store")


def test_unreadable_files_are_skipped(clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encode, "CLIPS_A_PART", 1)
    clips[0].path.write_bytes(b"no audio")
    built = build_store(Meaner(), clips, tmp_path / "store")
    assert built.windows[0].clip == "1.wav"
    assert built.windows[0].first == 0
    assert len(built.frames("block.0")) == built.rows
    with pytest.raises(AnalysisError, match="none of the audio files could be read"):
        build_store(Meaner(), clips[:1], tmp_path / "none")


def test_activations_that_float16_cannot_hold(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    enlarge_activations(monkeypatch, 1e6)
    with pytest.raises(AnalysisError, match=r"activations at block\.0 don't fit float16"):
        build_store(Meaner(), clips, tmp_path / "store")
    assert not list((tmp_path / "store").rglob("*.safetensors"))


def test_features_are_those_of_the_sae(clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encode, "ENCODED_AT_ONCE", 700)
    built, sae = build_store(Meaner(), clips, tmp_path / "store"), small_sae()
    add_sae(built, "mine", sae)
    with torch.no_grad():
        expected = sae.encode(torch.from_numpy(built.frames("block.0")).float())
    assert 0 < (expected > 0).float().mean() < 0.9
    np.testing.assert_allclose(built.features().toarray(), expected.numpy(), rtol=1e-5, atol=1e-6)
    assert built.saes == ("mine",)
    assert torch.equal(built.sae().W_dec, sae.W_dec)
    add_sae(built, "mine", sae)
    with pytest.raises(AnalysisError, match="another SAE named mine"):
        add_sae(built, "mine", small_sae(seed=1))
    with pytest.raises(AnalysisError, match="can't be the name of a folder"):
        add_sae(built, "a/b", sae)
    with pytest.raises(SAEFormatError, match="width 12"):
        add_sae(built, "wide", make_sae(12, 20, "block.0"))
    with pytest.raises(AnalysisError, match="doesn't say which tap"):
        add_sae(built, "anywhere", small_sae(tap=""))


def test_an_sae_without_a_threshold_gets_one(clips: list[Clip], tmp_path: Path):
    built = build_store(Meaner(), clips, tmp_path / "store")
    sae = SAE(SAEConfig(8, 20, "batchtopk", 3, "block.0"))
    sae.load_state_dict(small_sae().state_dict(), strict=False)
    add_sae(built, "topk", sae)
    features = built.features("topk")
    assert features.nnz / built.rows == pytest.approx(3, rel=0.01)
    assert load_sae(built.path / store.FEATURES / "topk").config.architecture == "jumprelu"


def test_a_damaged_matrix_is_named(tmp_path: Path):
    built = make_store(tmp_path / "store")
    matrix = built.path / store.FEATURES / "sae" / store.MATRIX
    matrix.write_bytes(matrix.read_bytes()[:-10])
    with pytest.raises(AnalysisError, match="damaged; remove it and encode again"):
        built.features()


def test_sources_are_stores_and_saes(tmp_path: Path):
    saes = {name: sparse_features(300, 9, 2) for name in ("one", "two")}
    make_store(tmp_path / "both", saes)
    make_store(tmp_path / "with:colon")
    built, name = open_sae(f"{tmp_path / 'both'}:two")
    assert (built.path, name) == (tmp_path / "both", "two")
    assert open_sae(str(tmp_path / "with:colon"))[1] == "sae"
    assert open_sae(f"{tmp_path / 'with:colon'}:sae")[1] == "sae"
    with pytest.raises(AnalysisError, match="choose an SAE; it has one, two"):
        open_sae(str(tmp_path / "both"))
    with pytest.raises(AnalysisError, match="no SAE 'three'; it has one, two"):
        open_sae(f"{tmp_path / 'both'}:three")
    with pytest.raises(AnalysisError, match="analyze encode"):
        open_sae(str(tmp_path / "nothing"))


def test_order_of_taps():
    taps = ["encoder_output", "block.10", "block.2", "block.0"]
    assert sorted(taps, key=order_of_tap) == taps[::-1]


def test_an_index_of_something_else_is_refused(tmp_path: Path):
    built = make_store(tmp_path / "store")
    index = json.loads((built.path / store.INDEX).read_text())
    for broken in ("[]", "{}", json.dumps({**index, "windows": [[1]]}), "no json"):
        (built.path / store.INDEX).write_text(broken)
        with pytest.raises(AnalysisError, match="no finished activations"):
            ActivationStore.open(built.path)


def test_real_model_and_recording(tmp_path: Path):
    from whisper_sae_steer.cli import main

    sae = make_sae(384, 64)
    save_sae(sae, tmp_path / "random")
    folder = tmp_path / "speech"
    folder.mkdir()
    (folder / "speech.ogg").symlink_to(SAMPLES / "speech.ogg")
    taps = ["block.1", "encoder_output"]
    command = ["analyze", "encode", f"speech={folder}", "--model", "tiny.en", "--device", "cpu"]
    command += ["--taps", *taps, "--sae", str(tmp_path / "random")]
    assert main([*command, "--out", str(tmp_path / "store")]) == 0
    built, name = open_sae(str(tmp_path / "store"))
    assert (name, built.taps, built.model) == ("random", dict.fromkeys(taps, 384), "tiny.en")
    assert {window.domain for window in built.windows} == {"speech"}
    audio = sample("speech")
    pieces = [audio[start : start + 480_000] for start in range(0, len(audio), 480_000)]
    encoded = list(WhisperFrames(weights("tiny.en"), taps)(pieces))
    for tap in taps:  # PyTorch's residual stream lies in memory column by column
        expected = torch.cat([frames.taps[tap][: frames.content] for frames in encoded]).half()
        np.testing.assert_array_equal(built.frames(tap), expected.numpy())
    with torch.no_grad():
        features = sae.encode(torch.from_numpy(built.frames("encoder_output")).float()).numpy()
    np.testing.assert_allclose(built.features().toarray(), features, rtol=1e-4, atol=1e-4)
