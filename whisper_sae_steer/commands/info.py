"""`whisper-sae-steer info`: which weights, pack and device will be used, and where they are."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from ..errors import PackError
from .common import add_model, add_pack

LIBRARIES = ("whisper-sae-steer", "openai-whisper", "faster-whisper", "ctranslate2", "torch")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments that `main` reads."""
    add = parser.add_argument
    add_model(parser)
    add("--model_dir", help="where downloaded models are kept, if not in the library's own folder")
    add_pack(parser, may_be_none=False)
    add("--json", action="store_true", help="print everything, as JSON")


def main(args: argparse.Namespace) -> int:
    """Print what will be used; WeightsError or PackError if it can't be."""
    facts = collect(args.model, args.model_dir, args.pack)
    print(json.dumps(facts, indent=2, ensure_ascii=False) if args.json else describe(facts))
    return 0


def collect(model: str, model_dir: str | None = None, pack: str = "auto") -> dict[str, Any]:
    """Everything known about this choice, ready for JSON.

    `pack` is None where none is shipped for these weights; `pack_problem` then says what to do.
    """
    from ..models.weights import resolve
    from ..steering.pack import load_pack

    weights = resolve(model, model_dir)
    facts: dict[str, Any] = {
        "model": weights.name,
        "ct2_dir": str(weights.ct2_dir),
        "sha256": weights.sha256,
        "fingerprint": weights.fingerprint,
        "marks": {"encoder": weights.encoder_mark, "decoder": weights.decoder_mark},
        "source": weights.source,
        "checkpoint": None if weights.checkpoint is None else str(weights.checkpoint),
        "pack": None,
        "tap": None,
        "pack_metadata": None,
        "pack_problem": None,
    }
    try:
        loaded = load_pack(pack, weights)
    except PackError as error:
        if pack != "auto":
            raise
        facts["pack_problem"] = str(error)
    else:
        facts["pack"] = str(loaded.path)
        facts["tap"] = loaded.metadata.tap
        facts["pack_metadata"] = asdict(loaded.metadata)
    return facts | _machine()


def _machine() -> dict[str, Any]:
    import ctranslate2
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else None,
        "compute_types": sorted(ctranslate2.get_supported_compute_types(device)),
        "versions": {name: version(name) for name in LIBRARIES},
    }


def describe(facts: Mapping[str, Any]) -> str:
    """The facts for people, a line each."""
    lines = {
        "model": f"{facts['model']}, from {facts['source']}",
        "files": facts["ct2_dir"],
        "sha256": facts["sha256"],
    }
    pack: dict[str, Any] | None = facts["pack_metadata"]
    if pack is None:
        lines["pack"] = f"none: {facts['pack_problem']}"
    else:
        lines["pack"] = facts["pack"]
        lines["edit"] = (
            f"{pack['strategy']} at {pack['tap']}, features by {pack['selection']}, gate: {pack['gate']}"
        )
        checked = ", ".join(pack["compute_types"]) or "no compute type"
        lines["checked"] = f"with {checked}; calibrated by {pack['created_with'] or 'hand'}"
        lines |= {"guarantee": _brief(pack["guarantee"])} if pack["guarantee"] else {}
        lines |= {name: _brief(value) for name, value in pack["metrics"].items()}
    name = facts["device_name"]
    lines["device"] = facts["device"] + (f" ({name})" if name else "")
    lines["compute"] = ", ".join(facts["compute_types"])
    lines["versions"] = ", ".join(f"{name} {text}" for name, text in facts["versions"].items())
    width = max(map(len, lines)) + 2
    return "\n".join(f"{key:{width}}{value}" for key, value in lines.items())


def _brief(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_brief(part)}" for key, part in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
