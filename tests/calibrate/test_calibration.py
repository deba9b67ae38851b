"""The command `calibrate`, from folders of audio to a pack that loads, on tiny.en."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support.calibration_parts import clip, names, random_sae, write_noise, write_speech
from tests.support.real_models import sample, weights
from tests.support.small_saes import write_folder as write_ae
from whisper_sae_steer.audio.clips import Clip
from whisper_sae_steer.audio.synthetic import write_folder
from whisper_sae_steer.audio.units import SAMPLE_RATE
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.calibrate import CalibrationConfig, calibrate, command, measure, strength
from whisper_sae_steer.calibrate.gate import NEW_FEATURES
from whisper_sae_steer.calibrate.strength import MAX_COST
from whisper_sae_steer.cli import main
from whisper_sae_steer.errors import CalibrationError, PackError, SAEFormatError
from whisper_sae_steer.export.fold import fold
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.openai import load_model
from whisper_sae_steer.reports.metrics import has_text
from whisper_sae_steer.sae.autoencoder import SAE
from whisper_sae_steer.sae.find import find_sae
from whisper_sae_steer.sae.formats import load_sae, save_sae
from whisper_sae_steer.steering.operator import Operator
from whisper_sae_steer.steering.pack import SteeringPack, load_pack


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer strengths to decode at."""
    monkeypatch.setattr(strength, "GRIDS", {"direction": (0.09, 0.18), "additive": (1.0,)})
    monkeypatch.setattr(measure, "ALPHAS", (0.0, 1.0))


def run(out: Path, *more: object) -> int:
    fixed = ["calibrate", "--model", "tiny.en", "--threads", "1", "--synthetic", "0", "--out", str(out)]
    return main([*fixed, *map(str, more)])


def beeps(pitch: float) -> NDArray[np.float32]:
    """Eight seconds for which tiny.en writes "I'm going to go to the next one" at some pitches."""
    time = np.arange(8 * SAMPLE_RATE) / SAMPLE_RATE
    return (0.3 * np.sin(2 * np.pi * pitch * time) * (time % 0.25 < 0.12)).astype(np.float32)


def write_audiosae(folder: Path, sae: SAE) -> Path:
    """As AudioSAE's checkpoints: no threshold, k beside the weights."""
    state = {
        "encoder.weight": sae.W_enc.T.detach(), "encoder.bias": sae.b_enc.detach(),
        "decoder.weight": sae.W_dec.T.detach(), "b_dec": sae.b_dec.detach(), "k": torch.tensor(50),
    }  # fmt: skip
    sizes: dict[str, object] = {"activation_dim": sae.config.d_in, "dict_size": sae.config.d_sae, "k": 50}
    return write_ae(folder, state, sizes)


def check_pack(path: Path) -> None:
    pack = load_pack(path, weights("tiny.en"))
    vector = (pack.coefficients[:, None] * pack.directions).sum(0)
    assert float(vector.norm()) == pytest.approx(1, abs=1e-4)
    metrics = pack.metadata.metrics
    assert metrics["steered"]["no_speech_prob"] > metrics["unsteered"]["no_speech_prob"]
    assert metrics["steered"]["fpr_raw"] <= metrics["unsteered"]["fpr_raw"]
    check_speech_is_left_alone(pack)


def check_speech_is_left_alone(pack: SteeringPack) -> None:
    frames = WindowEncoder(weights("tiny.en"), pack.metadata.tap, threads=1)([sample("speech")])
    edited = frames.clone()
    Operator(pack).apply_(edited, 1.0)
    assert torch.equal(edited, frames)  # it keeps the gate shut


@pytest.mark.usefixtures("quick")
def test_noise_alone_keeps_the_shipped_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    noise = write_noise(tmp_path / "noise", fitted=3, held=2)
    (noise / "broken.wav").write_text("not audio")
    out = tmp_path / "packs" / "mine.safetensors"
    assert run(out, "--nonspeech", noise) == 0
    check_pack(out)
    pack, shipped = load_pack(out, weights("tiny.en")), load_pack("auto", weights("tiny.en"))
    assert torch.equal(pack.gate_weight, shipped.gate_weight)
    assert pack.metadata.levels == shipped.metadata.levels
    assert pack.metadata.risk_calibration == shipped.metadata.risk_calibration
    assert pack.metadata.data["sources"] == {"nonspeech/noise": 5}
    assert pack.metadata.metrics["gate"] is None
    printed = capsys.readouterr().out
    assert "broken.wav can't be decoded" in printed
    assert re.search(r"tiny.en \(.*\): 5 recordings without speech, 0 with\n", printed)
    assert printed.index("This takes about") < printed.index("Gained at α = 1")
    assert "Cost: not measured" in printed
    for use in (f'.load_model("tiny.en", pack="{out}")', f"--model tiny.en --pack {out} --backend faster"):
        assert use in printed
    assert sorted(path.name for path in out.parent.iterdir()) == ["mine.html", "mine.safetensors"]


@pytest.mark.usefixtures("quick")
def test_interrupted_calibration_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    noise, out = write_noise(tmp_path / "noise", fitted=2, held=1), tmp_path / "mine.safetensors"
    calls: list[int] = []
    encode = WindowEncoder.__call__

    def interrupted(self: WindowEncoder, audio: Sequence[Any]) -> torch.Tensor:
        calls.append(len(audio))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(self, audio)

    monkeypatch.setattr(WindowEncoder, "__call__", interrupted)
    monkeypatch.setattr(command, "window_seconds", lambda _: 0.1)  # which encodes a window, too
    assert run(out, "--nonspeech", noise) == 130
    assert not out.exists()
    assert len(list((tmp_path / "mine.work").glob("*.npz"))) == 2
    assert run(out, "--nonspeech", noise) == 0
    assert len(calls) == 4
    assert not (tmp_path / "mine.work").exists()
    assert load_pack(out, weights("tiny.en")).metadata.data["clips"] == 3


@pytest.mark.slow
def test_noise_and_speech_give_a_pack_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    speech = write_speech(tmp_path / "speech", fitted=6, held=3)
    noise = write_noise(tmp_path / "noise", fitted=8, held=4)
    manifest = write_folder(tmp_path / "made", 6, seed=9, seconds=(2, 4))
    out, work = tmp_path / "mine.safetensors", tmp_path / "work"
    arguments = ("--nonspeech", noise, manifest, "--speech", speech, "--work", work, "--base", "none")
    assert run(out, *arguments) == 0
    check_pack(out)
    metadata = load_pack(out, weights("tiny.en")).metadata
    assert metadata.data["clips"] == 27
    assert metadata.metrics["gate"]["auc"] > 0.9
    assert metadata.metrics["steered"]["wer_change"] <= MAX_COST
    assert metadata.speech_calibration[0] > 0  # a higher score, more likely speech
    assert metadata.risk_calibration[0] + metadata.risk_calibration[1] < 0
    first = capsys.readouterr().out
    assert "Cost at α = 1: WER" in first
    made = load_pack(out, weights("tiny.en"))
    assert run(out, *arguments) == 0  # with all windows and decoded texts at hand
    again = load_pack(out, weights("tiny.en"))
    assert again.metadata == made.metadata
    torch.testing.assert_close(again.directions, made.directions)
    torch.testing.assert_close(again.gate, made.gate)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_pack_that_edits_inside_the_encoder(tmp_path: Path):
    """By the SAE of a block, and by one that a hub repository like AudioSAE's holds, without thresholds."""
    speech = write_speech(tmp_path / "speech", fitted=6, held=3)
    noise = write_noise(tmp_path / "noise", fitted=6, held=2)
    for name, pitch in zip(names("noise/beep", True, 2), (400, 1000), strict=True):
        write_wav(noise.parent / f"{name}.wav", beeps(pitch))
    out, recordings = tmp_path / "mine.safetensors", ("--nonspeech", noise, "--speech", speech)
    at_the_last_block = ("--layer", 3, "--work", tmp_path / "work")
    assert run(out, *recordings, *at_the_last_block) == 0
    pack = load_pack(out, weights("tiny.en"))
    assert pack.metadata.tap == "block.3"
    assert pack.pooled is None
    assert pack.metadata.data["built_on"] is None  # the shipped pack edits another tap
    check_speech_is_left_alone(pack)
    assert pack.metadata.metrics["unsteered"]["fpr_raw"] >= 0.5
    assert pack.metadata.metrics["steered"]["fpr_raw"] == 0
    model = load_model("tiny.en", pack=out)
    texts = (
        model.transcribe(beeps(1000), temperature=0.0, no_speech_threshold=None, steer_alpha=alpha)["text"]
        for alpha in (0.0, 1.0)
    )
    assert [has_text(text) for text in texts] == [True, False]
    assert run(out, *recordings, *at_the_last_block, "--base", out) == 0  # built on itself
    with pytest.raises(PackError, match="attach"):
        fold(load_torch(weights("tiny.en")), pack)

    repository = tmp_path / "Audio-SAE-Whisper-tiny"
    for layer in (1, 2):
        write_audiosae(repository / f"layer_{layer}", random_sae(384, 512))
    published = ("--strategy", "additive", "--selection", "logistic")
    assert run(out, *recordings, "--sae", repository, "--layer", 2, *published) == 0
    pack = load_pack(out, weights("tiny.en"))
    assert (pack.metadata.tap, pack.metadata.strategy) == ("block.1", "additive")
    assert len(pack.gate.threshold.unique()) == 1
    assert float(pack.gate.threshold[0]) > 0


@pytest.mark.slow
def test_a_pack_is_built_on_the_shipped_one(tmp_path: Path):
    speech = write_speech(tmp_path / "speech", fitted=6, held=3)
    noise = write_noise(tmp_path / "noise", fitted=4, held=2)
    out = tmp_path / "mine.safetensors"
    assert run(out, "--nonspeech", noise, "--speech", speech) == 0
    check_pack(out)
    pack, shipped = load_pack(out, weights("tiny.en")), load_pack("auto", weights("tiny.en"))
    old, new = shipped.metadata, pack.metadata
    assert torch.equal(pack.gate.ids[: len(shipped.gate.ids)], shipped.gate.ids)
    assert len(pack.gate.ids) == len(shipped.gate.ids) + NEW_FEATURES
    assert not torch.equal(pack.gate_weight[: len(shipped.gate.ids)], shipped.gate_weight)
    # few recordings move little, and never further than the noise and the speech that the base knew
    one, other = pack.gate_weight[: len(shipped.gate.ids)], shipped.gate_weight
    assert float(torch.cosine_similarity(one, other, dim=0)) > 0.9
    assert new.levels.noise_ceiling >= old.levels.noise_ceiling - 1e-4
    middle = (max(new.levels.noise_ceiling, old.levels.noise_ceiling) + old.levels.speech_floor) / 2
    assert new.levels.threshold <= middle + 1e-4
    assert new.alpha_unit >= old.alpha_unit
    assert set(old.stock_texts) <= set(new.stock_texts)
    assert new.data["built_on"]["clips"] == old.data["clips"]
    assert pack.pooled is not None
    assert shipped.pooled is not None
    assert torch.equal(pack.pooled.key, shipped.pooled.key)
    assert not torch.equal(pack.pooled.value, shipped.pooled.value)
    save_sae(random_sae(384, 64), tmp_path / "sae")
    again = run(out, "--nonspeech", noise, "--speech", speech, "--sae", tmp_path / "sae")
    assert again == 2  # the shipped gate is of another SAE


@pytest.mark.usefixtures("quick")
def test_shipped_gate_beside_an_sae_of_ones_own(tmp_path: Path):
    save_sae(random_sae(384, 64), tmp_path / "sae")
    noise, out = write_noise(tmp_path / "noise", fitted=2, held=1), tmp_path / "mine.safetensors"
    assert run(out, "--nonspeech", noise, "--sae", tmp_path / "sae") == 0
    pack, shipped = load_pack(out, weights("tiny.en")), load_pack("auto", weights("tiny.en"))
    assert torch.equal(pack.gate.rows, shipped.gate.rows)
    assert int(shipped.gate.ids.max()) >= 64 >= len(pack.directions) - len(shipped.directions)


def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: object) -> str:
    """The one line that a command which can't work prints, before it has written anything."""
    assert run(tmp_path / "mine.safetensors", *arguments) == 2
    assert not (tmp_path / "mine.safetensors").exists()
    assert not list(tmp_path.glob("*.work/*.npz"))
    printed = capsys.readouterr().err.strip().splitlines()[-1]
    assert printed.startswith("whisper-sae-steer: error: ")
    return printed


def test_folders_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "empty").mkdir()
    assert "absent: no such folder" in refused(capsys, tmp_path, "--nonspeech", tmp_path / "absent")
    assert "no audio files in" in refused(capsys, tmp_path, "--nonspeech", tmp_path / "empty")
    assert "no such manifest" in refused(capsys, tmp_path, "--speech", tmp_path / "absent.tsv")
    assert "no SAE at" in refused(capsys, tmp_path, "--sae", tmp_path / "empty")
    assert "no audio without speech" in refused(capsys, tmp_path)


def test_nothing_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    noise = tmp_path / "noise"
    noise.mkdir()
    (noise / "broken.wav").write_text("not audio")
    assert "none of 1 recordings without speech can be read" in refused(
        capsys, tmp_path, "--nonspeech", noise
    )


def test_too_few_to_hold_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    noise = write_noise(tmp_path / "noise", fitted=2, held=0, seconds=1.0)
    assert run(tmp_path / "mine.safetensors", "--nonspeech", noise) == 2
    assert "too few recordings without speech (2): a quarter is held back" in capsys.readouterr().err


def attempt(
    tmp_path: Path,
    sae: SAE,
    config: CalibrationConfig | None = None,
    nonspeech: Sequence[Clip] = (),
    base: str | None = "auto",
    speech: Sequence[Clip] = (),
) -> None:
    model = weights("tiny.en")
    pack = load_pack(base, model) if base else None
    calibrate(model, sae, nonspeech, speech, config or CalibrationConfig(), tmp_path / "work", pack)


@pytest.fixture(scope="module")
def sae() -> SAE:
    return load_sae(find_sae("auto", weights("tiny.en")))


def test_sae_of_other_weights_is_refused(tmp_path: Path, sae: SAE):
    other = random_sae()
    other.config = replace(other.config, metadata={"fingerprint": "1" * 32})
    save_sae(other, tmp_path / "sae")
    with pytest.raises(CalibrationError, match=r"trained on other weights \(random\) than tiny\.en"):
        attempt(tmp_path, load_sae(tmp_path / "sae"))
    assert not (tmp_path / "work").exists()


def test_an_sae_that_does_not_fit_the_model_is_refused(tmp_path: Path, sae: SAE):
    def at(tap: str, d_in: int = 384) -> SAE:
        made = random_sae(d_in)
        made.config = replace(made.config, tap=tap)
        return made

    noise = [clip("noise/a")]
    with pytest.raises(CalibrationError, match="doesn't say what it reads"):
        attempt(tmp_path, at(""))
    with pytest.raises(CalibrationError, match=r"to build on edits encoder_output, the SAE reads block\.2"):
        attempt(tmp_path, at("block.2"), nonspeech=noise)
    speech = [clip(names("speech/", held, 1)[0], "speech") for held in (False, True)]
    with pytest.raises(PackError, match=r"block\.4 does not exist: tiny\.en has blocks 0 to 3"):
        attempt(tmp_path, at("block.4"), nonspeech=noise, speech=speech, base=None)
    with pytest.raises(SAEFormatError, match=r"reads activations of width 512, not of shape \(384,\)"):
        attempt(tmp_path, at("encoder_output", 512), nonspeech=noise, speech=speech, base=None)
    assert not (tmp_path / "work").exists()


def test_what_cannot_work_is_refused_at_once(tmp_path: Path, sae: SAE):
    with pytest.raises(CalibrationError, match="use it with direction"):
        attempt(tmp_path, sae, CalibrationConfig(strategy="suppress", selection="gradient"))
    with pytest.raises(CalibrationError, match="synthetic must be 0 or more"):
        attempt(tmp_path, sae, CalibrationConfig(synthetic=-1))
    with pytest.raises(CalibrationError, match="give --speech recordings"):
        attempt(tmp_path, sae, CalibrationConfig(selection="fisher"))
    with pytest.raises(CalibrationError, match="two recordings are called noise/a"):
        attempt(tmp_path, sae, nonspeech=[clip("noise/a"), clip("noise/b"), clip("noise/a")])
    with pytest.raises(CalibrationError, match="a gate needs --speech recordings, or a pack to build on"):
        attempt(tmp_path, sae, base=None)
    assert not (tmp_path / "work").exists()


def test_work_folder_of_other_weights_is_refused(tmp_path: Path, sae: SAE):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "fingerprint.txt").write_text("0" * 32)
    with pytest.raises(CalibrationError, match="holds windows of other weights"):
        attempt(tmp_path, sae)
    (tmp_path / "work" / "fingerprint.txt").write_text(f"{weights('tiny.en').fingerprint} block.3")
    with pytest.raises(CalibrationError, match="or of another tap"):
        attempt(tmp_path, sae)
