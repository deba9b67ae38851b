"""The reconstruction in place of the activation, on tiny.en, against CTranslate2 and PyTorch themselves."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import faster_whisper
import numpy as np
import pytest
import torch
from ctranslate2 import StorageView
from numpy.typing import NDArray
from torch import Tensor

from tests.support.calibration_parts import clip, random_sae
from tests.support.real_models import SAMPLES, sample, truth, weights
from whisper_sae_steer.audio.clips import Clip
from whisper_sae_steer.audio.synthetic import clip as synthetic_clip
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.bench.backends import FasterBackend, Transcript
from whisper_sae_steer.bench.runner import read_rows
from whisper_sae_steer.errors import ManifestError, PackError, SAEFormatError
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.models.greedy import RawWindow
from whisper_sae_steer.sae.autoencoder import SAE, SAEConfig
from whisper_sae_steer.training import downstream
from whisper_sae_steer.training.downstream import (
    BlockSplicedEncoder,
    Downstream,
    SplicedBackend,
    measure_downstream,
)

WIDTH = 384
SPEECH = sample("speech")


def perfect(tap: str = "encoder_output") -> SAE:
    """Reconstructs every frame: one feature for each sign of each dimension."""
    eye = torch.eye(WIDTH)
    sae = SAE(SAEConfig(WIDTH, 2 * WIDTH, tap=tap, model="tiny.en"))
    sae.W_enc.data, sae.W_dec.data = torch.cat([eye, -eye], 1), torch.cat([eye, -eye])
    return sae


def constant(tap: str) -> tuple[SAE, Tensor]:
    """Reconstructs the same vector whatever the frame is."""
    sae = SAE(SAEConfig(WIDTH, 2, tap=tap, model="tiny.en"))
    sae.b_dec.data = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))
    return sae, sae.b_dec.data


@cache
def backend(tap: str, kind: Callable[[str], Any]) -> SplicedBackend:
    made = kind(tap)
    return SplicedBackend(weights("tiny.en"), made[0] if isinstance(made, tuple) else made, threads=1)


@cache
def plain() -> faster_whisper.WhisperModel:
    folder = str(weights("tiny.en").ct2_dir)
    return faster_whisper.WhisperModel(folder, "cpu", compute_type="float32", cpu_threads=1)


def mel() -> NDArray[np.float32]:
    features = plain().feature_extractor(SPEECH)[:, :-1]
    return np.pad(features, ((0, 0), (0, 3000 - features.shape[1])))


def encode(spliced: SplicedBackend, alpha: float) -> Tensor:
    with spliced._at(alpha):
        return torch.from_numpy(np.array(spliced._plain.model.encode(mel())))[0]


TAPS = ("encoder_output", "block.1")


@pytest.mark.parametrize("tap", TAPS)
def test_untouched_is_the_library_bit_for_bit(tap: str):
    expected = torch.from_numpy(np.array(plain().encode(mel())))[0]
    assert torch.equal(encode(backend(tap, perfect), 0.0), expected)


@pytest.mark.parametrize("tap", TAPS)
def test_a_perfect_reconstruction_changes_nothing(tap: str):
    spliced = backend(tap, perfect)
    torch.testing.assert_close(encode(spliced, 1.0), encode(spliced, 0.0), atol=2e-3, rtol=0)
    untouched = FasterBackend(plain(), "tiny.en", "float32")
    expected, found = (b.transcribe(SPEECH, a, None) for b, a in ((untouched, 0.0), (spliced, 1.0)))
    assert found.text == expected.text
    assert "blue boxes" in found.text
    assert spliced.first_window(SPEECH, 1.0, None)["text"] == untouched.first_window(SPEECH, 0, None)["text"]


@pytest.mark.parametrize("tap", TAPS)
@torch.no_grad()
def test_every_frame_is_replaced_at_the_tap(tap: str):
    """A constant's way through the rest of the encoder, content and padding alike."""
    frames = constant(tap)[1].expand(1, 1500, WIDTH)
    if tap != "encoder_output":
        encoder = load_torch(weights("tiny.en")).encoder
        for block in list(encoder.blocks)[int(tap[-1]) + 1 :]:
            frames = block(frames)
        frames = encoder.ln_post(frames)
    found = encode(backend(tap, constant), 1.0)
    torch.testing.assert_close(found, frames[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tap", TAPS)
def test_frames_are_spliced_once_a_window_on_their_way_to_the_decoder(
    tap: str, monkeypatch: pytest.MonkeyPatch
):
    spliced = backend(tap, constant)
    model = spliced._plain.model
    found: list[list[float]] = []
    generate = model.model._inner.generate

    class Inner:
        def __getattr__(self, name: str) -> Any:
            return getattr(original, name)

        def generate(self, features: StorageView, *args: Any, **kwargs: Any) -> Any:
            found.append(np.array(features)[0, [0, 700, 1499], 0].tolist())
            return generate(features, *args, **kwargs)

    original = model.model._inner
    calls: list[int] = []
    call = downstream.Splice.__call__

    def counted(self: downstream.Splice, h: Tensor) -> None:
        calls.append(len(h))
        call(self, h)

    monkeypatch.setattr(downstream.Splice, "__call__", counted)
    monkeypatch.setattr(model.model, "_inner", Inner())
    list(spliced._plain.model.transcribe(SPEECH, temperature=0.0, max_new_tokens=4, beam_size=1)[0])
    untouched, done = found.copy(), len(calls)
    found.clear()
    with spliced._at(1.0):  # mel handed over as it is must not be encoded out of sight
        options = {"temperature": 0.0, "max_new_tokens": 4, "beam_size": 1}
        list(spliced._plain.model.transcribe(SPEECH, **options)[0])
        windows = len(calls) - done
        features = StorageView.from_array(mel()[None])
        model.model.generate(features, [[50257]], max_length=4)
    expected = encode(spliced, 1.0)[[0, 700, 1499], 0].tolist()
    assert windows == len(found) - 1 >= 1
    assert len(calls) - done == windows + 2  # one more by generate(), one by encode()
    for values in found:
        assert values == pytest.approx(expected, abs=1e-5)
    assert untouched[0] != pytest.approx(expected, abs=1e-2)


def test_only_blocks_are_encoded_in_torch():
    assert not isinstance(backend("encoder_output", perfect)._plain.model.model, BlockSplicedEncoder)


@pytest.fixture
def clips(tmp_path: Path) -> tuple[list[Clip], list[Clip]]:
    """One utterance and two noises."""
    text = truth("speech")["speech"][0]["text"]
    speech = [clip("speech/a", "speech", path=SAMPLES / "speech.ogg", text=text)]
    noises: list[Clip] = []
    for number in range(2):
        path = tmp_path / f"{number}.wav"
        write_wav(path, synthetic_clip("white", number, seconds=(1, 1)).audio)
        noises.append(clip(f"noise/{number}", path=path))
    return speech, noises


class Parrot:
    """In SplicedBackend's place: spliced, it writes for noise and loses the first word of speech."""

    name, model_name, compute_type = "faster", "tiny.en", "float32"
    calls: list[float]
    stop_after = -1

    def __init__(self, _weights: object, sae: SAE, threads: int = 0):
        self.pack = f"sae {downstream._digest(sae)}"

    def transcribe(self, audio: NDArray[np.float32], alpha: float, language: str | None) -> Transcript:
        if len(Parrot.calls) == Parrot.stop_after:
            raise KeyboardInterrupt
        Parrot.calls.append(alpha)
        if len(audio) > 20_000:
            text = truth("speech")["speech"][0]["text"]
            return Transcript(text.partition(" ")[2] if alpha else text, [])
        return Transcript("you" if alpha else "", [])

    def first_window(self, audio: NDArray[np.float32], alpha: float, language: str | None) -> RawWindow:
        return RawWindow(text="" if alpha else "you", no_speech_prob=0.5, avg_logprob=-1.0)


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch) -> type[Parrot]:
    monkeypatch.setattr(downstream, "SplicedBackend", Parrot)
    monkeypatch.setattr(Parrot, "calls", [], raising=False)
    monkeypatch.setattr(Parrot, "stop_after", -1)
    return Parrot


def measured(sae: SAE, clips: tuple[list[Clip], list[Clip]], work: Path) -> Downstream:
    return measure_downstream(weights("tiny.en"), sae, *clips, work, threads=1, progress=False)


def test_costs_are_the_benchs_with_intervals(
    parrot: type[Parrot], clips: tuple[list[Clip], list[Clip]], tmp_path: Path
):
    found = measured(random_sae(), clips, tmp_path / "work")
    assert (found.speech, found.nonspeech, found.failed) == (1, 2, 0)
    assert found.wer is not None
    words = len(truth("speech")["speech"][0]["text"].split())
    assert (found.wer.untouched, found.wer.spliced) == ((0, 0, 0, words), (0, 1, 0, words))
    assert found.wer.change == (1 / words, 1 / words, 1 / words, 1)
    assert found.frr is not None
    assert found.frr[:2] == (0, 1)
    assert found.fpr_text is not None
    assert (found.fpr_text.untouched[:2], found.fpr_text.spliced[:2]) == ((0, 2), (2, 2))
    assert found.fpr_text.change == (1, 1, 1, 2)
    assert found.fpr_raw is not None
    assert found.fpr_raw.untouched.low == pytest.approx(0.3424, abs=1e-4)  # Wilson, 2 of 2
    assert found.fpr_raw.change == (-1, -1, -1, 2)
    only = measured(random_sae(), (clips[0], []), tmp_path / "speech")
    assert (only.wer, only.fpr_text, only.fpr_raw) == (found.wer, None, None)
    only = measured(random_sae(), ([], clips[1]), tmp_path / "noise")
    assert (only.wer, only.frr, only.fpr_text) == (None, None, found.fpr_text)


def test_interrupted_it_goes_on_and_the_untouched_model_is_measured_once(
    parrot: type[Parrot], clips: tuple[list[Clip], list[Clip]], tmp_path: Path
):
    parrot.stop_after = 6  # two warm-ups, both rows of speech, another warm-up, one noise
    with pytest.raises(KeyboardInterrupt):
        measured(random_sae(), clips, tmp_path)
    assert len(read_rows(tmp_path / "untouched" / "nonspeech" / "clips.jsonl")) == 1
    parrot.stop_after, parrot.calls = -1, []
    whole = measured(random_sae(), clips, tmp_path)
    assert parrot.calls == [0, 0, 0, 1, 1]
    parrot.calls = []
    assert measured(random_sae(), clips, tmp_path) == whole
    assert parrot.calls == []
    measured(perfect(), clips, tmp_path)
    assert parrot.calls == [0, 1, 0, 1, 1]
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert len(folders) == 3
    table = next(tmp_path.glob("sae-*/table.md")).read_text(encoding="utf-8")
    assert "spliced in at encoder_output" in table
    fewer = measured(random_sae(), (clips[0], clips[1][:1]), tmp_path)
    assert fewer.nonspeech == 1


def test_a_clip_that_fails_counts_nowhere(
    parrot: type[Parrot], clips: tuple[list[Clip], list[Clip]], tmp_path: Path
):
    clips[1][0].path.write_text("not audio")
    found = measured(random_sae(), clips, tmp_path / "work")
    assert (found.nonspeech, found.failed) == (1, 1)
    assert found.fpr_raw is not None
    assert found.fpr_raw.change.n == found.fpr_raw.spliced.n == 1


def test_on_the_real_model_a_perfect_reconstruction_costs_nothing(
    clips: tuple[list[Clip], list[Clip]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(downstream, "SplicedBackend", lambda *_: backend("block.1", perfect))
    found = measured(perfect("block.1"), (clips[0], []), tmp_path)
    assert found.wer is not None
    assert found.wer.untouched == found.wer.spliced
    assert found.wer.spliced.rate < 0.2
    assert (found.wer.change.value, found.speech, found.failed) == (0, 1, 0)


def test_clips_that_cannot_be_used_are_refused(
    parrot: type[Parrot], clips: tuple[list[Clip], list[Clip]], tmp_path: Path
):
    speech, noises = clips
    for given, message in (
        (([], []), "no clips"),
        ((speech, noises * 2), "same path"),
        ((noises, []), "is nonspeech, not speech"),
        (([], speech), "is speech, not nonspeech or music"),
    ):
        with pytest.raises(ManifestError, match=message):
            measured(random_sae(), given, tmp_path)


def test_saes_that_do_not_fit_are_refused_before_anything_is_transcribed(
    clips: tuple[list[Clip], list[Clip]], tmp_path: Path
):
    foreign = perfect()
    foreign.config = replace(foreign.config, metadata={"fingerprint": "another"})
    saes: list[tuple[SAE, type[Exception], str]] = [
        (SAE(SAEConfig(WIDTH, 8, "batchtopk", k=2)), SAEFormatError, "without a threshold"),
        (foreign, SAEFormatError, "other weights"),
        (random_sae(16), SAEFormatError, "width 16, but tiny.en has 384"),
        (perfect("block.4"), SAEFormatError, "blocks 0 to 3"),
        (perfect("decoder"), PackError, "unknown tap"),
    ]
    for sae, error, message in saes:
        with pytest.raises(error, match=message):
            measured(sae, clips, tmp_path / "work")
    assert not (tmp_path / "work").exists()
