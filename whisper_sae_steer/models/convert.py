"""Converts Whisper's weights between CTranslate2's model.bin and openai-whisper's state dict, both ways."""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Callable, Mapping
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
from .vocabulary import get_tokenizer, suppressed, to_tokenizers, tokens

StateDict = dict[str, torch.Tensor]
AlignmentHeads = list[tuple[int, int]]

_BINARY_VERSION = 6
_DTYPES = ("<f4", "i1", "<i2", "<i4", "<f2", "bfloat16")  # the order is CTranslate2's type id


# --- CTranslate2 → openai -----------------------------------------------------------------------


def read_ct2(
    directory: str | os.PathLike[str], keep: Callable[[str], bool] = lambda name: True
) -> dict[str, np.ndarray]:
    """The arrays of `directory`/model.bin by name, aliases resolved, dtypes as stored.

    Arrays are read-only views of the mapped file, so reading a few of them is cheap; bfloat16 has
    no numpy dtype and comes as a float32 copy. `keep` says which names to read. Raises
    `WeightsError`.
    """
    path = Path(directory) / "model.bin"
    try:
        with path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return _parse(data, keep)
    except FileNotFoundError:
        raise WeightsError(f"{directory} holds no CTranslate2 model: no model.bin in it") from None
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise WeightsError(
            f"{path} is truncated or not a CTranslate2 model ({error}); get it again"
        ) from None


def _parse(data: memoryview, keep: Callable[[str], bool]) -> dict[str, np.ndarray]:
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
    arrays: dict[str, np.ndarray] = {}
    for _ in range(number("I")):
        name = string()
        shape = tuple(number("I") for _ in range(number("B")))
        dtype = _DTYPES[number("B")]
        size = number("I")
        if offset + size > len(data):
            raise ValueError(f"{name} ends after the file does")
        if keep(name):
            arrays[name] = _array(data[offset : offset + size], dtype).reshape(shape)
        offset += size
    for _ in range(number("I")):
        alias, target = string(), string()
        if target in arrays:
            arrays[alias] = arrays[target]
    if offset > len(data):
        raise ValueError("its last name ends after the file does")
    return arrays


def _array(raw: memoryview, dtype: str) -> np.ndarray:
    if dtype != "bfloat16":
        return np.frombuffer(raw, dtype)
    return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)


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
        _check_tied(arrays)
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
        n_vocab=arrays["decoder/embeddings/weight"].shape[0],
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


def _check_tied(arrays: Mapping[str, np.ndarray]) -> None:
    embedding = arrays["decoder/embeddings/weight"]
    projection = arrays.get("decoder/projection/weight", embedding)
    if projection is not embedding and not np.array_equal(projection, embedding):
        raise ValueError("its output projection is not its token embedding")


def _alignment_heads(directory: Path) -> AlignmentHeads | None:
    try:
        pairs = json.loads((directory / "config.json").read_text()).get("alignment_heads")
        return [(int(layer), int(head)) for layer, head in pairs] if pairs else None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{directory}: config.json can't be read ({error})") from None


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

    Raises RuntimeError when names or shapes don't match `dims`.
    """
    with _SkipInit():
        model = Whisper(dims)
    model.load_state_dict(state, strict=True, assign=True)
    if heads is not None:
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
    except (RuntimeError, IndexError) as error:
        raise WeightsError(f"{directory}: not a Whisper model: {_one_line(error)}") from None


# --- openai → CTranslate2 -----------------------------------------------------------------------


def read_openai(path: str | os.PathLike[str]) -> Whisper:
    """The model of an openai-whisper .pt file on the CPU, dtypes as stored; runs no pickled code.

    Raises `WeightsError` for anything but a checkpoint that openai-whisper itself would load.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        return build(ModelDimensions(**checkpoint["dims"]), checkpoint["model_state_dict"])
    except Exception as error:  # torch.load raises whatever the bytes of a broken file lead to
        raise WeightsError(f"{path} is not an openai-whisper checkpoint: {_one_line(error)}") from None


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
        converter = _Converter(model, get_tokenizer(model.dims))
        return Path(converter.convert(os.fspath(out_dir), quantization=quantization))
    except (ValueError, RuntimeError) as error:
        raise WeightsError(f"conversion to {out_dir} failed: {_one_line(error)}") from None


class _Converter(Converter):
    """CTranslate2's converter fed from a `whisper.Whisper`, without transformers."""

    def __init__(self, model: Whisper, tokenizer: Tokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer

    def convert(self, output_dir: str, *args: Any, **kwargs: Any) -> str:
        """Write the model, then the two files CTranslate2 itself does not read."""
        super().convert(output_dir, *args, **kwargs)
        to_tokenizers(self.tokenizer).save(os.path.join(output_dir, "tokenizer.json"))
        features = {
            "chunk_length": CHUNK_LENGTH,
            "feature_size": self.model.dims.n_mels,
            "hop_length": HOP_LENGTH,
            "n_fft": N_FFT,
            "sampling_rate": SAMPLE_RATE,
        }
        text = json.dumps(features, indent=2) + "\n"
        Path(output_dir, "preprocessor_config.json").write_text(text)
        return output_dir

    def _load(self) -> whisper_spec.WhisperSpec:
        dims = self.model.dims
        spec = whisper_spec.WhisperSpec(
            dims.n_audio_layer, dims.n_audio_head, dims.n_text_layer, dims.n_text_head
        )
        state = self.model.state_dict()
        for entry in layout(dims.n_audio_layer, dims.n_text_layer):
            scope, attribute = entry.ct2.rsplit("/", 1)
            setattr(model_spec.index_spec(spec, scope), attribute, _fused(state, entry))
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


def _one_line(error: Exception) -> str:
    """The start of an error's message without its line breaks."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
