"""What glibc does with large blocks of memory that are freed. Other systems' allocators stay as they are."""

import ctypes
import ctypes.util
from collections.abc import Generator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP_BELOW_BYTES, _RETURN_FROM_BYTES, _USUAL_BYTES = 1 << 30, 1 << 20, 1 << 25
"""the last is where glibc ends by itself after a program has freed large blocks"""


def keep_large_blocks() -> bool:
    """Keep them for the next ones; False where glibc isn't.

    A training step makes several temporaries of 10 to 50 MB. By default each is mapped and unmapped anew;
    zeroing their pages took a third of the processor's time.
    """
    return _set(_KEEP_BELOW_BYTES)


@contextmanager
def large_blocks_returned() -> Generator[None]:
    """Give them back to the system at once, inside the block.

    Calibration reads thousands of windows of some MB, one after the other, and keeps a few frames of each.
    Those few lie in the holes that the large ones left, so that each new one needs a new place: 20 GB for
    windows of which one at a time is in use. Elsewhere it would cost a third of the time of an encoder pass.
    """
    _set(_RETURN_FROM_BYTES)
    try:
        yield
    finally:
        _set(_USUAL_BYTES)


def _set(threshold_bytes: int) -> bool:
    name = ctypes.util.find_library("c")
    try:
        mallopt = ctypes.CDLL(name).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(option, threshold_bytes) for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))
