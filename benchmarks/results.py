"""Figures as JSON: written so that they are never half there, and read again to go on with."""

import json
from pathlib import Path
from typing import Any

from whisper_sae_steer.files import write_text


def read_results(path: Path) -> dict[str, Any]:
    """What an earlier run has written, or nothing."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_results(path: Path, found: object) -> None:
    """Write JSON with a line for each figure, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, as_json(found) + "\n")


def as_json(found: object) -> str:
    """A line for each figure, with characters of all alphabets as they are."""
    return json.dumps(found, indent=1, ensure_ascii=False)
