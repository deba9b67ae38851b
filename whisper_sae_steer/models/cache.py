"""The package's cache folder: joined and converted weights, and what is remembered of files."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

from ..errors import WeightsError
from ..files import FULL, write_text

CHUNK = 1 << 20  # bytes read at a time


def cache_dir() -> Path:
    """$WHISPER_SAE_STEER_CACHE, else the system's folder for caches.

    On Linux that is whisper-sae-steer in $XDG_CACHE_HOME or ~/.cache.
    """
    if own := os.environ.get("WHISPER_SAE_STEER_CACHE"):
        return Path(own)
    return user_cache_path("whisper-sae-steer", appauthor=False)


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file, remembered in the cache for as long as its size and time stay."""
    return remembered(path, "sha256", "[0-9a-f]{64}", lambda: _sha256(path))


def remembered(path: Path, kind: str, form: str, find: Callable[[], str]) -> str:
    """What `find` says of a file's content, remembered for as long as the file's size and time stay.

    `kind` is the cache's folder for such facts, `form` a regular expression that all of them match.
    """
    stat = path.stat()
    facts = f"{stat.st_size} {stat.st_mtime_ns} "
    stamp = cache_dir() / kind / hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    with suppress(OSError, UnicodeDecodeError):
        if found := re.fullmatch(facts + f"({form})", stamp.read_text()):
            return found[1]
    value = find()
    with suppress(OSError):  # an unwritable cache only costs the next call its time
        stamp.parent.mkdir(parents=True, exist_ok=True)
        write_text(stamp, facts + value)
    return value


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def unwritable(error: OSError) -> WeightsError:
    """What to raise when writing to the cache failed."""
    if error.errno in FULL:
        return WeightsError(
            f"no room for the converted weights in the cache {cache_dir()} ({error.strerror}); free some,"
            " or set WHISPER_SAE_STEER_CACHE to a folder on a larger disk"
        )
    return WeightsError(
        f"can't write to the cache {cache_dir()} ({error.strerror or error}); "
        "set WHISPER_SAE_STEER_CACHE to a writable folder"
    )
