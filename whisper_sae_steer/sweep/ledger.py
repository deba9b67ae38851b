"""What a sweep has done already: figures by what they depend on, in one file that is never half written."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ..errors import CalibrationError
from ..files import write_text


class Ledger(dict[str, Any]):
    """JSON values by name. CalibrationError if the file is damaged."""

    def __init__(self, path: Path):
        super().__init__()
        self._path = path
        try:
            self.update(json.loads(path.read_text(encoding="utf-8")) if path.exists() else {})
        except (ValueError, TypeError):
            raise CalibrationError(f"{path} is damaged; delete it to train from the start") from None

    def add(self, values: dict[str, Any]) -> None:
        """Keep all of these, or, killed on the way, none."""
        self.update(values)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._path, json.dumps(self, indent=1, sort_keys=True, allow_nan=False) + "\n")

    def forget(self, beginning: str) -> None:
        """Drop what begins so: it is about to be made anew."""
        if found := [name for name in self if name.startswith(beginning)]:
            for name in found:
                del self[name]
            self.add({})


def digest(value: object) -> str:
    """A short name for anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
