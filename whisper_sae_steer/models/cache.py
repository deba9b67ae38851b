"""The package's cache folder: joined and converted weights, and remembered file digests."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

from ..errors import WeightsError
from ..files import write_text

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
    stat = path.stat()
    facts = f"{stat.st_size} {stat.st_mtime_ns} "
    with suppress(OSError, UnicodeDecodeError):
        stamp = _stamp(path).read_text()
        if stamp.startswith(facts) and len(stamp) == len(facts) + 64:
            return stamp.removeprefix(facts)
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    with suppress(OSError):  # an unwritable cache only costs the next call its time
        _stamp(path).parent.mkdir(parents=True, exist_ok=True)
        write_text(_stamp(path), facts + digest.hexdigest())
    return digest.hexdigest()


def _stamp(path: Path) -> Path:
    return cache_dir() / "sha256" / hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]


def unwritable(error: OSError) -> WeightsError:
    """What to raise when writing to the cache failed."""
    return WeightsError(
        f"can't write to the cache {cache_dir()} ({error.strerror or error}); "
        "set WHISPER_SAE_STEER_CACHE to a writable folder"
    )
