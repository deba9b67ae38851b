"""Windows with speech, as scores and as tokens, and what both libraries make of the tokens."""

import numpy as np
from numpy.typing import NDArray

BEGIN = 50364
"""the token of a timestamp at the window's start"""


def scores(*speech: tuple[int, int], level: float = 8.0) -> NDArray[np.float32]:
    values = np.full(1500, -9.0, np.float32)
    for start, end in speech:
        values[start:end] = level
    return values


def split(tokens: list[int], seek: int = 0, size: int = 3000) -> tuple[list[list[int]], int]:
    """What both libraries make of a window's tokens: its segments, and where they seek to next."""
    times = [token >= BEGIN for token in tokens]
    cuts = [i for i in range(1, len(tokens)) if times[i] and times[i - 1]]
    single = times[-2:] == [False, True]
    if not cuts:
        return [tokens], seek + size
    if single:
        cuts.append(len(tokens))
    segments = [tokens[a:b] for a, b in zip([0, *cuts], cuts, strict=False)]
    return segments, seek + (size if single else 2 * (tokens[cuts[-1] - 1] - BEGIN))
