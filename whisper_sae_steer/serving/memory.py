"""Memory that is free but kept by the allocator, given back to the system."""

import ctypes
from contextlib import suppress


def give_back_memory() -> None:
    """Let glibc give back all pages that hold nothing, in about 20 ms; other allocators are left alone.

    By itself it keeps them where anything small lies behind them: after a flood of requests a quarter more
    than before.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
