"""Sizes of tiles, for the code that launches kernels.

Triton has the same two functions, but several of its releases give them types that fit inside kernels only.
"""


def tiles_over(length: int, tile: int) -> int:
    """How many tiles it takes to cover a length."""
    return -(-length // tile)


def power_of_2_over(number: int) -> int:
    """The smallest power of 2 that is at least ``number``, which is 1 or more."""
    return 1 << (number - 1).bit_length()
