"""SAELens v6: round trips, agreement with sae_lens both ways, and what must be refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import sae_lens
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.small_saes import D_IN, D_SAE, Settings, agrees, make_frames, make_sae, randomize, refused
from whisper_sae_steer.errors import SAEFormatError
from whisper_sae_steer.sae.autoencoder import Architecture
from whisper_sae_steer.sae.formats import load_sae, save_sae


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_sae(make_sae(), tmp_path / "sae")
    return tmp_path / "sae"


def edit_config(folder: Path, **changes: object) -> None:
    file = folder / "cfg.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_weights(folder: Path, **changes: Tensor) -> None:
    file = folder / "sae_weights.safetensors"
    save_file({**load_file(file), **changes}, file)


@pytest.mark.parametrize("architecture", ["jumprelu", "topk"])
def test_round_trip_is_exact(tmp_path: Path, architecture: Architecture):
    sae = make_sae(architecture)
    save_sae(sae, tmp_path / "a" / "b")
    for source in ("", "cfg.json", "sae_weights.safetensors"):
        loaded = load_sae(tmp_path / "a" / "b" / source)
        assert loaded.config == sae.config
        assert loaded.state_dict().keys() == sae.state_dict().keys()
        for name, tensor in sae.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name
    assert sorted(os.listdir(tmp_path / "a" / "b")) == ["cfg.json", "sae_weights.safetensors"]


def test_half_precision_on_disk(tmp_path: Path):
    sae = make_sae()
    save_sae(sae, tmp_path, dtype=torch.float16)
    stored = load_file(tmp_path / "sae_weights.safetensors")
    assert {name: t.dtype for name, t in stored.items() if t.dtype != torch.float32} == {
        "W_enc": torch.float16,
        "W_dec": torch.float16,
    }
    loaded = load_sae(tmp_path)
    assert all(tensor.dtype == torch.float32 for tensor in loaded.state_dict().values())
    assert torch.equal(loaded.threshold, sae.threshold)
    assert torch.equal(loaded.W_enc, sae.W_enc.half().float())
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    x = make_frames(20)
    torch.testing.assert_close(theirs.encode(x), loaded.encode(x))


def test_values_beyond_half_precision(tmp_path: Path):
    sae = make_sae()
    with torch.no_grad():
        sae.W_dec[0, 0] = 1e6
    with pytest.raises(SAEFormatError, match=r"float16.*W_dec"):
        save_sae(sae, tmp_path / "sae", dtype=torch.float16)
    assert not (tmp_path / "sae").exists()


def test_batchtopk_needs_a_threshold_first(tmp_path: Path):
    with pytest.raises(SAEFormatError, match="calibrate_threshold"):
        save_sae(make_sae("batchtopk"), tmp_path)


def test_interrupted_saving_never_leaves_a_mixed_pair(saved: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = (saved / "sae_weights.safetensors").read_bytes()
    monkeypatch.setattr("whisper_sae_steer.sae.formats.saelens.save_file", fail)
    with pytest.raises(KeyboardInterrupt):
        save_sae(make_sae(seed=9), saved)
    assert os.listdir(saved) == ["sae_weights.safetensors"]
    assert (saved / "sae_weights.safetensors").read_bytes() == before
    refused(saved, "cfg.json is missing")


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["jumprelu", "topk"])
def test_sae_lens_reads_ours(tmp_path: Path, architecture: Architecture):
    sae, x = make_sae(architecture), make_frames(3, 50)
    save_sae(sae, tmp_path)
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    assert theirs.cfg.architecture() == architecture
    assert (theirs.cfg.metadata["model_name"], theirs.cfg.metadata["hook_name"]) == ("base", "block.3")
    ours, expected = sae(x, use_threshold=architecture == "jumprelu"), theirs.encode(x)
    assert torch.equal(ours.features > 0, expected > 0)
    torch.testing.assert_close(ours.features, expected)
    torch.testing.assert_close(ours.reconstruction, theirs.decode(expected))


THEIRS: dict[str, sae_lens.SAE[Any]] = {
    "jumprelu": sae_lens.JumpReLUSAE(sae_lens.JumpReLUSAEConfig(D_IN, D_SAE)),
    "jumprelu, raw input": sae_lens.JumpReLUSAE(
        sae_lens.JumpReLUSAEConfig(D_IN, D_SAE, apply_b_dec_to_input=False)
    ),
    "standard": sae_lens.StandardSAE(sae_lens.StandardSAEConfig(D_IN, D_SAE)),
    "standard, raw input": sae_lens.StandardSAE(
        sae_lens.StandardSAEConfig(D_IN, D_SAE, apply_b_dec_to_input=False)
    ),
    "topk": sae_lens.TopKSAE(sae_lens.TopKSAEConfig(D_IN, D_SAE, k=4)),
    "topk by norm": sae_lens.TopKSAE(
        sae_lens.TopKSAEConfig(D_IN, D_SAE, k=4, rescale_acts_by_decoder_norm=True)
    ),
    "topk by norm, raw input": sae_lens.TopKSAE(
        sae_lens.TopKSAEConfig(
            D_IN, D_SAE, k=4, rescale_acts_by_decoder_norm=True, apply_b_dec_to_input=False
        )
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("case", THEIRS)
def test_we_read_sae_lens(tmp_path: Path, case: str):
    theirs, x = THEIRS[case], make_frames(3, 50)
    randomize(theirs)
    theirs.save_model(tmp_path)
    ours, features = load_sae(tmp_path), theirs.encode(x)
    assert ours.config.tap == ours.config.model == ""
    agrees(ours, features, theirs.decode(features), x)


TRAINED: dict[str, sae_lens.TrainingSAE[Any]] = {
    "batchtopk": sae_lens.BatchTopKTrainingSAE(sae_lens.BatchTopKTrainingSAEConfig(D_IN, D_SAE, k=4.5)),
    "batchtopk by norm": sae_lens.BatchTopKTrainingSAE(
        sae_lens.BatchTopKTrainingSAEConfig(D_IN, D_SAE, k=4, rescale_acts_by_decoder_norm=True)
    ),
    "matryoshka": sae_lens.MatryoshkaBatchTopKTrainingSAE(
        sae_lens.MatryoshkaBatchTopKTrainingSAEConfig(D_IN, D_SAE, k=4, matryoshka_widths=[10, D_SAE])
    ),
    "topk by norm": sae_lens.TopKTrainingSAE(
        sae_lens.TopKTrainingSAEConfig(D_IN, D_SAE, k=4, rescale_acts_by_decoder_norm=True)
    ),
    "jumprelu": sae_lens.JumpReLUTrainingSAE(sae_lens.JumpReLUTrainingSAEConfig(D_IN, D_SAE)),
    "standard": sae_lens.StandardTrainingSAE(sae_lens.StandardTrainingSAEConfig(D_IN, D_SAE)),
}


@torch.no_grad()
@pytest.mark.parametrize("case", TRAINED)
def test_we_read_what_sae_lens_trained(tmp_path: Path, case: str):
    """For inference its batchtopk and matryoshka are jumprelu; as training left them they are refused."""
    trained, x = TRAINED[case], make_frames(3, 50)
    randomize(trained)
    if "topk_threshold" in trained.state_dict():
        trained.state_dict()["topk_threshold"].fill_(2.5)
    trained.save_inference_model(tmp_path / "inference")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "inference")
    features = theirs.encode(x)
    agrees(load_sae(tmp_path / "inference"), features, theirs.decode(features), x)
    if "batchtopk" in trained.cfg.architecture():
        trained.save_model(tmp_path / "training")
        refused(tmp_path / "training", "save_inference_model")


REFUSED: dict[str, sae_lens.SAE[Any]] = {
    "gated": sae_lens.GatedSAE(sae_lens.GatedSAEConfig(D_IN, D_SAE)),
    "abstopk": sae_lens.AbsTopKSAE(sae_lens.AbsTopKSAEConfig(D_IN, D_SAE, k=4)),
    "transcoder": sae_lens.Transcoder(
        sae_lens.TranscoderConfig(D_IN, D_SAE, apply_b_dec_to_input=False, d_out=D_IN)
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_architectures_of_sae_lens(tmp_path: Path, case: str):
    REFUSED[case].save_model(tmp_path)
    refused(tmp_path, f"architecture {case!r} is none of jumprelu, topk, standard")


def test_sae_lens_saves_ours_again(saved: Path, tmp_path: Path):
    sae_lens.SAE.load_from_disk(saved).save_model(tmp_path / "again")
    loaded, sae = load_sae(tmp_path / "again"), make_sae()
    loaded.config.metadata.pop("sae_lens_training_version")
    assert loaded.config == sae.config
    assert torch.equal(loaded.threshold, sae.threshold)


@pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors"])
def test_half_an_sae_lens_folder(saved: Path, name: str):
    (saved / name).unlink()
    refused(saved, f"{name} is missing")


BAD_SETTINGS: dict[str, tuple[Settings, str]] = {
    "no architecture": ({"architecture": None}, "architecture None"),
    "layer norm": ({"normalize_activations": "layer_norm"}, "normalize_activations='layer_norm'"),
    "unfolded scale": ({"normalize_activations": "expected_average_only_in"}, "fold it"),
    "hook_z": ({"reshape_activations": "hook_z"}, "reshape_activations"),
    "old": ({"metadata": None}, "older than SAELens v6"),
    "width": ({"d_in": D_IN + 1}, r"W_enc \(12, 40\) instead of \(13, 40\)"),
    "text width": ({"d_in": "12"}, "d_in must be a positive whole number"),
    "beyond memory": ({"d_in": 10**9, "d_sae": 10**9}, "b_dec"),
    "no features": ({"d_sae": 0}, "d_sae must be a positive whole number"),
    "topk without k": ({"architecture": "topk"}, "k must be a positive whole number"),
    "topk with threshold": ({"architecture": "topk", "k": 3}, r"threshold \(40,\) instead of None"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_unsupported_settings(saved: Path, case: str):
    changes, match = BAD_SETTINGS[case]
    edit_config(saved, **changes)
    refused(saved, match)


def test_wrong_tensors(saved: Path):
    edit_weights(saved, b_dec=torch.ones(3), scaling_factor=torch.ones(D_SAE))
    refused(saved, r"b_dec \(3,\) instead of \(12,\), scaling_factor \(40,\) instead of None")
    save_file({"W_enc": torch.ones(D_IN, D_SAE)}, saved / "sae_weights.safetensors")
    refused(saved, r"W_dec None instead of \(40, 12\)")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(saved: Path, value: float):
    edit_weights(saved, b_enc=torch.full((D_SAE,), value))
    refused(saved, "b_enc that are not finite")
