"""Keeping large temporaries on the heap between steps."""

import ctypes
import ctypes.util

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LIMIT_BYTES = 1 << 30


def keep_large_blocks() -> bool:
    """Ask glibc to reuse large blocks instead of giving them back to the kernel; False elsewhere.

    A training step makes several temporaries of 10 to 50 MB. By default each is mapped and unmapped anew;
    zeroing their pages took a third of the processor's time.
    """
    name = ctypes.util.find_library("c")
    try:
        mallopt = ctypes.CDLL(name).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LIMIT_BYTES) and mallopt(_M_TRIM_THRESHOLD, _LIMIT_BYTES))
