"""Folders of sparse autoencoders, in every format that is read, with damaged settings or weights."""

import json
import pickle
import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from tests.fuzz.damage import as_json, spoiled, spoiled_json
from tests.support.small_saes import audiosae, make_sae
from whisper_sae_steer.sae.formats import load_sae, save_sae

Files = dict[str, bytes]


def attempt(dice: random.Random, folder: Path) -> str:
    """Read it; what is read encodes frames to numbers."""
    files = dict(dice.choice(_originals()))
    for name in dice.sample(list(files), dice.choice((0, 1, 1, len(files)))):
        if name.endswith(".json") and dice.random() < 0.7:
            files[name] = as_json(spoiled_json(json.loads(files[name]), dice)).encode()
        elif name.endswith(".pt") and dice.random() < 0.5:
            files[name] = _state(files[name], dice, folder)
        else:
            files[name] = spoiled(files[name], dice)
    if dice.random() < 0.1:
        del files[dice.choice(list(files))]
    if dice.random() < 0.1:
        files[dice.choice(("ae.pt", "cfg.json", "config.json", "sae.safetensors", "x.pt"))] = dice.randbytes(
            50
        )
    for name, data in files.items():
        (folder / name).write_bytes(data)
    sae = load_sae(folder)
    features = sae.encode(torch.randn(3, sae.config.d_in))
    assert not features.isnan().any()
    return "read"


@cache
def _originals() -> list[Files]:
    """SAELens' of two architectures, AudioSAE's, OpenAI's and sparsify's."""
    made: list[Files] = []
    with tempfile.TemporaryDirectory() as root:
        for number, architecture in enumerate(("jumprelu", "topk")):
            save_sae(make_sae(architecture), Path(root) / str(number))
            made.append(_files(Path(root) / str(number)))
        made.append(_files(audiosae(Path(root) / "audiosae")))
        openai = {
            "encoder.weight": torch.randn(40, 12),
            "latent_bias": torch.randn(40),
            "decoder.weight": torch.randn(12, 40),
            "pre_bias": torch.randn(12),
            "activation": "ReLU",
        }
        torch.save(openai, Path(root) / "openai.pt")
        made.append({"openai.pt": (Path(root) / "openai.pt").read_bytes()})
    sparsify = {
        "encoder.weight": torch.randn(40, 12),
        "encoder.bias": torch.randn(40),
        "W_dec": torch.randn(40, 12),
        "b_dec": torch.randn(12),
    }
    settings = {"d_in": 12, "expansion_factor": 4, "num_latents": 40, "k": 5, "activation": "topk"}
    made.append({"sae.safetensors": save(sparsify), "cfg.json": json.dumps(settings).encode()})
    return made


def _files(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _state(data: bytes, dice: random.Random, folder: Path) -> bytes:
    """Another state dict, or a pickle that would run code."""
    path = folder / "state"
    path.write_bytes(data)
    state: Any = torch.load(path, weights_only=True)
    name = dice.choice(list(state))
    value = dice.choice(
        (
            *(None, 5, "x", [1], {"a": 1}, torch.zeros(()), torch.zeros(0, 3), torch.full((40,), torch.nan)),
            *(torch.zeros(40, 12).to_sparse(), torch.zeros(1).expand(10**12), torch.zeros(12, 40, 1)),
            *(torch.tensor(10**18), torch.zeros(40, dtype=torch.complex64), torch.zeros(3, device="meta")),
        )
    )
    state = (
        {**state, name: value} if dice.random() < 0.8 else {key: v for key, v in state.items() if key != name}
    )
    if dice.random() < 0.2:
        return pickle.dumps(_Harm(folder / "harm"))
    torch.save(dice.choice((state, state, state, list(state.items()), 5)), path)
    written = path.read_bytes()
    path.unlink()
    return written


class _Harm:
    """Would make a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)
