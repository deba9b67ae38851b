"""Memory that is free but kept by the allocator, given back to the system."""

import ctypes
import threading
import time
from collections.abc import Callable
from contextlib import suppress

TIDY_SECONDS = 10.0
"""from one time that memory is given back to the next, at least: live sessions end a job each second"""


def give_back_memory() -> None:
    """Let glibc give back all pages that hold nothing, in about 20 ms; other allocators are left alone.

    By itself it keeps them where anything small lies behind them: after a flood of requests a quarter more
    than before.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class Tidier:
    """Gives memory back whenever work is over, at once or as soon as it may again. Thread-safe."""

    def __init__(self, is_idle: Callable[[], bool]):
        self._is_idle = is_idle
        self._last = -TIDY_SECONDS
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def work_is_over(self) -> None:
        """Give memory back, unless there is work again by the time that it may be."""
        with self._lock:
            if self._timer is None:
                wait = max(0.0, self._last + TIDY_SECONDS - time.monotonic())
                self._timer = threading.Timer(wait, self._tidy)
                self._timer.daemon = True
                self._timer.start()

    def _tidy(self) -> None:
        with self._lock:
            self._timer = None
            if not self._is_idle():
                return
            self._last = time.monotonic()
        give_back_memory()
