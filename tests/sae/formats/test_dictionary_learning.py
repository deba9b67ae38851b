"""dictionary_learning and AudioSAE: the same features as the library, without it where it isn't there."""

import json
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.small_saes import (
    D_IN,
    D_SAE,
    K,
    agrees,
    audiosae,
    make_frames,
    randomize,
    refused,
    write_folder,
)
from whisper_sae_steer.errors import SAEFormatError
from whisper_sae_steer.sae.formats import load_sae, save_sae

_MODULES = {
    "BatchTopKSAE": "trainers.batch_top_k",
    "MatryoshkaBatchTopKSAE": "trainers.matryoshka_batch_top_k",
    "AutoEncoderTopK": "trainers.top_k",
    "JumpReluAutoEncoder": "dictionary",
    "AutoEncoder": "dictionary",
    "AutoEncoderNew": "dictionary",
}

needs_library = pytest.mark.skipif(
    find_spec("dictionary_learning") is None, reason="pip install --no-deps dictionary-learning==0.1.0"
)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """dictionary_learning's classes by name.

    Importing it takes nnsight, for a buffer of activations that is not used here; nnsight takes a
    torchvision, which must be of torch's own build, so that both are left out.
    """
    nnsight = ModuleType("nnsight")
    nnsight.__dict__["LanguageModel"] = object
    monkeypatch.setitem(sys.modules, "nnsight", nnsight)
    modules = {name: import_module(f"dictionary_learning.{module}") for name, module in _MODULES.items()}
    return SimpleNamespace(**{name: getattr(module, name) for name, module in modules.items()})


def make(library: SimpleNamespace, dict_class: str) -> Any:
    """One of its dictionaries, of random values, as its trainers leave them."""
    cls = getattr(library, dict_class)
    if dict_class == "MatryoshkaBatchTopKSAE":
        theirs = cls(D_IN, D_SAE, K, group_sizes=[8, D_SAE - 8])
    else:
        theirs = cls(D_IN, D_SAE, K) if "TopK" in dict_class else cls(D_IN, D_SAE)
    randomize(theirs)
    if "threshold" in dict(theirs.named_buffers()):
        theirs.threshold.fill_(2.5)
    if dict_class == "JumpReluAutoEncoder":  # some of them below 0, where ReLU decides
        theirs.threshold.data = torch.linspace(-1, 4, D_SAE)
    return theirs


@torch.no_grad()
@needs_library
@pytest.mark.parametrize("dict_class", _MODULES)
def test_we_read_what_it_loads(library: SimpleNamespace, tmp_path: Path, dict_class: str):
    settings = {"dict_class": dict_class, "activation_dim": D_IN, "dict_size": D_SAE, "lm_name": "tiny"}
    if "TopK" in dict_class:
        settings["k"] = K
    write_folder(tmp_path, make(library, dict_class).state_dict(), {"trainer": settings, "buffer": {}})
    theirs = getattr(library, dict_class).from_pretrained(tmp_path / "ae.pt")  # as load_dictionary does
    ours, x = load_sae(tmp_path), make_frames(50)
    assert (ours.config.model, ours.config.k) == ("tiny", K if "TopK" in dict_class else None)
    features = theirs.encode(x)
    agrees(ours, features, theirs.decode(features), x)


@torch.no_grad()
@needs_library
@pytest.mark.parametrize("dict_class", ["BatchTopKSAE", "MatryoshkaBatchTopKSAE"])
def test_batchtopk_without_a_threshold(library: SimpleNamespace, tmp_path: Path, dict_class: str):
    """Its rule in training, over a batch; then a threshold calibrated on that batch."""
    theirs, x = make(library, dict_class), make_frames(50)
    theirs.threshold.fill_(-1)
    write_folder(tmp_path, theirs.state_dict(), {"trainer": {"dict_class": dict_class, "k": K}})
    features = theirs.encode(x, use_threshold=False)
    agrees(load_sae(tmp_path), features, theirs.decode(features), x)
    agrees(load_sae(tmp_path, calibrate_on=x), features, theirs.decode(features), x)


@torch.no_grad()
@needs_library
def test_it_reads_what_audiosae_wrote(library: SimpleNamespace, tmp_path: Path):
    """AudioSAE's class is a copy of BatchTopKSAE: without a threshold every positive feature fires."""
    folder, x = audiosae(tmp_path / "layer_6"), make_frames(20)
    theirs = library.BatchTopKSAE(D_IN, D_SAE, K)
    theirs.load_state_dict(torch.load(folder / "ae.pt", weights_only=True), strict=False)
    features = theirs.encode(x, use_threshold=False)
    agrees(load_sae(folder), features, theirs.decode(features), x)


# and without the library


@torch.no_grad()
def test_audiosae(tmp_path: Path):
    folder = audiosae(tmp_path / "layer_6")
    state = torch.load(folder / "ae.pt", weights_only=True)
    sae, x = load_sae(folder), make_frames(20)
    assert (sae.config.architecture, sae.config.k, sae.config.tap) == ("batchtopk", K, "block.5")
    pre = torch.relu(nn.functional.linear(x - state["b_dec"], state["encoder.weight"], state["encoder.bias"]))
    values, indices = pre.flatten().topk(20 * K)
    expected = torch.zeros(20 * D_SAE).scatter(0, indices, values).view(20, D_SAE)
    wanted = nn.functional.linear(expected, state["decoder.weight"]) + state["b_dec"]
    agrees(sae, expected, wanted, x)
    with pytest.raises(SAEFormatError, match="has no threshold"):
        sae.encode(x)
    calibrated = load_sae(folder / "ae.pt", calibrate_on=x)
    agrees(calibrated, expected, wanted, x)
    save_sae(calibrated, tmp_path / "ours")
    assert torch.equal(load_sae(tmp_path / "ours").encode(x), calibrated.encode(x))


def test_audiosae_tap(tmp_path: Path):
    assert load_sae(audiosae(tmp_path / "layer_1")).config.tap == "block.0"
    assert load_sae(audiosae(tmp_path / "layer_12"), tap="block.2").config.tap == "block.2"
    for name in ("layer_0", "sixth"):
        assert load_sae(audiosae(tmp_path / name)).config.tap == ""


@pytest.mark.parametrize(
    ("folder", "model"),
    [
        ("Audio-SAE-Whisper-small", "small"),
        ("models--Egorgij21--Audio-SAE-Whisper-large-v3/snapshots/0", "large-v3"),
        ("Audio-SAE-Whisper-large-v3-turbo", "large-v3-turbo"),
        ("Audio-SAE-hubert-base", "facebook/hubert-base-ls960"),
        ("Audio-SAE-HuBERT-large", "facebook/hubert-large-ll60k"),
        ("Audio-SAE-something-new", ""),
    ],
)
def test_audiosae_model(tmp_path: Path, folder: str, model: str):
    assert load_sae(audiosae(tmp_path / folder / "layer_3")).config.model == model


@torch.no_grad()
@pytest.mark.parametrize("stored", [torch.tensor(0.4), torch.full((D_SAE,), 0.4)])
def test_batchtopk_with_a_threshold_is_a_jumprelu(tmp_path: Path, stored: Tensor):
    sae, x = load_sae(audiosae(tmp_path, threshold=stored)), make_frames(20)
    assert (sae.config.architecture, sae.config.k) == ("jumprelu", K)
    pre = sae.preactivations(x)
    assert torch.equal(sae.encode(x), pre * (pre > 0.4))
    assert torch.equal(load_sae(tmp_path, calibrate_on=x).threshold, sae.threshold)


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
    jumprelu = audiosae(tmp_path / "jumprelu")
    (jumprelu / "config.json").write_text(json.dumps({"dict_class": "JumpReluAutoEncoder"}))
    refused(jumprelu, "no matrix W_enc")


def test_missing_k(tmp_path: Path):
    folder = audiosae(tmp_path)
    state = torch.load(folder / "ae.pt", weights_only=True)
    state.pop("k")
    write_folder(folder, state, {})
    refused(folder, "needs k")
