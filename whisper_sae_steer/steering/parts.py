"""Parts: the passages of an excerpt (``speech_map.py``) that a window holds."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audio.units import MEL_FRAMES_PER_ENCODER_FRAME

JOINT_MEL_FRAMES = range(46, 50)
"""of digital silence in a row between two parts: as many as JOINT_SAMPLES give, neither more nor less"""
LONG_MEL_FRAMES = 140
"""of digital silence that hold a joint and a passage's silent edge"""


class Part(NamedTuple):
    """Frames of a window."""

    start: int
    end: int


def find_parts(mel: NDArray[np.float32]) -> list[Part]:
    """The parts of a window's log mel [n_mels, 3000]: what joints, long digital silence or padding part.

    A pause of a recording may be digital silence too, but hardly ever as long as a joint.
    """
    flat = np.ptp(mel, axis=0) < 1e-6
    edges = np.flatnonzero(np.diff(flat, prepend=False, append=False)).reshape(-1, 2)
    silent = [
        (start, end)
        for start, end in edges.tolist()
        if end - start in JOINT_MEL_FRAMES
        or end - start >= LONG_MEL_FRAMES
        or start == 0
        or end == mel.shape[1]
    ]
    bounds = [0, *(bound for span in silent for bound in span), mel.shape[1]]
    spans = zip(bounds[::2], bounds[1::2], strict=True)
    step = MEL_FRAMES_PER_ENCODER_FRAME
    return [Part(start // step, -(-end // step)) for start, end in spans if end > start]
