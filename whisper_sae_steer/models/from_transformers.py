"""Reads Whisper as transformers saves it, without transformers: config.json and files of weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from whisper.model import ModelDimensions, Whisper

from ..errors import WeightsError
from .convert import UNTIED, StateDict, alignment_heads, build
from .layout import layout
from .reach import one_line
from .transformers_names import transformers_name

SAFETENSORS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin")
SETTINGS = ("config.json", "generation_config.json", "tokenizer.json")
"""names of what is read of a folder, safetensors before pickles"""

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a transformers folder's weights, as transformers chooses them; [] if it has none.

    WeightsError if an index is broken or names a file that isn't there.
    """
    for whole, index, _ in (SAFETENSORS, PICKLES):
        if (folder / whole).is_file():
            return [folder / whole]
        if (folder / index).is_file():
            try:
                files = sorted(set(_json(folder / index)["weight_map"].values()))
            except (KeyError, TypeError, AttributeError):
                raise WeightsError(f"{folder / index} names no files of weights; get it again") from None
            if missing := [file for file in files if not (folder / file).is_file()]:
                raise WeightsError(f"{folder} lacks {', '.join(missing)}; get it again")
            return [folder / file for file in files]
    return []


def read_transformers(folder: Path) -> Whisper:
    """The model of a transformers folder on the CPU, dtypes as stored; runs no pickled code.

    Takes one file of weights or several with an index, safetensors or pytorch_model.bin, in
    float32, float16 or bfloat16, with any number of layers. The alignment heads are those of
    generation_config.json. Raises `WeightsError` for another architecture, missing tensors, damaged
    files, other types (quantised weights) and an output projection that is not the embedding.
    """
    config = _json(folder / "config.json")
    if config.get("model_type") != "whisper":
        what = config.get("model_type") or "an unnamed architecture"
        raise WeightsError(f"{folder} holds {what}, not Whisper (config.json); give a Whisper model's folder")
    stored: StateDict = {}
    for file in weight_files(folder):
        stored |= _tensors(file)
    try:
        dims = _dimensions(config)
        state = _renamed(stored, dims)
    except KeyError as error:
        raise WeightsError(f"{folder} lacks {error.args[0]}; it needs all of a Whisper for text") from None
    if "proj_out.weight" in stored and not torch.equal(
        stored["proj_out.weight"], state["decoder.token_embedding.weight"]
    ):
        raise WeightsError(f"{folder}: {UNTIED}, which openai-whisper can't run")
    if others := {str(t.dtype).removeprefix("torch.") for t in state.values()} - {*map(_name, _FLOATS)}:
        raise WeightsError(
            f"{folder} holds {', '.join(sorted(others))} weights; save the model as float16 or float32"
        )
    try:
        return build(dims, state, _heads(folder))
    except (RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{folder}: weights and config.json don't fit: {one_line(error, 200)}") from None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path.parent} lacks {path.name}; get it again") from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} can't be read ({one_line(error)}); get it again") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path} is no configuration; get it again")
    return content


def _tensors(file: Path) -> StateDict:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the bytes of a broken file lead to
        raise WeightsError(
            f"{file} is truncated, a Git LFS pointer or no file of weights ({one_line(error)}); get it again"
        ) from None


def _renamed(stored: StateDict, dims: ModelDimensions) -> StateDict:
    """openai's names; the model may have been saved without its output projection's wrapper."""
    prefix = "" if "encoder.conv1.weight" in stored else "model."
    state: StateDict = {}
    for entry in layout(dims.n_audio_layer, dims.n_text_layer):
        for name in entry.openai:
            if not name.endswith(".key.bias"):
                state[name] = stored[prefix + transformers_name(name).removeprefix("model.")]
    return state


def _dimensions(config: dict[str, Any]) -> ModelDimensions:
    return ModelDimensions(
        n_mels=config["num_mel_bins"],
        n_audio_ctx=config["max_source_positions"],
        n_audio_state=config["d_model"],
        n_audio_head=config["encoder_attention_heads"],
        n_audio_layer=config["encoder_layers"],
        n_vocab=config["vocab_size"],
        n_text_ctx=config["max_target_positions"],
        n_text_state=config["d_model"],
        n_text_head=config["decoder_attention_heads"],
        n_text_layer=config["decoder_layers"],
    )


def _heads(folder: Path) -> list[tuple[int, int]] | None:
    path = folder / "generation_config.json"
    try:
        return alignment_heads(_json(path)) if path.is_file() else None
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path}: alignment heads can't be read ({error}); get it again") from None
