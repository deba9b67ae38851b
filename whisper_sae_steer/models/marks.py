"""What names a model whatever file its weights are in: hashes over float16 bytes in network order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import numpy as np
import torch

from .layout import Entry, count_layers, layout
from .model_bin import PROJECTION, StoredArray, is_tied

_POSITIONS = "encoder/position_encodings/encodings"


class Marks(NamedTuple):
    """32 hex digits for each half of a model, None where they can't be known; see `marks`."""

    encoder: str | None
    decoder: str | None


Half = Literal["encoder", "decoder"]


def fingerprint(state: Mapping[str, torch.Tensor] | Mapping[str, np.ndarray], half: Half = "encoder") -> str:
    """32 hex digits that name a model's encoder or decoder, whatever format or precision it is stored in.

    Hashes the float16 bytes of that half's one-dimensional tensors (biases, layer norms) in
    network order, so float32, float16, int8-on-disk and openai checkpoints of one model agree
    (bfloat16 rounds these tensors, so it counts as another model). Fine-tunes that leave every
    bias and norm alone share their base model's fingerprint; `marks` tell those apart. `state`
    has openai-whisper's names or CTranslate2's; KeyError when such a tensor is missing.
    """
    is_ct2 = "encoder/conv1/bias" in state
    layers = count_layers(state, half) if is_ct2 else _openai_layers(state, half)
    digest = hashlib.sha256()
    for entry in layout(layers, layers):
        if not entry.ct2.startswith(f"{half}/") or not entry.is_vector:
            continue
        for array in _vectors(state, entry, is_ct2):
            digest.update(np.ascontiguousarray(array, dtype="<f2").tobytes())
    return digest.hexdigest()[:32]


def marks(arrays: Mapping[str, StoredArray]) -> Marks:
    """Marks of the encoder's and of the decoder's tensors, matrices too, in a model.bin.

    The openai checkpoint, transformers folders and CTranslate2 conversions of one model agree if
    they hold float32 or float16. A model that is bfloat16 throughout agrees with float32 and
    float16 copies of itself, which hold the same values, but not with the float32 model that it
    may have been rounded from: its biases are rounded as well, so the fingerprints differ already.

    Both are None where tensors are stored as integers, or where only some are bfloat16: those were
    rounded from values nobody can know. The encoder's positions count by their shape alone: they
    are a fixed table, which programs compute anew with other last bits. An output projection of
    its own counts as part of the decoder. Reads all of the file; KeyError when a tensor is missing.
    """
    entries = layout(count_layers(arrays, "encoder"), count_layers(arrays, "decoder"))
    names = [entry.ct2 for entry in entries]
    if not is_tied(arrays):
        names.append(PROJECTION)
    types = {arrays[name].dtype for name in names}
    if not types <= {"<f4", "<f2"} and types != {"bfloat16"}:
        return Marks(None, None)
    halves = {"encoder": hashlib.sha256(), "decoder": hashlib.sha256()}
    for name in names:
        half = halves[name.partition("/")[0]]
        half.update(str(arrays[name].shape).encode() if name == _POSITIONS else _half(arrays[name]))
    return Marks(halves["encoder"].hexdigest()[:32], halves["decoder"].hexdigest()[:32])


def differ(one: object, other: object) -> bool:
    """Whether two marks or fingerprints are of different weights; None, which isn't known, may be any."""
    return one is not None and other is not None and one != other


def _half(array: StoredArray) -> bytes | memoryview:
    """The array's bytes in float16."""
    if array.dtype == "<f2":
        return array.raw
    with np.errstate(over="ignore"):
        return array.numpy().astype("<f2").tobytes()


def _openai_layers(state: Iterable[str], half: Half) -> int:
    return len({name.split(".")[2] for name in state if name.startswith(f"{half}.blocks.")})


def _vectors(
    state: Mapping[str, torch.Tensor] | Mapping[str, np.ndarray], entry: Entry, is_ct2: bool
) -> Iterable[np.ndarray]:
    if is_ct2:
        yield np.asarray(state[entry.ct2])
        return
    for name in entry.openai:
        if name.endswith(".key.bias"):
            yield np.zeros(len(state[entry.openai[-1]]))  # of the value, which has one
        else:
            yield torch.as_tensor(state[name]).detach().cpu().float().numpy()
