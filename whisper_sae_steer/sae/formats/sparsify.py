"""eai-sparsify: ``cfg.json`` + ``sae.safetensors``, in a folder named after the hookpoint, read."""

import re
from pathlib import Path

from ...errors import SAEFormatError
from ..autoencoder import SAE, SAEConfig
from .checks import build, positive, read_json, read_safetensors, rename

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"

_NAMES = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
_REFUSED = {
    "transcode": "a transcoder predicts another activation than it reads",
    "skip_connection": "the skip connection is no sum of features",
    "signed": "signed features, of before version 1, may be negative",
}


def read(weights: Path, tap: str | None) -> SAE:
    """The SAE whose weights are this file; arguments and errors as :func:`load_sae`."""
    file = weights.with_name(CONFIG)
    cfg = read_json(file)
    for key, reason in _REFUSED.items():
        if cfg.get(key):
            raise SAEFormatError(f"{file}: {key} is set, and {reason}; use an SAE trained without")
    if (activation := cfg.get("activation", "topk")) != "topk":
        raise SAEFormatError(
            f"{file}: activation {activation!r} compares features within groups;"
            " neither a threshold nor the k largest does that, so only 'topk' can be read"
        )
    d_in = positive(cfg, "d_in", file)
    if cfg.get("num_latents"):
        d_sae = positive(cfg, "num_latents", file)
    else:
        d_sae = d_in * positive(cfg, "expansion_factor", file)
    config = SAEConfig(
        d_in=d_in,
        d_sae=d_sae,
        architecture="topk",
        k=positive(cfg, "k", file),
        tap=_tap(weights.parent) if tap is None else tap,
    )
    return build(config, rename(read_safetensors(weights), _NAMES, weights), weights)


def _tap(folder: Path) -> str:
    """``layers.5`` or ``encoder.layers.5``, a block's module in transformers, is ``block.5``."""
    match = re.fullmatch(r"(?:model\.)?(?:encoder\.)?layers\.(\d+)", folder.resolve().name)
    return f"block.{int(match[1])}" if match else ""
