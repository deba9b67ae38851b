"""What the formats share: reading files that may be damaged, and building a checked SAE."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...errors import SAEFormatError
from ..autoencoder import SAE, SAEConfig

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""that weights may be in; PyTorch can't compute with smaller ones"""


def read_json(file: Path) -> dict[str, Any]:
    """Settings: a JSON object."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SAEFormatError(f"{file} is missing; copy it beside the weights") from None
    except (OSError, ValueError, RecursionError):
        raise SAEFormatError(f"{file} is not readable JSON; get it again") from None
    if not isinstance(content, dict):
        raise SAEFormatError(f"{file} holds no settings; get it again")
    return cast(dict[str, Any], content)


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file."""
    try:
        return load_file(file)
    except FileNotFoundError:
        raise SAEFormatError(f"{file} is missing; copy it beside its config") from None
    except (SafetensorError, OSError, ValueError):
        raise SAEFormatError(f"{file} is truncated or not a safetensors file; get it again") from None


def read_pickle(file: Path) -> dict[str, object]:
    """The state dict of a ``torch.save`` file; nothing in it but tensors and plain values is ever made."""
    if not file.is_file():
        raise SAEFormatError(f"{file} is missing; copy it beside its config")
    try:
        if _holds_more_than_its_size(file):
            raise SAEFormatError(f"{file} is compressed, as torch.save writes none; load and save it again")
        state = torch.load(file, map_location="cpu", weights_only=True)
    except SAEFormatError:
        raise
    except Exception:  # the file decides what goes wrong while it is read
        raise SAEFormatError(
            f"{file} is damaged, or a pickle of more than tensors, which is never run; get another"
        ) from None
    if not isinstance(state, dict):
        raise SAEFormatError(f"{file} holds no state dict")
    return {str(key): value for key, value in cast(dict[object, object], state).items()}


def _holds_more_than_its_size(file: Path) -> bool:
    """Whether parts of a zip are compressed, or lie in the same place: small files that fill the memory."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as parts:
        return sum(part.file_size for part in parts.infolist()) > file.stat().st_size


def dense(state: Mapping[str, object], file: Path) -> dict[str, Tensor]:
    """The state dict again, floats as float32; refused unless it holds nothing but dense tensors."""
    tensors = {
        name: value.float() if value.dtype in FLOATS else value
        for name, value in state.items()
        if isinstance(value, Tensor) and _is_dense(value)
    }
    if len(tensors) < len(state):
        raise SAEFormatError(f"{file} holds more than dense tensors; it is no SAE's state dict")
    return tensors


def _is_dense(tensor: Tensor) -> bool:
    """Whether it holds numbers to compute with, each by itself: nested, quantised, meta and expanded tensors
    don't."""
    odd = tensor.is_nested or tensor.is_quantized or tensor.is_meta or tensor.is_complex()
    small = tensor.is_floating_point() and tensor.dtype not in FLOATS
    if tensor.layout != torch.strided or odd or small:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def rename(tensors: Mapping[str, Tensor], names: Mapping[str, str], file: Path) -> dict[str, Tensor]:
    """Tensors under SAELens' names and in its orientation; ``names`` maps all four of them.

    What is called ``….weight`` belongs to an nn.Linear, which keeps [out, in].
    """
    renamed = {names.get(name, name): tensor for name, tensor in tensors.items()}
    for name, ours in names.items():
        if not ours.startswith("W_"):
            continue
        if name not in tensors or tensors[name].dim() != 2 or not tensors[name].numel():
            raise SAEFormatError(f"{file} has no matrix {name}; it is no SAE that can be read")
        if name.endswith(".weight"):
            renamed[ours] = tensors[name].T
    return renamed


def build(config: SAEConfig, tensors: Mapping[str, Tensor], file: Path, subtracts: bool = True) -> SAE:
    """The module from tensors in SAELens' names and orientation, checked.

    ``subtracts`` says whether the encoder takes the decoder's bias off its input; if not, what our
    own subtracts is given back in the encoder's bias.
    """
    expected: dict[str, tuple[int, ...]] = {
        "W_enc": (config.d_in, config.d_sae),
        "b_enc": (config.d_sae,),
        "W_dec": (config.d_sae, config.d_in),
        "b_dec": (config.d_in,),
    }
    if config.architecture == "jumprelu":
        expected["threshold"] = (config.d_sae,)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        different = sorted(n for n in {*found, *expected} if found.get(n) != expected.get(n))
        detail = ", ".join(f"{n} {found.get(n)} instead of {expected.get(n)}" for n in different)
        raise SAEFormatError(f"{file} doesn't hold the tensors its config promises: {detail}")
    if config.k is not None and config.k > config.d_sae:
        raise SAEFormatError(f"{file} has {config.d_sae} features, fewer than k, {config.k}")
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            raise SAEFormatError(f"{file} must hold floats in {name}, not {tensor.dtype}")
    values = {name: tensor.float() for name, tensor in tensors.items()}
    check_finite(values, str(file))
    if not subtracts:
        shift = values["b_dec"].double() @ values["W_enc"].double()
        values["b_enc"] = (values["b_enc"].double() + shift).float()
    if "threshold" in values:  # below 0 it is ReLU's 0 that decides
        values["threshold"] = values["threshold"].clamp_min(0)
    sae = SAE(config)
    sae.load_state_dict(values)
    return sae


def positive(settings: Mapping[str, Any], key: str, file: Path) -> int:
    """A size or count from settings; 5.0 is one, too."""
    value = settings.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SAEFormatError(f"{file}: {key} must be a positive whole number, not {value!r:.60}")
    return value


def flag(settings: Mapping[str, Any], key: str, default: bool, file: Path) -> bool:
    """Yes or no from settings."""
    value = settings.get(key, default)
    if not isinstance(value, bool):
        raise SAEFormatError(f"{file}: {key} must be true or false, not {value!r:.60}")
    return value


def text(settings: Mapping[str, Any], key: str, file: Path) -> str:
    """A name from settings; empty if there is none."""
    value = settings.get(key)
    if not isinstance(value, str | None):
        raise SAEFormatError(f"{file}: {key} must be text, not {value!r:.60}")
    return value or ""


def check_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Refuse NaN and infinity anywhere."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise SAEFormatError(f"{what} has values in {name} that are not finite")
