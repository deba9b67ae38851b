"""Finds the SAE that was trained on some weights."""

import json
from pathlib import Path

from ..errors import SAEFormatError
from ..models.cache import cache_dir
from ..models.marks import differ
from ..models.weights import Weights
from .pretrained import find_pretrained


def find_sae(source: str, weights: Weights, tap: str = "encoder_output") -> Path:
    """The folder of an SAE: a path, or with ``auto`` the best one trained on these weights at this tap.

    Looked for, by the encoder's marks and the tap in its cfg.json, in ``saes/`` of the current folder, of
    the repository that this package is installed from in place, and of the cache. The best one leaves the
    least variance unexplained on recordings held back; one that doesn't tell comes last. SAEFormatError if
    there is none.
    """
    if source != "auto":
        return Path(source)
    roots = [Path.cwd(), Path(__file__).resolve().parents[2], cache_dir()]
    configs = [config for root in roots for config in sorted((root / "saes").glob("**/cfg.json"))]
    found = [config for config in configs if _trained_on(config, weights, tap)]
    if found:
        return min(found, key=_unexplained).parent
    raise SAEFormatError(
        f"no SAE for {weights.name} at {tap} in saes/ of {', '.join(map(str, roots))}; copy saes/ of this"
        " project's repository there, which has those of base and tiny.en, pass --sae DIR, or train one:"
        f" whisper-sae-steer train AUDIO --model {weights.name} --out saes/{weights.name}"
    )


def locate_sae(source: str, layer: int | str | None, weights: Weights) -> Path:
    """The SAE that a command names: ``auto``, a folder, or owner/name on the hub, and a layer of several.

    Errors as of :func:`find_sae` and :func:`.pretrained.find_pretrained`.
    """
    if source == "auto":
        return find_sae(source, weights, "encoder_output" if layer is None else f"block.{layer}")
    return Path(source) if layer is None and Path(source).exists() else find_pretrained(source, layer)


def _trained_on(config: Path, weights: Weights, tap: str) -> bool:
    """Whether the file names this tap and these weights; an older one may lack the mark of the matrices."""
    try:
        metadata = json.loads(config.read_text(encoding="utf-8"))["metadata"]
        if (metadata["fingerprint"], metadata["hook_name"]) != (weights.fingerprint, tap):
            return False
    except (OSError, ValueError, LookupError, TypeError):  # another program's cfg.json
        return False
    return not differ(metadata.get("encoder_mark"), weights.encoder_mark)


def _unexplained(config: Path) -> float:
    """Fraction of variance unexplained on recordings held back, as training noted it; else infinite."""
    metadata = json.loads(config.read_text(encoding="utf-8"))["metadata"]
    return float((metadata.get("held_back") or {}).get("fvu", float("inf")))
