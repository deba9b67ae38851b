"""Steering packs with other content and the right hash, and packs whose bytes are damaged."""

import json
import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from tests.fuzz.damage import NUMBERS, as_json, spoiled, spoiled_json
from tests.support.small_pack import small_pack
from whisper_sae_steer.steering import pack as packs
from whisper_sae_steer.steering.operator import Operator
from whisper_sae_steer.steering.pack import pack_digest, read_pack, save_pack, shipped_packs

DTYPES = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.bool, torch.complex64)


def attempt(dice: random.Random, folder: Path) -> str:
    """Read it; what is read steers frames without a number that isn't one."""
    path = folder / "pack.safetensors"
    make = dice.choice((_other_content, _other_content, _damaged, _lying_header))
    path.write_bytes(make(dice, folder))
    pack = read_pack(path)
    frames = torch.randn(2, 20, pack.metadata.d_in)
    Operator(pack).apply_(frames, dice.choice((0.0, 1.0, 100.0)))
    assert frames.isfinite().all()
    assert pack_digest(pack)
    return "read"


@cache
def _originals() -> list[bytes]:
    """Small ones of each strategy, and one that ships."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pack.safetensors"
        written: list[bytes] = []
        for strategy in ("direction", "suppress", "additive"):
            save_pack(small_pack(strategy), path)
            written.append(path.read_bytes())
    return [*written, shipped_packs()["tiny.en"].read_bytes()]


def _other_content(dice: random.Random, folder: Path) -> bytes:
    original = folder / "original.safetensors"
    original.write_bytes(dice.choice(_originals()))
    with safe_open(str(original), "pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        metadata: Any = json.loads(file.metadata()["metadata"])
    if dice.random() < 0.6:
        metadata = spoiled_json(metadata, dice)
    if dice.random() < 0.6:
        _change(tensors, dice)
    text = as_json(metadata)
    header = {"metadata": text, "sha256": packs._digest(tensors, text)}
    return save(tensors, {"format": dice.choice(("1", "2", "2", "3")), **header})


def _change(tensors: dict[str, Tensor], dice: random.Random) -> None:
    name = dice.choice(list(tensors))
    tensor = tensors[name]
    match dice.randrange(6):
        case 0:
            del tensors[name]
        case 1:
            tensors[dice.choice(("x", "pooled.key", "probe", "gate.rows"))] = tensor.clone()
        case 2:
            tensors[name] = tensor.to(dice.choice(DTYPES))
        case 3:
            tensors[name] = tensor.reshape(-1)[: dice.randrange(5)].clone()
        case 4:
            tensors[name] = torch.zeros(
                dice.choice(((), (0,), (1, 1), (3, 0), (1, 2, 3))), dtype=tensor.dtype
            )
        case _:
            if tensor.numel() and tensor.is_floating_point():
                value = dice.choice((torch.nan, torch.inf, -1e38, 6e4, 1e-40, 0.0))
                tensor.reshape(-1)[dice.randrange(tensor.numel())] = value


def _damaged(dice: random.Random, _: Path) -> bytes:
    return spoiled(dice.choice(_originals()), dice)


def _lying_header(dice: random.Random, _: Path) -> bytes:
    """A header whose length, shapes and places of tensors are other than what follows."""
    data = dice.choice(_originals())
    length = int.from_bytes(data[:8], "little")
    header, content = json.loads(data[8 : 8 + length]), data[8 + length :]
    entry = header[dice.choice(list(header))]
    if "shape" in entry:
        entry[dice.choice(("shape", "data_offsets"))] = [
            dice.choice(NUMBERS) for _ in range(dice.randrange(4))
        ]
    text = as_json(spoiled_json(header, dice)).encode()
    told = len(text) if dice.random() < 0.7 else dice.choice(NUMBERS) % 2**64
    return told.to_bytes(8, "little") + text + content
