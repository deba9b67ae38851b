"""`whisper-sae-steer info`: which weights, pack and device will be used, and where they are."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from ..cli import in_options
from ..errors import PackError
from ..reports.figures import definition, flat, place, shown
from .common import add_model, add_pack
from .extras import EXTRAS, lacking

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
    return facts | _machine() | {"missing": [message for extra in EXTRAS if (message := lacking(extra))]}


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
    """The facts as a page for people."""
    name = facts["device_name"]
    parts = {
        "Model": [
            f"{facts['model']}, from {facts['source']}",
            f"files: {facts['ct2_dir']}",
            f"sha256: {facts['sha256']}",
        ],
        "Pack": _pack_lines(facts),
        **_measured(facts["pack_metadata"] or {}),
        "Device": [
            facts["device"] + (f" ({name})" if name else ""),
            f"CTranslate2 computes there in {', '.join(facts['compute_types'])}",
        ],
        "Versions": [", ".join(f"{name} {text}" for name, text in facts["versions"].items())],
        "Not installed, for some commands": facts["missing"],
    }
    return "\n\n".join("\n  ".join([head, *lines]) for head, lines in parts.items() if lines)


def _pack_lines(facts: Mapping[str, Any]) -> list[str]:
    pack: Mapping[str, Any] | None = facts["pack_metadata"]
    if pack is None:
        return [in_options(facts["pack_problem"])]
    return [
        facts["pack"],
        f"{pack['strategy']} at {pack['tap']}, features by {pack['selection']}, gate: {pack['gate']}",
        f"made by {pack['created_with'] or 'hand'}",
    ]


def _measured(pack: Mapping[str, Any]) -> dict[str, list[str]]:
    """The figures of a pack, and the recordings that they are from."""
    figures = dict(flat(pack.get("metrics", {}))) | dict(flat({"guarantee": pack.get("guarantee", {})}))
    if not figures:
        return {}
    how = pack["metrics"].get("definition", "how, the pack doesn't say").partition(";")[0]
    checked = ", ".join(pack["compute_types"]) or "a compute type that the pack doesn't name"
    return {
        f"Measured in {checked}: {how}": _figure_lines(figures),
        "Recordings that it was calibrated on; the figures are of a part that was held back": [
            *(f"{kind}: {sets}" for kind, sets in _sets(pack["data"]).items()),
        ],
    }


def _figure_lines(figures: Mapping[str, float]) -> list[str]:
    """A line a figure, with its meaning; what is known of the unsteered model, too, comes first."""
    rows: list[tuple[str, str, str]] = []
    for name in sorted(figures, key=place):
        figure = name.removeprefix("steered.")
        if figure == "alpha" or name.startswith("unsteered."):
            continue
        before = figures.get(f"unsteered.{figure}")
        plain = "" if before is None else shown(figure, before)
        rows.append((plain, shown(figure, figures[name]), definition(figure) or figure))
    rows.sort(key=lambda row: not row[0])
    table = [("unsteered", "steered", ""), *rows]
    return [f"{before:>9}  {after:>9}  {what}".rstrip() for before, after, what in table]


def _sets(data: Mapping[str, Any]) -> dict[str, str]:
    """Recordings by kind, each set with their number."""
    by_kind: dict[str, list[str]] = {}
    for named, count in (data.get("sources") or {}).items():
        kind, _, source = named.partition("/")
        by_kind.setdefault(kind, []).append(f"{source} {count}")
    if data.get("synthetic"):
        by_kind["synthetic sounds"] = [str(data["synthetic"])]
    sets = {kind: ", ".join(sources) for kind, sources in by_kind.items()}
    return sets | ({"and those of the pack that it is built on": ""} if data.get("built_on") else {})
