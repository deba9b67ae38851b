"""dictionary_learning and AudioSAE: ``ae.pt`` + ``config.json``, read.

Features are those of the object that dictionary_learning's ``load_dictionary`` returns. AudioSAE's
files (arXiv 2602.05027) are BatchTopKSAE's without a class name and without a threshold.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ...errors import SAEFormatError
from ..autoencoder import SAE, SAEConfig
from .checks import build, check_finite, dense, positive, read_json, rename, text

CONFIG, WEIGHTS = "config.json", "ae.pt"

_LINEAR = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "decoder.weight": "W_dec"}
_PARAMETERS = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")}


class _Layout(NamedTuple):
    """How a class names its tensors and uses them."""

    names: Mapping[str, str]
    """its names → SAELens'"""
    rule: Literal["batchtopk", "topk", "jumprelu", "relu"]
    """what fires; a batchtopk has one threshold, or -1 until it has measured one"""
    subtracts: bool = True
    """whether the encoder takes the decoder's bias off its input"""
    unit_norm: bool = False
    """whether loading gives the decoder unit norms"""


_LAYOUTS = {
    "BatchTopKSAE": _Layout({**_LINEAR, "b_dec": "b_dec"}, "batchtopk"),
    "MatryoshkaBatchTopKSAE": _Layout(_PARAMETERS, "batchtopk"),
    "AutoEncoderTopK": _Layout({**_LINEAR, "b_dec": "b_dec"}, "topk"),
    "JumpReluAutoEncoder": _Layout(_PARAMETERS, "jumprelu", subtracts=False),
    "AutoEncoder": _Layout({**_LINEAR, "bias": "b_dec"}, "relu", unit_norm=True),
    "AutoEncoderNew": _Layout({**_LINEAR, "decoder.bias": "b_dec"}, "relu", subtracts=False),
}

_AUDIOSAE_MODELS = {
    "whisper-small": "small",
    "whisper-large-v3": "large-v3",
    "whisper-large-v3-turbo": "large-v3-turbo",
    "hubert-base": "facebook/hubert-base-ls960",
    "hubert-large": "facebook/hubert-large-ll60k",
}
"""last part of the repository ``Audio-SAE-…`` → openai-whisper's or transformers' name"""


def read(weights: Path, state: Mapping[str, object], tap: str | None) -> SAE:
    """The SAE with this state dict; arguments and errors as :func:`load_sae`."""
    folder, file = weights.parent, weights.with_name(CONFIG)
    config = read_json(file)
    settings = config["trainer"] if isinstance(config.get("trainer"), dict) else config
    dict_class = str(settings.get("dict_class", "BatchTopKSAE"))
    if dict_class not in _LAYOUTS:
        raise SAEFormatError(f"{weights}: class {dict_class!r} is none of {', '.join(_LAYOUTS)}")
    layout = _LAYOUTS[dict_class]
    tensors = dense(state, weights)
    k = _stored_k(tensors, settings, weights)
    groups = tensors.pop("group_sizes", None)  # how Matryoshka was trained; all of them fire
    if groups is not None:
        check_finite({"group_sizes": groups}, str(weights))
    tensors = rename(tensors, layout.names, weights)
    d_in, d_sae = tensors["W_enc"].shape
    for key, width in (("activation_dim", d_in), ("dict_size", d_sae)):
        if settings.get(key, width) != width:
            raise SAEFormatError(f"{folder}: {key} is {settings[key]} in {CONFIG}, {width} in {weights}")
    _set_threshold(tensors, layout.rule)
    rule = "topk" if layout.rule == "topk" else "batchtopk"
    sae_config = SAEConfig(
        d_in=d_in,
        d_sae=d_sae,
        architecture="jumprelu" if "threshold" in tensors or layout.rule == "jumprelu" else rule,
        k=k,
        tap=_audiosae_tap(folder) if tap is None else tap,
        model=text(settings, "lm_name", file) or _audiosae_model(folder),
        metadata={"dict_class": dict_class, **({} if groups is None else {"group_sizes": groups.tolist()})},
    )
    sae = build(sae_config, tensors, weights, layout.subtracts)
    if layout.unit_norm:
        sae.normalize_decoder()
    return sae


def _set_threshold(tensors: dict[str, Tensor], rule: str) -> None:
    """Leave one threshold a feature where the rule has one, none where it has not."""
    d_sae = tensors["W_enc"].shape[1]
    if rule == "relu":
        tensors["threshold"] = torch.zeros(d_sae)
    elif rule != "jumprelu" and "threshold" in tensors:
        threshold = tensors.pop("threshold")
        if rule == "batchtopk" and not (threshold < 0).any():
            tensors["threshold"] = threshold.reshape(1).expand(d_sae) if threshold.numel() == 1 else threshold


def _stored_k(tensors: dict[str, Tensor], settings: Mapping[str, Any], weights: Path) -> int | None:
    """Take k from the weights and the settings, which must agree; None if neither has one."""
    found = {positive(settings, "k", weights.with_name(CONFIG))} if "k" in settings else set[int]()
    if "k" in tensors:
        tensor = tensors.pop("k")
        if tensor.numel() != 1:
            raise SAEFormatError(f"{weights}: k must be one number, not {tuple(tensor.shape)}")
        found.add(positive({"k": tensor.item()}, "k", weights))
    if len(found) > 1:
        raise SAEFormatError(f"{weights} and {CONFIG} disagree on k: {sorted(found)}")
    return found.pop() if found else None


def _audiosae_tap(folder: Path) -> str:
    """AudioSAE counts from 1: ``layer_6`` reads the output of the sixth block, ``block.5``."""
    match = re.fullmatch(r"layer_([1-9]\d*)", folder.resolve().name)
    return f"block.{int(match[1]) - 1}" if match else ""


def _audiosae_model(folder: Path) -> str:
    """The model by the name of the repository, which the hub's cache and clones keep in the path."""
    match = re.search(r"audio-sae-([\w-]+)", folder.resolve().as_posix().lower())
    return _AUDIOSAE_MODELS.get(match[1], "") if match else ""
