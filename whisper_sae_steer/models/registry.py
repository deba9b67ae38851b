"""Which repositories on the hub hold packs and SAEs, and for which Whisper weights: ``registry.json``."""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Literal, NamedTuple

from .repository import whisper_on_hub


class Entry(NamedTuple):
    """One repository."""

    repo: str
    """owner/name"""
    kind: Literal["pack", "sae"]
    model: str
    """repository of the Whisper weights it is for"""
    tap: str
    """where it reads and edits; "every block" for an SAE a block"""
    fingerprint: str = ""
    """of these weights; empty where it isn't known"""
    figures: Mapping[str, float] = {}
    """held-back figures, by the names that its model card defines"""


@cache
def entries() -> tuple[Entry, ...]:
    """All repositories of the registry that this package ships."""
    text = resources.files(__package__ or "").joinpath("registry.json").read_text(encoding="utf-8")
    return tuple(parse_entry(line) for line in json.loads(text))


def entries_for(model: str, fingerprint: str = "") -> list[Entry]:
    """What the registry has for weights of this name and fingerprint.

    Where both fingerprints are known they decide, else the name does: a path's last part, a model's name or a
    repository.
    """
    repository = whisper_on_hub(model)
    return [
        entry
        for entry in entries()
        if (
            entry.fingerprint == fingerprint
            if entry.fingerprint and fingerprint
            else entry.model == repository
        )
    ]


def parse_entry(line: Mapping[str, Any]) -> Entry:
    """An entry as the file has it. ValueError, which names it, if a field is missing, unknown or useless."""
    try:
        entry = Entry(**line)
    except TypeError as error:
        raise ValueError(f"registry.json, {line}: {error}") from None
    texts: list[Any] = [entry.repo, entry.model, entry.tap, entry.fingerprint]
    numbers: list[Any] = [*entry.figures.values()]
    if (
        entry.kind not in ("pack", "sae")
        or not all(isinstance(text, str) for text in texts)
        or any("/" not in name for name in (entry.repo, entry.model))
        or not all(isinstance(number, float | int) for number in numbers)
    ):
        raise ValueError(f"registry.json, {line}: a field has a value of no use")
    return entry
