"""Converts Whisper's weights between CTranslate2's model.bin and openai-whisper's state dict, both ways."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ctranslate2.converters.converter import Converter
from ctranslate2.specs import model_spec, whisper_spec
from torch.nn import init
from torch.overrides import TorchFunctionMode
from whisper.audio import CHUNK_LENGTH, HOP_LENGTH, N_FFT, SAMPLE_RATE
from whisper.model import ModelDimensions, Whisper
from whisper.tokenizer import Tokenizer

from ..errors import WeightsError
from .layout import Entry, count_layers, layout
from .model_bin import EMBEDDINGS, is_tied, read_ct2, read_stored
from .reach import one_line
from .vocabulary import get_tokenizer, suppressed, to_tokenizers, tokens

StateDict = dict[str, torch.Tensor]
AlignmentHeads = list[tuple[int, int]]
UNTIED = "its output projection is not its token embedding"


# --- CTranslate2 → openai -----------------------------------------------------------------------


def ct2_to_openai(
    directory: str | os.PathLike[str],
) -> tuple[ModelDimensions, StateDict, AlignmentHeads | None]:
    """A CTranslate2 Whisper folder as openai-whisper's dimensions and state dict.

    Float tensors keep their stored precision. Tensors stored as int8 or int16 come as float32,
    exactly the values that the stored integers and scales give. Alignment heads are (layer, head)
    pairs from config.json, None where it names none. Raises `WeightsError`.
    """
    arrays = read_ct2(directory)
    try:
        dims = _dimensions(arrays)
        state: StateDict = {}
        for entry in layout(dims.n_audio_layer, dims.n_text_layer):
            whole = _dequantized(arrays, entry.ct2)
            parts = np.split(whole, len(entry.openai))
            for name, part in zip(entry.openai, parts, strict=True):
                if not name.endswith(".key.bias"):
                    state[name] = torch.from_numpy(part.copy())
                elif part.any():
                    raise ValueError(f"{name} is not zero; openai-whisper has no such bias")
        if not is_tied(read_stored(directory)):
            raise ValueError(UNTIED)
    except KeyError as error:
        raise WeightsError(f"{directory}: model.bin lacks {error.args[0]}") from None
    except (ValueError, IndexError) as error:
        raise WeightsError(f"{directory}: not a model openai-whisper can run: {error}") from None
    return dims, state, _alignment_heads(Path(directory))


def _dimensions(arrays: Mapping[str, np.ndarray]) -> ModelDimensions:
    n_audio_ctx, n_audio_state = arrays["encoder/position_encodings/encodings"].shape
    n_text_ctx, n_text_state = arrays["decoder/position_encodings/encodings"].shape
    return ModelDimensions(
        n_mels=arrays["encoder/conv1/weight"].shape[1],
        n_audio_ctx=n_audio_ctx,
        n_audio_state=n_audio_state,
        n_audio_head=int(arrays["encoder/num_heads"]),
        n_audio_layer=count_layers(arrays, "encoder"),
        n_vocab=arrays[EMBEDDINGS].shape[0],
        n_text_ctx=n_text_ctx,
        n_text_state=n_text_state,
        n_text_head=int(arrays["decoder/num_heads"]),
        n_text_layer=count_layers(arrays, "decoder"),
    )


def _dequantized(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    value = arrays[name]
    if value.dtype.kind != "i":
        return value
    scale = np.asarray(arrays[f"{name}_scale"], np.float32)
    return value.astype(np.float32) / scale.reshape(scale.shape + (1,) * (value.ndim - scale.ndim))


def _alignment_heads(directory: Path) -> AlignmentHeads | None:
    try:
        return alignment_heads(json.loads((directory / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{directory}: config.json can't be read ({error})") from None


def alignment_heads(config: Mapping[str, Any]) -> AlignmentHeads | None:
    """(layer, head) pairs that a configuration names, None if it names none."""
    pairs = config.get("alignment_heads")
    return [(int(layer), int(head)) for layer, head in pairs] if pairs else None


class _SkipInit(TorchFunctionMode):
    """Leaves parameters uninitialised: a strict load overwrites them all (base: 1 s saved)."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in (init.kaiming_uniform_, init.uniform_, init.normal_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def build(
    dims: ModelDimensions, state: Mapping[str, torch.Tensor], heads: AlignmentHeads | None = None
) -> Whisper:
    """A `whisper.Whisper` that holds `state`'s tensors themselves, in their dtypes, in eval mode.

    `heads` that the decoder lacks are left out (distilled models may name their teacher's); with
    none left, openai-whisper's own choice stays. Raises RuntimeError when names or shapes don't
    match `dims`.
    """
    with _SkipInit():
        model = Whisper(dims)
    model.load_state_dict(state, strict=True, assign=True)
    heads = [(i, j) for i, j in heads or [] if i < dims.n_text_layer and j < dims.n_text_head]
    if heads:
        mask = torch.zeros(dims.n_text_layer, dims.n_text_head, dtype=torch.bool)
        mask[tuple(zip(*heads, strict=True))] = True
        model.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)
    return model.eval()


def load_torch(directory: str | os.PathLike[str]) -> Whisper:
    """The torch model of a CTranslate2 folder (resolved `Weights` are one): float32, on the CPU."""
    directory = os.fspath(directory)
    dims, state, heads = ct2_to_openai(directory)
    try:
        return build(dims, {name: tensor.float() for name, tensor in state.items()}, heads)
    except RuntimeError as error:
        raise WeightsError(f"{directory}: not a Whisper model: {one_line(error, 200)}") from None


# --- openai → CTranslate2 -----------------------------------------------------------------------


def read_openai(path: str | os.PathLike[str]) -> Whisper:
    """The model of an openai-whisper .pt file on the CPU, dtypes as stored; runs no pickled code.

    Raises `WeightsError` for anything but a checkpoint that openai-whisper itself would load.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        return build(ModelDimensions(**checkpoint["dims"]), checkpoint["model_state_dict"])
    except Exception as error:  # torch.load raises whatever the bytes of a broken file lead to
        raise WeightsError(f"{path} is not an openai-whisper checkpoint: {one_line(error, 200)}") from None


def openai_to_ct2(
    checkpoint: str | os.PathLike[str] | Whisper,
    out_dir: str | os.PathLike[str],
    quantization: str | None = None,
) -> Path:
    """Write an openai-whisper model as a CTranslate2 folder faster-whisper loads offline.

    `quantization` is one of CTranslate2's types ("float16", "int8", ...), None keeps the stored
    ones. Returns `out_dir`, which must not exist. Raises `WeightsError`.
    """
    model = checkpoint if isinstance(checkpoint, Whisper) else read_openai(checkpoint)
    try:
        converter = _Converter(model, get_tokenizer(model.dims.n_vocab))
        if quantization is not None and quantization.startswith("int"):  # it scales float32 in place
            converter.state = {name: tensor.clone() for name, tensor in converter.state.items()}
        return Path(converter.convert(os.fspath(out_dir), quantization=quantization))
    except (ValueError, RuntimeError) as error:
        raise WeightsError(f"conversion to {out_dir} failed: {one_line(error, 200)}") from None


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokenizer.json that faster-whisper reads."""
    text = to_tokenizers(tokenizer).to_str(pretty=True)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")


def write_features(n_mels: int, folder: Path) -> None:
    """Write the preprocessor_config.json without which faster-whisper takes 80 mels."""
    features = {
        "chunk_length": CHUNK_LENGTH,
        "feature_size": n_mels,
        "hop_length": HOP_LENGTH,
        "n_fft": N_FFT,
        "sampling_rate": SAMPLE_RATE,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(features, indent=2) + "\n")


class _Converter(Converter):
    """CTranslate2's converter fed from a `whisper.Whisper`, without transformers."""

    def __init__(self, model: Whisper, tokenizer: Tokenizer) -> None:
        self.model = model
        self.state = model.state_dict()
        self.tokenizer = tokenizer

    def convert(self, output_dir: str, *args: Any, **kwargs: Any) -> str:
        """Write the model, then the two files CTranslate2 itself does not read."""
        super().convert(output_dir, *args, **kwargs)
        write_tokenizer(self.tokenizer, Path(output_dir))
        write_features(self.model.dims.n_mels, Path(output_dir))
        return output_dir

    def _load(self) -> whisper_spec.WhisperSpec:
        dims = self.model.dims
        spec = whisper_spec.WhisperSpec(
            dims.n_audio_layer, dims.n_audio_head, dims.n_text_layer, dims.n_text_head
        )
        for entry in layout(dims.n_audio_layer, dims.n_text_layer):
            scope, attribute = entry.ct2.rsplit("/", 1)
            setattr(model_spec.index_spec(spec, scope), attribute, _fused(self.state, entry))
        spec.decoder.projection.weight = spec.decoder.embeddings.weight
        spec.register_vocabulary(tokens(self.tokenizer))
        settings = {
            "suppress_ids": suppressed(self.tokenizer),
            "suppress_ids_begin": [*self.tokenizer.encode(" "), self.tokenizer.eot],
            "lang_ids": sorted(self.tokenizer.all_language_tokens),
            "alignment_heads": self.model.get_buffer("alignment_heads").indices().T.tolist(),
        }
        for name, value in settings.items():
            setattr(spec.config, name, value)
        return spec


def _fused(state: Mapping[str, torch.Tensor], entry: Entry) -> torch.Tensor:
    parts = [
        torch.zeros_like(state[entry.openai[-1]]) if name.endswith(".key.bias") else state[name]
        for name in entry.openai
    ]
    return parts[0].cpu() if len(parts) == 1 else torch.cat(parts).cpu()
