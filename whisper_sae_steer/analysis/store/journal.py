"""Results of long work, a line each, so that it goes on where it was stopped."""

import json
from pathlib import Path
from typing import Any

from ...errors import AnalysisError


class Journal(dict[str, Any]):
    """Results by name, kept in a file of JSON lines; each is on disk as soon as it is set.

    The first line says what the results depend on. AnalysisError if that differs, or if the file is damaged.
    """

    def __init__(self, path: Path, key: object):
        super().__init__()
        self._path = path
        header = json.dumps(key, sort_keys=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n")]
        if len(kept) < max(1, len(lines)):  # new, or killed while it wrote its last line
            kept = kept or [header + "\n"]
            path.write_text("".join(kept), encoding="utf-8")
        if kept[0].rstrip() != header:
            raise AnalysisError(
                f"{path} is of another store, SAE or settings; remove it or choose another --out"
            )
        try:
            self.update(json.loads(line) for line in kept[1:])
        except (ValueError, TypeError):
            raise AnalysisError(f"{path} is damaged; remove it") from None

    def __setitem__(self, name: str, value: Any) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([name, value]) + "\n")
        super().__setitem__(name, value)
