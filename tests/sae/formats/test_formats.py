"""Telling the formats apart, and files that no format can trust."""

import json
import pickle
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from tests.support.small_saes import D_IN, D_SAE, K, audiosae, make_frames, make_sae, refused, write_folder
from whisper_sae_steer.errors import CalibrationError, SAEFormatError
from whisper_sae_steer.sae.formats import load_sae, save_sae


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_sae(make_sae(), tmp_path / "sae")
    return tmp_path / "sae"


def test_nothing_there(tmp_path: Path):
    refused(tmp_path, r"no SAE at .*takes sae_weights.safetensors \+ cfg.json")
    refused(tmp_path / "absent", "no SAE at")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    refused(tmp_path / "model.safetensors", "no SAE at")
    refused(tmp_path / "absent.pt", "no SAE at")


def test_settings_without_weights(tmp_path: Path):
    (tmp_path / "cfg.json").write_text("{}")
    refused(tmp_path, "sae_weights.safetensors is missing; copy it beside cfg.json")
    (tmp_path / "cfg.json").rename(tmp_path / "config.json")
    refused(tmp_path, "ae.pt is missing; copy it beside config.json")
    refused(tmp_path / "config.json", "ae.pt is missing")


def test_two_saes_in_one_folder(saved: Path):
    audiosae(saved)
    refused(saved, "holds several SAEs; name one file in it: sae_weights.safetensors, ae.pt")
    assert load_sae(saved / "cfg.json").config == make_sae().config
    assert load_sae(saved / "ae.pt").config.architecture == "batchtopk"
    assert load_sae(saved / "config.json").config.k == K
    (saved / "sae.safetensors").write_bytes(b"")
    refused(saved / "cfg.json", "several SAEs; name one file in it: sae_weights.safetensors, sae.safetensors")


def test_several_pickles_in_one_folder(tmp_path: Path):
    audiosae(tmp_path)
    (tmp_path / "ae.pt").rename(tmp_path / "step_1.pt")
    assert load_sae(tmp_path).config.d_sae == D_SAE
    (tmp_path / "step_2.pt").write_bytes((tmp_path / "step_1.pt").read_bytes())
    refused(tmp_path, "several SAEs; name one file in it: step_1.pt, step_2.pt")


@torch.no_grad()
def test_calibrating_while_loading(tmp_path: Path):
    folder, x = audiosae(tmp_path), make_frames(4, 50)
    sae = load_sae(folder, calibrate_on=x)
    assert sae.config.architecture == "jumprelu"
    assert int((sae.encode(x) > 0).sum()) == 200 * K
    with pytest.raises(CalibrationError):
        load_sae(folder, calibrate_on=x[:0])
    with pytest.raises(SAEFormatError, match="width 12"):
        load_sae(folder, calibrate_on=torch.zeros(12, 13))


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
    "no decoder": ({"encoder.weight": torch.ones(3, 2)}, "no matrix decoder.weight"),
    "two ks": ({"k": torch.tensor([1, 2])}, "k must be one number"),
    "other k": ({"k": torch.tensor(K + 1)}, r"disagree on k: \[5, 6\]"),
    "negative k": ({"k": torch.tensor(-1)}, "k must be a positive whole number"),
}


@pytest.mark.parametrize("case", BAD_STATES)
def test_unusable_state_dicts(tmp_path: Path, case: str):
    state, match = BAD_STATES[case]
    write_folder(tmp_path, state, {"activation_dim": D_IN, "dict_size": D_SAE, "k": K})
    refused(tmp_path, match)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff", "[" * 100_000])
def test_broken_settings(saved: Path, text: str):
    (saved / "cfg.json").write_text(text, encoding="latin-1")
    refused(saved, "cfg.json")


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_truncated_safetensors(saved: Path, length: int):
    file = saved / "sae_weights.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    refused(saved, "truncated or not a safetensors")


def test_settings_of_another_file(saved: Path, tmp_path: Path):
    """SAELens' settings beside sparsify's weights, and the other way round."""
    (saved / "sae_weights.safetensors").rename(saved / "sae.safetensors")
    refused(saved, "expansion_factor must be a positive whole number")
    (saved / "sae.safetensors").rename(saved / "sae_weights.safetensors")
    (saved / "cfg.json").write_text(json.dumps({"d_in": D_IN, "num_latents": D_SAE, "k": K}))
    refused(saved, "older than SAELens v6")
