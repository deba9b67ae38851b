"""Sparse autoencoders on disk: SAELens v6 (read, written), dictionary_learning and AudioSAE (read).

Whatever a file leaves to its reader (no decoder bias on the input, ReLU instead of a threshold,
unit norms) is folded into the tensors, so that :class:`SAE` gives the same features as the library
that wrote it. What can't be folded exactly is refused.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .errors import SAEFormatError
from .files import write_atomically
from .sae import SAE, SAEConfig, calibrate_threshold

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
"""files of an SAELens folder"""
DL_CONFIG, DL_WEIGHTS = "config.json", "ae.pt"
"""files of a dictionary_learning or AudioSAE folder"""
SAELENS_VERSION = "6.0.0"
"""the layout written; SAELens converts anything older"""


class _Layout(NamedTuple):
    """How a dictionary_learning class names and uses its decoder bias."""

    bias: str
    """key of the decoder bias"""
    subtracts: bool
    """whether the encoder subtracts it from its input"""
    relu: bool = False
    """every positive feature fires"""
    per_frame: bool = False
    """the k largest of each frame fire, even if a threshold is stored"""


_LAYOUTS = {
    "BatchTopKSAE": _Layout("b_dec", subtracts=True),
    "AutoEncoderTopK": _Layout("b_dec", subtracts=True, per_frame=True),
    "AutoEncoder": _Layout("bias", subtracts=True, relu=True),
    "AutoEncoderNew": _Layout("decoder.bias", subtracts=False, relu=True),
}


def save_sae(sae: SAE, directory: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write ``directory/cfg.json`` and ``sae_weights.safetensors``, as sae_lens loads them.

    ``dtype=torch.float16`` halves the two matrices on disk; biases and thresholds stay float32.
    A batchtopk SAE has no form at inference: SAEFormatError until a threshold is calibrated.
    """
    config = sae.config
    if config.architecture == "batchtopk":
        raise SAEFormatError(
            "a batchtopk SAE can't be saved without a threshold; call calibrate_threshold(sae, frames) first"
        )
    tensors = {name: tensor.detach().cpu().float() for name, tensor in sae.state_dict().items()}
    for name in ("W_enc", "W_dec"):
        tensors[name] = tensors[name].to(dtype)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    _check_finite(tensors, f"the SAE as {dtype}")
    text = json.dumps(_saelens_config(config), indent=1)
    directory.mkdir(parents=True, exist_ok=True)
    # Loading refuses weights without a config, but would take new weights beside an old config.
    (directory / CONFIG).unlink(missing_ok=True)
    with write_atomically(directory / WEIGHTS) as temporary:
        save_file(tensors, temporary)
    with write_atomically(directory / CONFIG) as temporary:
        temporary.write_text(text)


def load_sae(source: str | Path, tap: str | None = None, calibrate_on: Tensor | None = None) -> SAE:
    """Read an SAE from a folder, or from one of its files: float32, on the CPU.

    A folder holds either ``cfg.json`` + ``sae_weights.safetensors`` (SAELens v6) or ``ae.pt`` +
    ``config.json`` (dictionary_learning, AudioSAE). ``tap`` overrides where its activations are
    read; needed for dictionary_learning, which stores nothing like it. AudioSAE's is the name of
    the folder, where ``layer_6`` is ``block.5``. ``calibrate_on``, frames [..., d_in], gives an
    SAE without thresholds one. SAEFormatError if anything is missing, damaged, unsupported or not
    finite.
    """
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    names = [path.name] if path.is_file() else [CONFIG, WEIGHTS, DL_WEIGHTS]
    present = [name for name in names if (folder / name).is_file()]
    saelens = any(name in (CONFIG, WEIGHTS) for name in present)
    if saelens and DL_WEIGHTS in present:
        raise SAEFormatError(f"{folder} holds two SAEs; name {CONFIG} or {DL_WEIGHTS} inside it")
    if saelens:
        sae = _read_saelens(folder, tap)
    elif present and present[0] in (DL_CONFIG, DL_WEIGHTS):
        sae = _read_dictionary_learning(folder, tap)
    else:
        raise SAEFormatError(f"no SAE at {path}: it takes {CONFIG} + {WEIGHTS} or {DL_WEIGHTS} + {DL_CONFIG}")
    if calibrate_on is not None and sae.config.architecture != "jumprelu":
        calibrate_threshold(sae, calibrate_on)
    return sae


def _saelens_config(config: SAEConfig) -> dict[str, object]:
    """cfg.json; ``dtype`` is what sae_lens computes in, whatever the weights are stored as."""
    topk = {"k": config.k, "rescale_acts_by_decoder_norm": False}
    return {
        "architecture": config.architecture,
        "d_in": config.d_in,
        "d_sae": config.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        **(topk if config.architecture == "topk" else {}),
        "metadata": {
            **config.metadata,
            "sae_lens_version": SAELENS_VERSION,
            "model_name": config.model,
            "hook_name": config.tap,
            "k": config.k,
        },
    }


def _read_saelens(folder: Path, tap: str | None) -> SAE:
    cfg = _read_json(folder / CONFIG)
    if not isinstance(cfg.get("metadata"), dict):
        raise SAEFormatError(
            f"{folder / CONFIG} is older than SAELens v6; load and save it with sae_lens >= 6"
        )
    architecture = cfg.get("architecture")
    if architecture not in ("jumprelu", "topk", "standard"):
        raise SAEFormatError(f"{folder}: architecture {architecture!r} is none of jumprelu, topk, standard")
    for key in ("normalize_activations", "reshape_activations"):
        if cfg.get(key, "none") != "none":
            raise SAEFormatError(
                f"{folder}: {key}={cfg[key]!r} is not supported; fold it into the weights with sae_lens"
            )
    metadata = dict(cfg["metadata"])
    metadata.pop("sae_lens_version", None)
    model, hook, k = (metadata.pop(key, None) for key in ("model_name", "hook_name", "k"))
    config = SAEConfig(
        d_in=_positive(cfg, "d_in", folder / CONFIG),
        d_sae=_positive(cfg, "d_sae", folder / CONFIG),
        architecture="topk" if architecture == "topk" else "jumprelu",
        k=_positive(cfg, "k", folder / CONFIG) if architecture == "topk" else k,
        tap=str(hook or "") if tap is None else tap,
        model=str(model or ""),
        metadata=metadata,
    )
    try:
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError:
        raise SAEFormatError(f"{folder / WEIGHTS} is missing; copy it beside {CONFIG}") from None
    except (SafetensorError, OSError, ValueError):
        raise SAEFormatError(
            f"{folder / WEIGHTS} is truncated or not a safetensors file; get it again"
        ) from None
    if architecture == "standard":
        tensors["threshold"] = torch.zeros_like(tensors.get("b_enc", torch.empty(0)))
    sae = _build(config, tensors, bool(cfg.get("apply_b_dec_to_input", True)), folder / WEIGHTS)
    if cfg.get("rescale_acts_by_decoder_norm"):
        sae.normalize_decoder()
    return sae


def _read_dictionary_learning(folder: Path, tap: str | None) -> SAE:
    file = folder / DL_WEIGHTS
    config = _read_json(folder / DL_CONFIG)
    settings = config["trainer"] if isinstance(config.get("trainer"), dict) else config
    dict_class = str(settings.get("dict_class", "BatchTopKSAE"))  # AudioSAE's name none and are of this
    if dict_class not in _LAYOUTS:
        raise SAEFormatError(f"{file}: class {dict_class!r} is none of {', '.join(_LAYOUTS)}")
    layout = _LAYOUTS[dict_class]
    state = _read_pickle(file)
    k = _stored_k(state, settings, file)
    tensors = _rename(state, layout, file)
    d_in, d_sae = tensors["W_enc"].shape
    for key, width in (("activation_dim", d_in), ("dict_size", d_sae)):
        if settings.get(key, width) != width:
            raise SAEFormatError(f"{folder}: {key} is {settings[key]} in {DL_CONFIG}, {width} in {file}")
    architecture = "topk" if layout.per_frame else "batchtopk"
    sae_config = SAEConfig(
        d_in=d_in,
        d_sae=d_sae,
        architecture="jumprelu" if "threshold" in tensors else architecture,
        k=k,
        tap=_audiosae_tap(folder) if tap is None else tap,
        model=str(settings.get("lm_name") or ""),
        metadata={"dict_class": dict_class},
    )
    return _build(sae_config, tensors, layout.subtracts, file)


def _rename(state: Mapping[str, Tensor], layout: _Layout, file: Path) -> dict[str, Tensor]:
    """Tensors of a dictionary_learning class in SAELens' names and orientation."""
    names = {
        "encoder.weight": "W_enc", "encoder.bias": "b_enc", "decoder.weight": "W_dec",
        layout.bias: "b_dec",
    }  # fmt: skip
    tensors = {names.get(name, name): tensor for name, tensor in state.items()}
    for key in ("encoder.weight", "decoder.weight"):
        if key not in state or state[key].dim() != 2:
            raise SAEFormatError(f"{file} has no matrix {key}; it is no SAE of dictionary_learning")
        tensors[names[key]] = state[key].T  # nn.Linear keeps [out, in]
    d_sae = len(state["encoder.weight"])
    threshold = tensors.pop("threshold", torch.tensor(-1.0))
    if layout.relu:
        tensors["threshold"] = torch.zeros(d_sae)
    # dictionary_learning starts at -1 and keeps that until it has measured one
    elif not layout.per_frame and not (threshold < 0).any():
        tensors["threshold"] = threshold.expand(d_sae) if threshold.numel() == 1 else threshold
    return tensors


def _build(config: SAEConfig, tensors: Mapping[str, Tensor], subtracts: bool, file: Path) -> SAE:
    """The module from tensors in SAELens' names and orientation, checked."""
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
    values = {name: tensor.float() for name, tensor in tensors.items()}
    _check_finite(values, str(file))
    if not subtracts:
        shift = values["b_dec"].double() @ values["W_enc"].double()
        values["b_enc"] = (values["b_enc"].double() + shift).float()
    if "threshold" in values:  # below 0 it is ReLU's 0 that decides
        values["threshold"] = values["threshold"].clamp_min(0)
    sae = SAE(config)
    sae.load_state_dict(values)
    return sae


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SAEFormatError(f"{file} is missing; copy it beside the weights") from None
    except (OSError, ValueError, RecursionError):
        raise SAEFormatError(f"{file} is not readable JSON; get it again") from None
    if not isinstance(content, dict):
        raise SAEFormatError(f"{file} holds no settings; get it again")
    return cast(dict[str, Any], content)


def _read_pickle(file: Path) -> dict[str, Tensor]:
    """Tensors of a ``torch.save`` file; nothing else in it is ever run."""
    if not file.is_file():
        raise SAEFormatError(f"{file} is missing; copy it beside {DL_CONFIG}")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # the file decides what goes wrong while it is read
        raise SAEFormatError(
            f"{file} is damaged, or a pickle of more than tensors, which is never run; get another"
        ) from None
    if not isinstance(state, dict):
        raise SAEFormatError(f"{file} holds no state dict")
    items = cast(dict[object, object], state)
    tensors = {
        str(key): value
        for key, value in items.items()
        if isinstance(value, Tensor) and value.layout == torch.strided
    }
    if len(tensors) < len(items):
        raise SAEFormatError(f"{file} holds more than dense tensors; it is no SAE's state dict")
    return tensors


def _stored_k(state: dict[str, Tensor], settings: Mapping[str, Any], file: Path) -> int | None:
    """Take k from the weights and the settings, which must agree; None if neither has one."""
    found = {_positive(settings, "k", file.parent / DL_CONFIG)} if "k" in settings else set[int]()
    if "k" in state:
        tensor = state.pop("k")
        if tensor.numel() != 1:
            raise SAEFormatError(f"{file}: k must be one number, not {tuple(tensor.shape)}")
        found.add(_positive({"k": int(tensor)}, "k", file))
    if len(found) > 1:
        raise SAEFormatError(f"{file} and {DL_CONFIG} disagree on k: {sorted(found)}")
    return found.pop() if found else None


def _positive(settings: Mapping[str, Any], key: str, file: Path) -> int:
    value = settings.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SAEFormatError(f"{file}: {key} must be a positive whole number, not {value!r}")
    return value


def _audiosae_tap(folder: Path) -> str:
    """AudioSAE counts from 1: ``layer_6`` reads the output of the sixth block, ``block.5``."""
    match = re.fullmatch(r"layer_([1-9]\d*)", folder.resolve().name)
    return f"block.{int(match[1]) - 1}" if match else ""


def _check_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise SAEFormatError(f"{what} has values in {name} that are not finite")
