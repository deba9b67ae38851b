"""eai-sparsify: the same features as the library, and what must be refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sparsify import SparseCoder, SparseCoderConfig
from sparsify.utils import eager_decode

from tests.support.small_saes import D_IN, D_SAE, K, agrees, make_frames, randomize, refused
from whisper_sae_steer.sae.formats import load_sae
from whisper_sae_steer.sae.pretrained import from_pretrained


def save(folder: Path, **settings: Any) -> Path:
    config = SparseCoderConfig(k=K, num_latents=D_SAE)
    theirs = SparseCoder(D_IN, replace(config, **settings))
    randomize(theirs)
    theirs.save_to_disk(folder)
    return folder


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"num_latents": 0, "expansion_factor": 3}, {"multi_topk": True}])
def test_we_read_sparsify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]):
    monkeypatch.setattr("sparsify.sparse_coder.decoder_impl", eager_decode)  # Triton's needs a GPU
    theirs, x = SparseCoder.load_from_disk(save(tmp_path, **settings)), make_frames(50)
    values, indices, _ = theirs.encode(x)
    features = torch.zeros(50, theirs.num_latents).scatter(1, indices, values)
    ours = load_sae(tmp_path)
    assert (ours.config.architecture, ours.config.k) == ("topk", K)
    agrees(ours, features, theirs.decode(values, indices), x)


@torch.no_grad()
def test_calibrated(tmp_path: Path):
    x = make_frames(100)
    sae = load_sae(save(tmp_path), calibrate_on=x)
    assert int((sae.encode(x) > 0).sum()) == 100 * K


@pytest.mark.parametrize(
    ("hookpoint", "tap"),
    [
        ("layers.5", "block.5"),
        ("encoder.layers.11", "block.11"),
        ("model.encoder.layers.0", "block.0"),
        ("decoder.layers.5", ""),
        ("layers.5.fc2", ""),
    ],
)
def test_tap_is_the_hookpoint(tmp_path: Path, hookpoint: str, tap: str):
    folder = save(tmp_path / hookpoint)
    for source in (folder, folder / "cfg.json", folder / "sae.safetensors"):
        assert load_sae(source).config.tap == tap
    assert load_sae(folder, tap="block.1").config.tap == "block.1"


def test_pretrained_layers(tmp_path: Path):
    for layer in (1, 5, 11, 15):
        save(tmp_path / f"encoder.layers.{layer}")
    (tmp_path / "optimizer_0.pt").write_bytes(b"of its trainer")
    assert from_pretrained(tmp_path, 5).config.tap == "block.5"
    assert from_pretrained(tmp_path, "encoder.layers.11").config.tap == "block.11"


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"transcode": True}, "transcode is set, and a transcoder"),
        ({"skip_connection": True}, "skip_connection is set"),
        ({"activation": "groupmax"}, "activation 'groupmax' compares features within groups"),
    ],
)
def test_what_does_not_fold(tmp_path: Path, settings: dict[str, Any], match: str):
    refused(save(tmp_path, **settings), match)


def test_damaged(tmp_path: Path):
    weights, config = save(tmp_path) / "sae.safetensors", tmp_path / "cfg.json"
    tensors, settings = load_file(weights), json.loads(config.read_text())
    for changes, match in (
        ({"signed": True}, "signed is set"),
        ({"k": None}, "k must be a positive whole number"),
        ({"num_latents": "40"}, "num_latents must be a positive whole number"),
        ({"num_latents": 41}, r"W_enc \(12, 40\) instead of \(12, 41\)"),
    ):
        config.write_text(json.dumps({**settings, **changes}))
        refused(tmp_path, match)
    config.write_text(json.dumps(settings))
    save_file({**tensors, "W_skip": torch.zeros(D_IN, D_IN)}, weights)
    refused(tmp_path, "W_skip")
    tensors.pop("W_dec")  # as its decoder-less saving leaves it
    save_file(tensors, weights)
    refused(tmp_path, "no matrix W_dec")
    config.unlink()
    refused(weights, "cfg.json is missing")
