"""Export: steering in the weights does what the hook does, in runtimes that know nothing of it."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import faster_whisper
import numpy as np
import pytest
import torch
import whisper
from ctranslate2 import StorageView
from faster_whisper.audio import pad_or_trim
from torch import Tensor

from tests.support.real_models import sample, truth, vector_pack, weights
from tests.support.small_whisper import small_whisper
from whisper_sae_steer.audio import synthetic
from whisper_sae_steer.audio.clips import NONSPEECH_KINDS, read_clips
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.cli import main
from whisper_sae_steer.errors import AlphaError, PackError
from whisper_sae_steer.export import command, fold
from whisper_sae_steer.export.check import Check, CheckClip, ModelFigures
from whisper_sae_steer.export.fold import frame_sizes
from whisper_sae_steer.export.writers import WRITERS
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.models.vocabulary import get_tokenizer
from whisper_sae_steer.reports import metrics
from whisper_sae_steer.steering.operator import Operator
from whisper_sae_steer.steering.pack import ExportGate, SteeringPack, load_pack, save_pack

NAME = "tiny.en"
WIDTH = 256


def log_mel(audio: np.ndarray) -> Tensor:
    padded: Any = whisper.pad_or_trim(audio)
    return torch.as_tensor(whisper.log_mel_spectrogram(padded))[None]


@pytest.fixture(scope="module")
def plain() -> whisper.Whisper:
    return load_torch(weights(NAME))


@pytest.fixture(scope="module")
def pack() -> SteeringPack:
    return load_pack("auto", weights(NAME))


@pytest.fixture(scope="module")
def folded(plain: whisper.Whisper, pack: SteeringPack) -> whisper.Whisper:
    return fold(plain, pack)


@pytest.fixture(scope="module")
def sounds() -> list[np.ndarray]:
    return [made.audio for made in synthetic.generate(4, 7)]


@torch.no_grad()
def test_speech_passes_and_noise_is_steered(
    plain: whisper.Whisper, folded: whisper.Whisper, pack: SteeringPack, sounds: list[np.ndarray]
):
    steering = Operator(pack)
    direction = steering.vector / steering.vector.norm()
    for audio in (sample("speech"), sample("gap")[:480_000]):
        before, after = plain.embed_audio(log_mel(audio)), folded.embed_audio(log_mel(audio))
        assert float((after - before).norm() / before.norm()) < 2e-4
    for audio in sounds:
        before, after = plain.embed_audio(log_mel(audio)), folded.embed_audio(log_mel(audio))
        hooked = before.clone()
        steering.apply_(hooked, 1.0)
        along, wanted = ((h - before)[0] @ direction for h in (after, hooked))
        assert float(wanted.median()) > 0
        assert float(along.median() / wanted.median()) == pytest.approx(1, abs=0.25)


@torch.no_grad()
def test_the_decoder_hears_nobody(
    plain: whisper.Whisper, folded: whisper.Whisper, pack: SteeringPack, sounds: list[np.ndarray]
):
    """It ends the transcript rather than not, as with the hook; its few loudest frames are hard to edit."""
    tokenizer = get_tokenizer(plain.dims.n_vocab)
    first = torch.tensor([[tokenizer.sot, tokenizer.timestamp_begin]])
    for audio in sounds:
        hooked = plain.embed_audio(log_mel(audio))
        Operator(pack).apply_(hooked, 1.0)
        ends = [
            float(plain.logits(first, frames)[0, -1].softmax(-1)[tokenizer.eot])
            for frames in (folded.embed_audio(log_mel(audio)), hooked)
        ]
        assert ends[1] > 0.5
        assert ends[0] > max(0.5, 0.7 * ends[1])


@pytest.mark.slow
def test_more_alpha_is_more_edit(plain: whisper.Whisper, pack: SteeringPack, sounds: list[np.ndarray]):
    mel = log_mel(sounds[0])
    direction = Operator(pack).vector / Operator(pack).vector.norm()
    sizes: list[float] = []
    for alpha in (0.0, 0.5, 1.0, 2.0):
        with torch.no_grad():
            change = fold(plain, pack, alpha).embed_audio(mel) - plain.embed_audio(mel)
        sizes.append(float((change[0] @ direction).median()))
    assert sizes[0] == pytest.approx(0, abs=0.05)
    assert sizes == sorted(sizes)
    assert sizes[2] == pytest.approx(2 * sizes[1], rel=0.2)


def small_gate(offset: float) -> ExportGate:
    """Every window's evidence is ``offset``; the edit is whole from −0.6 down and gone from −0.3 up."""
    spare = torch.zeros(3, WIDTH)
    spare[0, :2] = spare[1, 2:4] = torch.tensor([1.0, -1.0]) / 2**0.5
    spare[2, :4] = torch.tensor([1.0, 1.0, -1.0, -1.0]) / 2
    zeros, ones, one_head = torch.zeros(WIDTH), torch.ones(WIDTH), torch.zeros(1, WIDTH)
    scalars = [torch.tensor(x) for x in (offset, -0.3, -0.6)]
    return ExportGate(zeros, ones, one_head, one_head, scalars[0], scalars[1], scalars[2], spare)


def small_model() -> whisper.Whisper:
    """Random weights, whose encoder leaves its spare directions empty."""
    model: Any = small_whisper(width=WIDTH).float()
    with torch.no_grad():
        for name, parameter in model.encoder.named_parameters():
            if name.endswith((".out.weight", ".out.bias", ".mlp.2.weight", ".mlp.2.bias", "conv2.weight")):
                parameter[:4] = parameter[:4].mean(0)
        model.encoder.conv2.bias[:4] = 0
        model.encoder.positional_embedding[:, :4] = 0
        model.encoder.ln_post.weight.fill_(1)
        model.encoder.ln_post.bias.zero_()
    return model


def before_norm(model: whisper.Whisper) -> Tensor:
    """Frames [1500, WIDTH] of silence before ``ln_post``."""
    found: list[Tensor] = []
    hook = model.encoder.ln_post.register_forward_pre_hook(lambda _, args: found.append(args[0][0]))
    with torch.no_grad():
        model.embed_audio(torch.zeros(1, 80, 3000))
    hook.remove()
    return found[0]


@pytest.mark.parametrize(("offset", "share"), [(-1.0, 1.0), (-5.0, 1.0), (0.0, 0.0), (3.0, 0.0)])
def test_the_gate_by_hand(offset: float, share: float):
    """The frames before ``ln_post`` get the edit, times their usual standard deviation, or nothing."""
    model, small = small_model(), vector_pack("small", width=WIDTH, gate="window")
    before = before_norm(model)
    after = before_norm(fold(model, small._replace(pooled=small_gate(offset))))
    edit = Operator(small).vector
    usual = frame_sizes(model).usual
    whole = (usual * (edit - edit.mean()))[4:]  # the spare directions are in the rest
    shares = (after - before)[:, 4:] @ whole / (whole @ whole)
    assert float(shares.median()) == pytest.approx(share, abs=0.05)


@torch.no_grad()
def test_what_lies_along_the_first_direction_anyway_is_no_evidence():
    """Single frames of speech have up to 3.5 times their standard deviation along the first direction."""
    model, small = small_model(), vector_pack("small", width=WIDTH, gate="window")
    first, some = small_gate(0).spare[0], slice(700, 705)
    deviation = before_norm(model)[some].std(1, correction=0)
    model.encoder.get_buffer("positional_embedding")[some] -= 3.5 * deviation[:, None] * first
    before = before_norm(model)
    assert float((before[some] @ first / before[some].std(1, correction=0)).max()) < -3
    after = before_norm(fold(model, small._replace(pooled=small_gate(0))))
    assert float((after - before).norm() / before.norm()) < 1e-3


def test_an_ungated_edit_is_a_bias(plain: whisper.Whisper, sounds: list[np.ndarray]):
    ungated = vector_pack(NAME)
    folded = fold(plain, ungated, 0.7)
    assert folded.dims == plain.dims
    mel = log_mel(sounds[1])
    with torch.no_grad():
        hooked = plain.embed_audio(mel)
        Operator(ungated).apply_(hooked, 0.7)
        torch.testing.assert_close(folded.embed_audio(mel), hooked, atol=1e-4, rtol=0)


def test_what_cannot_be_folded_is_refused(plain: whisper.Whisper, pack: SteeringPack):
    for change in ({"strategy": "suppress"}, {"gate": "frame"}, {"tap": "block.3"}):
        unfit = pack._replace(metadata=replace(pack.metadata, **change))
        with pytest.raises(PackError, match="attach"):
            fold(plain, unfit)
    with pytest.raises(PackError, match="calibrate it again"):
        fold(plain, pack._replace(pooled=None))
    for alpha in (float("nan"), -1.0, 1e38):
        with pytest.raises(AlphaError):
            fold(plain, pack, alpha)


def test_the_pooled_gate_survives_the_file(pack: SteeringPack, tmp_path: Path):
    save_pack(pack, tmp_path / "one.safetensors")
    assert pack.pooled is not None
    copy = load_pack(tmp_path / "one.safetensors", weights(NAME)).pooled
    assert copy is not None
    for a, b in zip(pack.pooled, copy, strict=True):
        assert torch.equal(a, b)
    one_head = pack.pooled._replace(key=pack.pooled.key[0], value=pack.pooled.value[0])
    save_pack(pack._replace(pooled=one_head), tmp_path / "old.safetensors")
    assert load_pack(tmp_path / "old.safetensors", weights(NAME)).pooled is None
    spare = pack.pooled.spare
    torch.testing.assert_close(spare @ spare.T, torch.eye(3), atol=1e-4, rtol=0)
    assert float(spare.sum(1).abs().max()) < 1e-3
    assert -1 < pack.pooled.full < pack.pooled.shut < 0


@pytest.fixture(scope="module")
def written(folded: whisper.Whisper, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("exported")
    folders = {form: root / form for form in WRITERS}
    for form, write in WRITERS.items():
        folders[form].mkdir()
        write(folded, folders[form])
    return folders


def spoken() -> list[str]:
    (part,) = truth("speech")["speech"]
    return metrics.normalise(part["text"], "en").split()


def test_openai_whisper_loads_it(written: dict[str, Path], folded: whisper.Whisper, sounds: list[np.ndarray]):
    model = whisper.load_model(str(written["openai"] / "model.pt"), device="cpu")
    mel = log_mel(sounds[2])
    with torch.no_grad():
        torch.testing.assert_close(model.embed_audio(mel), folded.embed_audio(mel), atol=0.1, rtol=0)

    def text(audio: np.ndarray) -> str:
        return str(model.transcribe(audio, fp16=False)["text"])

    assert metrics.normalise(text(sample("speech")), "en").split() == spoken()
    assert not metrics.has_text(text(sounds[2]))


@pytest.mark.parametrize("compute_type", ["int8", "float32"])
def test_faster_whisper_loads_it(
    written: dict[str, Path], folded: whisper.Whisper, sounds: list[np.ndarray], compute_type: str
):
    model = faster_whisper.WhisperModel(str(written["ct2"]), device="cpu", compute_type=compute_type)
    segments, _ = model.transcribe(sample("speech"))
    assert metrics.normalise("".join(s.text for s in segments), "en").split() == spoken()
    assert not any(metrics.has_text(s.text) for audio in sounds for s in model.transcribe(audio)[0])
    if compute_type == "float32":
        mel = pad_or_trim(model.feature_extractor(sounds[0])[:, :-1])
        encoded: StorageView = model.encode(mel)
        with torch.no_grad():
            ours = folded.embed_audio(torch.from_numpy(mel)[None]).numpy()
        np.testing.assert_allclose(np.asarray(encoded), ours, atol=0.1)


def test_int8_hardly_touches_speech(written: dict[str, Path]):
    """Both blocks round alike; a transcript in int8 follows the least change."""
    frames: list[np.ndarray] = []
    for folder in (weights(NAME).ct2_dir, written["ct2"]):
        model = faster_whisper.WhisperModel(str(folder), device="cpu", compute_type="int8")
        encoded: StorageView = model.encode(pad_or_trim(model.feature_extractor(sample("speech"))[:, :-1]))
        frames.append(np.asarray(encoded))
    before, after = frames
    assert np.linalg.norm(after - before) < 2e-4 * np.linalg.norm(before)


def test_transformers_loads_it(written: dict[str, Path], sounds: list[np.ndarray]):
    from transformers import pipeline

    asr: Any = pipeline("automatic-speech-recognition", str(written["hf"]))

    def text(audio: np.ndarray) -> str:
        return asr({"raw": audio, "sampling_rate": 16_000}, return_timestamps=True)["text"]

    assert metrics.normalise(text(sample("speech")), "en").split() == spoken()
    assert not metrics.has_text(text(sounds[0]))


def test_the_command_checks_and_documents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sounds: list[np.ndarray]
):
    for number, audio in enumerate(sounds[:2]):
        folder = tmp_path / "noise"
        folder.mkdir(exist_ok=True)
        write_wav(folder / f"{number}.wav", audio)
    (tmp_path / "voice").mkdir()
    write_wav(tmp_path / "voice" / "a.wav", sample("speech"))
    (tmp_path / "voice" / "a.txt").write_text(" ".join(spoken()))
    out = tmp_path / "deep" / "steered"
    line = ["export", "--model", NAME, "--format", "ct2", "--out", str(out)]
    line += ["--nonspeech", str(tmp_path / "noise"), "--speech", str(tmp_path / "voice")]
    assert main(line) == 0
    card = (out / "README.md").read_text(encoding="utf-8")
    shown = capsys.readouterr()
    assert card in shown.out
    assert f'model = WhisperModel("{out}", compute_type="int8")' in shown.out
    for phase in ("loading tiny.en", "look at frames", "writing format ct2", "check, exported", "time the"):
        assert phase in shown.err
    assert "| this model | 0/2 = 0.0%" in card
    assert f"0/{len(spoken())} = 0.00%" in card
    assert {"model.bin", "config.json", "tokenizer.json"} < {file.name for file in out.iterdir()}
    assert [file.name for file in out.parent.iterdir()] == ["steered"], "no temporary folder is left"
    assert main(line) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extent", "sounds", "utterances"), [("full", 24, 1), ("quick", 4, 1), ("none", None, None)]
)
def test_the_check_is_as_long_as_asked_for(
    extent: str, sounds: int | None, utterances: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checked: list[Sequence[CheckClip]] = []

    def remembered(*args: Any) -> Check:
        checked.append(args[-1])
        same = ModelFigures(0, metrics.WordErrors(0, 0, 0, 0))
        return Check(len(args[-1]), 0, same, same, same)

    monkeypatch.setattr(command, "check", remembered)
    monkeypatch.setattr(command, "fold", lambda plain, *_: plain)
    monkeypatch.setattr(command, "encoder_time", lambda *_: 1.0)
    monkeypatch.setitem(WRITERS, "ct2", lambda _model, _folder: None)  # type: ignore[arg-type]
    line = ["export", "--model", NAME, "--format", "ct2", "--check", extent, "--out", str(tmp_path / "made")]
    assert main(line) == 0
    kinds = [[clip.reference is not None for clip in clips] for clips in checked]
    assert [(kind.count(False), kind.count(True)) for kind in kinds] == (
        [] if sounds is None else [(sounds, utterances)]
    )
    assert ("Not checked." in (tmp_path / "made" / "README.md").read_text()) is (sounds is None)


def test_a_quick_check_of_ones_own_recordings_takes_a_few_of_each_kind(tmp_path: Path):
    for name in ("noise", "voice"):
        (tmp_path / name).mkdir()
        for number in range(6):
            write_wav(tmp_path / name / f"{number}.wav", np.zeros(1600, np.float32))
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    named = ["--nonspeech", str(tmp_path / "noise"), "--speech", str(tmp_path / "voice")]
    args = parser.parse_args(["--format", "ct2", "--out", "o", *named, "--check", "quick"])
    kinds = [clip.reference is not None for clip in command.sounds_to_check(args)]
    assert (kinds.count(False), kinds.count(True)) == (4, 4)


def test_a_bad_pack_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "steered"
    missing = str(tmp_path / "none.safetensors")
    assert main(["export", "--model", NAME, "--format", "hf", "--out", str(out), "--pack", missing]) == 2
    assert "no steering pack" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_clips_of_folders_and_manifests(tmp_path: Path):
    folder = tmp_path / "noise"
    folder.mkdir()
    write_wav(folder / "a.wav", np.zeros(16_000, np.float32))
    clips = read_clips([folder], None, NONSPEECH_KINDS)
    assert [(clip.kind, clip.path.name) for clip in clips] == [("nonspeech", "a.wav")]
    assert read_clips([], None, ("speech",), 3) == []
