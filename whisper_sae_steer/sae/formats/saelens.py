"""SAELens v6: ``cfg.json`` + ``sae_weights.safetensors``, read and written.

Its inference architectures jumprelu, topk and standard are read; batchtopk and matryoshka ones are
jumprelu once ``save_inference_model`` has written them. The others (gated, abstopk, matching_pursuit,
temporal, transcoders) follow no rule that a threshold or the k largest could express.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ...errors import SAEFormatError
from ...files import write_atomically, write_text
from ..autoencoder import SAE, SAEConfig
from .checks import build, check_finite, flag, positive, read_json, read_safetensors, text

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
VERSION = "6.0.0"
"""the layout written; SAELens converts anything older"""


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
    check_finite(tensors, f"the SAE as {dtype}")
    text = json.dumps(_settings(config), indent=1)
    directory.mkdir(parents=True, exist_ok=True)
    # Loading refuses weights without a config, but would take new weights beside an old config.
    (directory / CONFIG).unlink(missing_ok=True)
    with write_atomically(directory / WEIGHTS) as temporary:
        save_file(tensors, temporary)
    write_text(directory / CONFIG, text)


def read(weights: Path, tap: str | None) -> SAE:
    """The SAE whose weights are this file; arguments and errors as :func:`load_sae`."""
    file = weights.with_name(CONFIG)
    cfg = read_json(file)
    if not isinstance(cfg.get("metadata"), dict):
        raise SAEFormatError(f"{file} is older than SAELens v6; load and save it with sae_lens >= 6")
    architecture = cfg.get("architecture")
    if architecture not in ("jumprelu", "topk", "standard"):
        raise SAEFormatError(
            f"{file}: architecture {architecture!r} is none of jumprelu, topk, standard"
            " (what sae_lens' save_inference_model makes of batchtopk and matryoshka)"
        )
    for key in ("normalize_activations", "reshape_activations"):
        if cfg.get(key, "none") != "none":
            raise SAEFormatError(
                f"{file}: {key}={cfg[key]!r} is not supported; fold it into the weights with sae_lens"
            )
    known: dict[str, Any] = cfg["metadata"]
    own_fields = ("sae_lens_version", "model_name", "hook_name", "k")
    k_from = cfg if architecture == "topk" else known  # a jumprelu needs none
    config = SAEConfig(
        d_in=positive(cfg, "d_in", file),
        d_sae=positive(cfg, "d_sae", file),
        architecture="topk" if architecture == "topk" else "jumprelu",
        k=positive(k_from, "k", file) if k_from is cfg or known.get("k") is not None else None,
        tap=text(known, "hook_name", file) if tap is None else tap,
        model=text(known, "model_name", file),
        metadata={key: value for key, value in known.items() if key not in own_fields},
    )
    tensors = read_safetensors(weights)
    if architecture == "standard":
        tensors["threshold"] = torch.zeros_like(tensors.get("b_enc", torch.empty(0)))
    sae = build(config, tensors, weights, flag(cfg, "apply_b_dec_to_input", True, file))
    if flag(cfg, "rescale_acts_by_decoder_norm", False, file):
        sae.normalize_decoder()
    return sae


def _settings(config: SAEConfig) -> dict[str, object]:
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
            "sae_lens_version": VERSION,
            "model_name": config.model,
            "hook_name": config.tap,
            "k": config.k,
        },
    }
