"""Small SAEs, ours and AudioSAE's, and what the tests of the formats share."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from whisper_sae_steer.errors import SAEFormatError
from whisper_sae_steer.sae.autoencoder import SAE, Architecture, SAEConfig
from whisper_sae_steer.sae.formats import load_sae

D_IN, D_SAE, K = 12, 40, 5
Settings = dict[str, object]


def make_sae(architecture: Architecture = "jumprelu", seed: int = 0) -> SAE:
    """A random SAE with biases everywhere and thresholds that differ."""
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


@torch.no_grad()
def randomize(module: nn.Module, seed: int = 4) -> None:
    """Random values for every parameter of another library's module."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def agrees(sae: SAE, features: Tensor, reconstruction: Tensor, x: Tensor) -> None:
    """The same features fire with the same values, and decode to the same frames."""
    ours = sae(x, use_threshold=sae.config.architecture == "jumprelu")
    assert 0 < (features > 0).float().mean() < 0.9
    assert torch.equal(ours.features > 0, features > 0)
    torch.testing.assert_close(ours.features, features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.reconstruction, reconstruction, rtol=1e-4, atol=1e-4)


def refused(source: Path, match: str) -> None:
    """The error says what is wrong in one line."""
    with pytest.raises(SAEFormatError, match=match) as caught:
        load_sae(source)
    assert "\n" not in str(caught.value)


def write_folder(folder: Path, state: object, settings: Settings) -> Path:
    """As dictionary_learning and AudioSAE lay it out."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def audiosae(folder: Path, **extra: Tensor) -> Path:
    """As AudioSAE's: encoder, decoder, b_dec and k, and no threshold."""
    torch.manual_seed(5)
    state = {
        **{f"encoder.{name}": tensor for name, tensor in nn.Linear(D_IN, D_SAE).state_dict().items()},
        "decoder.weight": torch.randn(D_IN, D_SAE),
        "b_dec": torch.randn(D_IN),
        "k": torch.tensor(K),
        **extra,
    }
    return write_folder(folder, state, {"activation_dim": D_IN, "dict_size": D_SAE, "k": K})
