"""Reads CTranslate2's model.bin: a list of named arrays, and aliases of some of them."""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import WeightsError

_BINARY_VERSION = 6
_DTYPES = ("<f4", "i1", "<i2", "<i4", "<f2", "bfloat16")  # the order is CTranslate2's type id
_ITEM_BYTES = {"<f4": 4, "i1": 1, "<i2": 2, "<i4": 4, "<f2": 2, "bfloat16": 2}

EMBEDDINGS, PROJECTION = "decoder/embeddings/weight", "decoder/projection/weight"


class StoredArray(NamedTuple):
    """An array as it lies in the mapped file."""

    dtype: str
    """<f4, i1, <i2, <i4, <f2 or bfloat16"""
    shape: tuple[int, ...]
    raw: memoryview

    def numpy(self) -> np.ndarray:
        """A read-only view of the file; bfloat16, which numpy lacks, comes as a float32 copy."""
        if self.dtype != "bfloat16":
            return np.frombuffer(self.raw, self.dtype).reshape(self.shape)
        bits = np.frombuffer(self.raw, "<u2").astype(np.uint32) << 16
        return bits.view(np.float32).reshape(self.shape)


def read_stored(directory: str | os.PathLike[str]) -> dict[str, StoredArray]:
    """The arrays of `directory`/model.bin by name, aliases resolved; nothing of them is read yet.

    Raises `WeightsError`.
    """
    path = Path(directory) / "model.bin"
    try:
        with path.open("rb") as file:
            return _parse(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except FileNotFoundError:
        raise WeightsError(f"{directory} holds no CTranslate2 model: no model.bin in it") from None
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise WeightsError(
            f"{path} is truncated or not a CTranslate2 model of Whisper ({error}); get it again"
        ) from None


def read_ct2(
    directory: str | os.PathLike[str], keep: Callable[[str], bool] = lambda name: True
) -> dict[str, np.ndarray]:
    """The arrays of `directory`/model.bin by name, aliases resolved, dtypes as stored.

    Arrays are read-only views of the mapped file, so reading a few of them is cheap; bfloat16 has
    no numpy dtype and comes as a float32 copy. `keep` says which names to read. Raises
    `WeightsError`.
    """
    made: dict[int, np.ndarray] = {}  # an alias is its target's array, not another one
    arrays: dict[str, np.ndarray] = {}
    for name, stored in read_stored(directory).items():
        if keep(name):
            if id(stored) not in made:
                made[id(stored)] = stored.numpy()
            arrays[name] = made[id(stored)]
    return arrays


def is_tied(arrays: Mapping[str, StoredArray]) -> bool:
    """Whether the output projection is the token embedding; KeyError if there is none."""
    embedding = arrays[EMBEDDINGS]
    projection = arrays.get(PROJECTION, embedding)
    return projection is embedding or (
        projection[:2] == embedding[:2] and np.array_equal(projection.numpy(), embedding.numpy())
    )


def _parse(data: memoryview) -> dict[str, StoredArray]:
    """Read the layout written by `ctranslate2.specs.ModelSpec._serialize`."""
    offset = 0

    def number(code: str) -> int:
        nonlocal offset
        (value,) = struct.unpack_from(f"<{code}", data, offset)
        offset += struct.calcsize(code)
        return value

    def string() -> str:
        nonlocal offset
        size = number("H")
        text = bytes(data[offset : offset + size - 1]).decode()
        offset += size
        return text

    if (version := number("I")) != _BINARY_VERSION:
        raise ValueError(f"binary version {version}, expected {_BINARY_VERSION}")
    if (spec := string()) != "WhisperSpec":
        raise ValueError(f"a {spec}, not a Whisper model")
    number("I")  # the spec's revision
    arrays: dict[str, StoredArray] = {}
    for _ in range(number("I")):
        name = string()
        shape = tuple(number("I") for _ in range(number("B")))
        dtype = _DTYPES[number("B")]
        size = number("I")
        if offset + size > len(data):
            raise ValueError(f"{name} ends after the file does")
        if size != math.prod(shape) * _ITEM_BYTES[dtype]:
            raise ValueError(f"{name} has {size} bytes, which is not what its shape {shape} needs")
        arrays[name] = StoredArray(dtype, shape, data[offset : offset + size])
        offset += size
    for _ in range(number("I")):
        alias, target = string(), string()
        for suffix in ("", "_scale"):  # an alias of integers goes by their scale, too
            if target + suffix in arrays:
                arrays[alias + suffix] = arrays[target + suffix]
    if offset > len(data):
        raise ValueError("its last name ends after the file does")
    return arrays
