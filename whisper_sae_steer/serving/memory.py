"""Memory that is free but kept by the allocator, given back to the system."""

import ctypes
import gc
import threading
from contextlib import suppress

M_ARENA_MAX = -8
"""of glibc's malloc.h"""
TIDY_SECONDS = 10.0
"""from the end of a job until memory is given back: live sessions end one each second, and what a request
held goes a little after its job"""


def share_one_arena() -> None:
    """Let all threads that come have their memory from where the first has it, in glibc.

    By itself it gives each an arena of its own, and of the free end of such a one :func:`give_back_memory`
    gives back nothing: up to 64 MiB each.
    """
    _glibc("mallopt", M_ARENA_MAX, 1)


def give_back_memory() -> None:
    """Collect garbage, and let glibc give back all pages that hold nothing; other allocators are left alone.

    By itself it keeps them where anything small lies behind them: after a flood of requests a quarter more
    than before. Takes about 20 ms where what stays for good is out of the collector's way (`gc.freeze`).
    """
    gc.collect()
    _glibc("malloc_trim", 0)


def _glibc(function: str, *arguments: int) -> None:
    """Call it where there is one."""
    with suppress(OSError, AttributeError, TypeError):
        getattr(ctypes.CDLL(None), function)(*arguments)


class Tidier:
    """Gives memory back a while after it was used, also where there is always work. Thread-safe."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def used(self) -> None:
        """Some of it was used, and isn't any more."""
        with self._lock:
            if self._timer is None:
                self._timer = threading.Timer(TIDY_SECONDS, self._tidy)
                self._timer.daemon = True
                self._timer.start()

    def _tidy(self) -> None:
        with self._lock:
            self._timer = None
        give_back_memory()
