"""Writing files so that nothing is ever half written, and a full disk is called so."""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from .errors import DiskFullError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""a disk, a share of it or a file that may not grow"""


@contextmanager
def write_atomically(path: Path) -> Generator[Path]:
    """Give a temporary path beside ``path`` to write to; it takes its place only if the block succeeds.

    The temporary file's name begins with a dot: killed on the way, a process leaves it behind. Raises
    DiskFullError where there is no room.
    """
    with names_full_disk(path.parent):
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
        temporary.touch(exist_ok=False)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def names_full_disk(folder: Path) -> Generator[None]:
    """Turn what any writer raises where there is no room into DiskFullError, which names ``folder``."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:  # those of writers that aren't in Python are no OSError
        number = _errno(error)
        if number not in FULL:
            raise
        raise DiskFullError(number, os.strerror(number), str(folder)) from None


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def copy_file(source: Path, path: Path) -> None:
    """Copy a file's content, whole or not at all."""
    with write_atomically(path) as temporary:
        shutil.copyfile(source, temporary)


def _errno(error: Exception) -> int | None:
    """The system's number for what went wrong; safetensors only writes it into the message."""
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else None
