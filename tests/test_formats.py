"""SAEs on disk: round trips, agreement with sae_lens, and every file that must be refused."""

import json
import os
import pickle
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sae_lens
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from whisper_sae_steer.errors import SAEFormatError
from whisper_sae_steer.formats import load_sae, save_sae
from whisper_sae_steer.sae import SAE, Architecture, SAEConfig

D_IN, D_SAE, K = 12, 40, 5
Settings = dict[str, object]


def make_sae(architecture: Architecture = "jumprelu", seed: int = 0) -> SAE:
    generator = torch.Generator().manual_seed(seed)
    metadata: dict[str, object] = {"held_back": {"l0": 49.5}, "source": "abc"}
    sae = SAE(SAEConfig(D_IN, D_SAE, architecture, K, "block.3", "base", metadata))
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        if architecture == "jumprelu":
            sae.threshold.copy_(torch.rand(D_SAE, generator=generator) * 3)
    return sae


def make_frames(*shape: int) -> Tensor:
    return torch.randn(*shape, D_IN, generator=torch.Generator().manual_seed(1))


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


def refused(source: Path, match: str) -> None:
    """The error says what is wrong in one line."""
    with pytest.raises(SAEFormatError, match=match) as caught:
        load_sae(source)
    assert "\n" not in str(caught.value)


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
    monkeypatch.setattr("whisper_sae_steer.formats.save_file", fail)
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
    theirs = THEIRS[case]
    generator = torch.Generator().manual_seed(4)
    for parameter in theirs.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    theirs.save_model(tmp_path)
    ours, x = load_sae(tmp_path), make_frames(3, 50)
    assert ours.config.tap == ours.config.model == ""
    features, expected = ours(x, use_threshold=ours.config.architecture == "jumprelu"), theirs.encode(x)
    assert torch.equal(features.features > 0, expected > 0)
    torch.testing.assert_close(features.features, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features.reconstruction, theirs.decode(expected), rtol=1e-4, atol=1e-4)


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


def test_nothing_there(tmp_path: Path):
    refused(tmp_path, "no SAE at .*takes cfg.json")
    refused(tmp_path / "absent", "no SAE at")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    refused(tmp_path / "model.safetensors", "no SAE at")


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_truncated_weights(saved: Path, length: int):
    file = saved / "sae_weights.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    refused(saved, "truncated or not a safetensors")


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff", "[" * 100_000])
def test_broken_config(saved: Path, text: str):
    (saved / "cfg.json").write_text(text, encoding="latin-1")
    refused(saved, "cfg.json")


BAD_SETTINGS: dict[str, tuple[Settings, str]] = {
    "gated": ({"architecture": "gated"}, "architecture 'gated'"),
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


# dictionary_learning and AudioSAE: state dicts as their nn.Linear layers write them


class Reference(nn.Module):
    """What dictionary_learning's classes share: two linear layers and a decoder bias."""

    def __init__(self, decoder_bias: bool = False):
        super().__init__()
        torch.manual_seed(5)
        self.encoder = nn.Linear(D_IN, D_SAE)
        self.decoder = nn.Linear(D_SAE, D_IN, bias=decoder_bias)


def write_folder(folder: Path, state: object, settings: Settings) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def audiosae(folder: Path, **extra: Tensor) -> Path:
    """As AudioSAE's: encoder, decoder, b_dec and k, and no threshold."""
    state = {**Reference().state_dict(), "b_dec": torch.randn(D_IN), "k": torch.tensor(K), **extra}
    return write_folder(folder, state, {"activation_dim": D_IN, "dict_size": D_SAE, "k": K})


@torch.no_grad()
def test_audiosae(tmp_path: Path):
    folder = audiosae(tmp_path / "layer_6")
    state = torch.load(folder / "ae.pt", weights_only=True)
    sae, x = load_sae(folder), make_frames(20)
    assert (sae.config.architecture, sae.config.k) == ("batchtopk", K)
    assert sae.config.tap == "block.5"
    pre = torch.relu(nn.functional.linear(x - state["b_dec"], state["encoder.weight"], state["encoder.bias"]))
    values, indices = pre.flatten().topk(20 * K)
    expected = torch.zeros(20 * D_SAE).scatter(0, indices, values).view(20, D_SAE)
    features, reconstruction = sae(x, use_threshold=False)
    torch.testing.assert_close(features, expected)
    wanted = nn.functional.linear(expected, state["decoder.weight"]) + state["b_dec"]
    torch.testing.assert_close(reconstruction, wanted)
    with pytest.raises(SAEFormatError, match="has no threshold"):
        sae.encode(x)
    calibrated = load_sae(folder / "ae.pt", calibrate_on=x)
    torch.testing.assert_close(calibrated.encode(x), expected)
    save_sae(calibrated, tmp_path / "ours")
    assert torch.equal(load_sae(tmp_path / "ours").encode(x), calibrated.encode(x))


def test_audiosae_tap(tmp_path: Path):
    assert load_sae(audiosae(tmp_path / "layer_1")).config.tap == "block.0"
    assert load_sae(audiosae(tmp_path / "layer_12"), tap="block.2").config.tap == "block.2"
    for name in ("layer_0", "sixth"):
        assert load_sae(audiosae(tmp_path / name)).config.tap == ""


@torch.no_grad()
@pytest.mark.parametrize("stored", [torch.tensor(0.4), torch.full((D_SAE,), 0.4)])
def test_batchtopk_with_a_threshold_is_a_jumprelu(tmp_path: Path, stored: Tensor):
    folder = audiosae(tmp_path, threshold=stored)
    settings = {"dict_class": "BatchTopKSAE", "k": K, "layer": 3, "lm_name": "whisper-small"}
    (folder / "config.json").write_text(json.dumps({"trainer": settings, "buffer": {}}))
    sae, x = load_sae(folder), make_frames(20)
    assert (sae.config.architecture, sae.config.k) == ("jumprelu", K)
    assert (sae.config.model, sae.config.tap) == ("whisper-small", "")
    pre = sae.preactivations(x)
    assert torch.equal(sae.encode(x), pre * (pre > 0.4))
    assert torch.equal(load_sae(folder, calibrate_on=x).threshold, sae.threshold)


def test_threshold_that_was_never_measured(tmp_path: Path):
    assert load_sae(audiosae(tmp_path, threshold=torch.tensor(-1.0))).config.architecture == "batchtopk"


@torch.no_grad()
def test_dictionary_learning_topk(tmp_path: Path):
    audiosae(tmp_path, threshold=torch.tensor(0.4))
    (tmp_path / "config.json").write_text('{"trainer": {"dict_class": "AutoEncoderTopK", "k": 5}}')
    sae, x = load_sae(tmp_path), make_frames(20)
    assert sae.config.architecture == "topk"
    values, indices = torch.relu(sae.preactivations(x)).topk(K)
    expected = torch.zeros(20, D_SAE).scatter(1, indices, values)
    assert torch.equal(sae.encode(x, use_threshold=False), expected)


@torch.no_grad()
@pytest.mark.parametrize("dict_class", ["AutoEncoder", "AutoEncoderNew"])
def test_dictionary_learning_relu(tmp_path: Path, dict_class: str):
    reference, bias = Reference(dict_class == "AutoEncoderNew"), torch.randn(D_IN)
    state = reference.state_dict()
    if dict_class == "AutoEncoder":
        state["bias"] = bias
    sae = load_sae(write_folder(tmp_path, state, {"trainer": {"dict_class": dict_class}}))
    x = make_frames(20)
    if dict_class == "AutoEncoder":
        expected = torch.relu(reference.encoder(x - bias))
        wanted = reference.decoder(expected) + bias
    else:
        expected = torch.relu(reference.encoder(x))
        wanted = reference.decoder(expected)
    features, reconstruction = sae(x)
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(reconstruction, wanted)


class Bomb:
    """Writes a file when unpickled by an unsafe reader."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.target), "w")


@pytest.mark.parametrize("how", ["plain", "torch", "among tensors"])
def test_pickle_bomb_never_goes_off(tmp_path: Path, how: str):
    target, folder = tmp_path / "exploded", audiosae(tmp_path / "sae")
    if how == "plain":
        (folder / "ae.pt").write_bytes(pickle.dumps(Bomb(target), protocol=2))
    elif how == "torch":
        torch.save(Bomb(target), folder / "ae.pt")
    else:
        torch.save({**torch.load(folder / "ae.pt"), "k": Bomb(target)}, folder / "ae.pt")
    refused(folder, "never run")
    assert not target.exists()
    with suppress(RuntimeError):  # the bomb is live: an unsafe reader sets it off
        torch.load(folder / "ae.pt", weights_only=False)
    assert target.exists()


@pytest.mark.parametrize("length", [0, 10, 500, -1])
def test_truncated_pickle(tmp_path: Path, length: int):
    file = audiosae(tmp_path) / "ae.pt"
    file.write_bytes(file.read_bytes()[:length])
    refused(tmp_path, "damaged")


BAD_STATES: dict[str, tuple[object, str]] = {
    "a list": ([1, 2], "no state dict"),
    "not only tensors": ({"encoder.weight": torch.ones(3, 2), "note": "hi"}, "more than dense tensors"),
    "sparse": ({"encoder.weight": torch.eye(3).to_sparse()}, "more than dense tensors"),
    "empty": ({}, "no matrix encoder.weight"),
    "vector": ({"encoder.weight": torch.ones(3)}, "no matrix encoder.weight"),
    "two ks": ({"k": torch.tensor([1, 2])}, "k must be one number"),
    "other k": ({"k": torch.tensor(K + 1)}, r"disagree on k: \[5, 6\]"),
    "negative k": ({"k": torch.tensor(-1)}, "k must be a positive whole number"),
}


@pytest.mark.parametrize("case", BAD_STATES)
def test_unusable_state_dicts(tmp_path: Path, case: str):
    state, match = BAD_STATES[case]
    write_folder(tmp_path, state, {"activation_dim": D_IN, "dict_size": D_SAE, "k": K})
    refused(tmp_path, match)


def test_state_dict_and_config_disagree(tmp_path: Path):
    folder = audiosae(tmp_path)
    (folder / "config.json").write_text(json.dumps({"activation_dim": 768, "k": K}))
    refused(folder, "activation_dim is 768 in config.json, 12 in")
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": "GatedAutoEncoder"}}))
    refused(folder, "'GatedAutoEncoder' is none of BatchTopKSAE")
    (folder / "config.json").unlink()
    refused(folder, "config.json is missing")


def test_state_dict_with_other_tensors(tmp_path: Path):
    refused(audiosae(tmp_path / "more", r_mag=torch.ones(D_SAE)), "r_mag")
    refused(audiosae(tmp_path / "threshold", threshold=torch.ones(7)), r"threshold \(7,\) instead")
    refused(audiosae(tmp_path / "short", b_dec=torch.ones(3)), r"b_dec \(3,\) instead of \(12,\)")
    refused(audiosae(tmp_path / "nan", b_dec=torch.full((D_IN,), torch.nan)), "not finite")


def test_missing_k(tmp_path: Path):
    folder = audiosae(tmp_path)
    state = torch.load(folder / "ae.pt", weights_only=True)
    state.pop("k")
    write_folder(folder, state, {})
    refused(folder, "needs k")


def test_two_saes_in_one_folder(saved: Path):
    audiosae(saved)
    refused(saved, "holds two SAEs")
    assert load_sae(saved / "cfg.json").config == make_sae().config
    assert load_sae(saved / "ae.pt").config.architecture == "batchtopk"
    assert replace(load_sae(saved / "config.json").config, metadata={}).k == K
