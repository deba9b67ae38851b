"""OpenAI's sparse_autoencoder: the features of its ``Autoencoder``, restated here.

The package is on no index. After ``sparse_autoencoder/model.py`` of
github.com/openai/sparse_autoencoder at 764586a: ``encode`` is activation(F.linear(x - pre_bias,
encoder.weight, latent_bias)), ``decode`` is decoder(latents) + pre_bias, and ``from_state_dict``
normalizes the input if, and only if, the activation is TopK.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.small_saes import D_IN, D_SAE, agrees, audiosae, make_frames, refused
from whisper_sae_steer.sae.formats import load_sae


def make_state(**extra: Any) -> "OrderedDict[str, Any]":
    """What ``Autoencoder.state_dict()`` holds, in its order."""
    torch.manual_seed(3)
    return OrderedDict(
        {
            "pre_bias": torch.randn(D_IN),
            "latent_bias": torch.randn(D_SAE),
            "stats_last_nonzero": torch.zeros(D_SAE, dtype=torch.long),
            "latents_activation_frequency": torch.ones(D_SAE),
            "latents_mean_square": torch.zeros(D_SAE),
            "encoder.weight": torch.randn(D_SAE, D_IN),
            "decoder.weight": torch.randn(D_IN, D_SAE),
            **extra,
        }
    )


@torch.no_grad()
@pytest.mark.parametrize("extra", [{"activation": "ReLU", "activation_state_dict": OrderedDict()}, {}])
def test_relu(tmp_path: Path, extra: dict[str, Any]):
    state, x = make_state(**extra), make_frames(3, 50)
    torch.save(state, tmp_path / "6.pt")
    features = nn.functional.linear(x - state["pre_bias"], state["encoder.weight"], state["latent_bias"])
    features = features.relu()
    wanted = nn.functional.linear(features, state["decoder.weight"]) + state["pre_bias"]
    for source in (tmp_path, tmp_path / "6.pt"):
        ours = load_sae(source)
        assert (ours.config.architecture, ours.config.tap) == ("jumprelu", "")
        agrees(ours, features, wanted, x)
    assert load_sae(tmp_path, tap="block.2").config.tap == "block.2"


def test_layer_norm_does_not_fold(tmp_path: Path):
    topk = OrderedDict({"k": 32, "postact_fn": "ReLU"})
    torch.save(make_state(activation="TopK", activation_state_dict=topk), tmp_path / "6.pt")
    refused(tmp_path, "TopK of OpenAI's, which scales each frame by LayerNorm")


def test_other_files(tmp_path: Path):
    file = tmp_path / "6.pt"
    torch.save(make_state(activation="Identity"), file)
    refused(file, "the activation is Identity; only ReLU")
    training = make_state()  # train.py's FastAutoencoder keeps one statistic, no activation and no k
    for name in ("latents_activation_frequency", "latents_mean_square"):
        training.pop(name)
    torch.save(training, file)
    refused(file, "the activation is not named")
    torch.save(make_state(note="hi"), file)
    refused(file, "more than dense tensors")
    tied = make_state()
    tied["decoder.linear.weight"] = tied.pop("decoder.weight")
    torch.save(tied, file)
    refused(file, "no matrix decoder.weight")
    audiosae(tmp_path)
    refused(tmp_path, "several SAEs; name one file in it: ae.pt, 6.pt")
    refused(file, "no matrix decoder.weight")
