"""Where a good pack goes: the cache, under the marks of its weights, where ``auto`` finds it."""

from pathlib import Path

from ..files import copy_file
from ..models.weights import Weights
from ..steering.pack import installed_packs_folder


def install(pack: Path, report: Path, weights: Weights) -> Path:
    """Copy a pack and its report into the cache and return the pack's place; both are whole or absent."""
    folder = installed_packs_folder()
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{weights.name}-{weights.sha256[:8]}.safetensors"
    for source, target in ((report, place.with_suffix(".html")), (pack, place)):
        copy_file(source, target)
    return place
