"""The frames of audio that two stores have in common: SAEs of different models are compared on these."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import AnalysisError
from .activations import Window

SLACK = 2
"""frames by which windows of two encoders may differ: HuBERT gives a frame or two less than Whisper"""


class CommonFrames(NamedTuple):
    """The frames that two stores have in common, window by window."""

    a: NDArray[np.intp]
    """[W] first rows in one store"""
    b: NDArray[np.intp]
    """[W] first rows in the other"""
    frames: NDArray[np.intp]
    """[W]"""

    def rows(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows [N] of the one store and of the other that hold the same audio."""
        return _rows(self.a, self.frames), _rows(self.b, self.frames)

    def shuffled_rows(self, seed: int = 0) -> NDArray[np.intp]:
        """Rows [N] of the other store with each window in the place of another: audio that isn't the same."""
        order = np.random.default_rng(seed).permutation(len(self.frames))
        other = np.empty_like(order)
        other[order] = np.roll(order, 1)
        return _rows(self.b[other], self.frames[other])


def common_frames(a: Sequence[Window], b: Sequence[Window]) -> CommonFrames:
    """Windows of the same recording and start, cut to the common length.

    AnalysisError if the stores are of other recordings: a window is missing or longer by more than 2 frames.
    """
    one, other = _by_recording(a), _by_recording(b)
    for key in (*one, *other):
        lengths = [windows[key].frames if key in windows else 0 for windows in (one, other)]
        if abs(lengths[0] - lengths[1]) > SLACK:
            raise AnalysisError(
                f"the stores hold other audio: {key[0]} at {key[1]:g} s has {lengths[0]} and {lengths[1]}"
                " frames; encode the same recordings into both"
            )
    both = [(one[key], other[key]) for key in one if key in other]
    if not both:
        raise AnalysisError("the stores have no window in common; encode the same recordings into both")
    return CommonFrames(
        np.array([x.first for x, _ in both]),
        np.array([y.first for _, y in both]),
        np.array([min(x.frames, y.frames) for x, y in both]),
    )


def _by_recording(windows: Sequence[Window]) -> dict[tuple[str, float, int], Window]:
    """Windows by recording, start and how often the two came before."""
    seen: Counter[tuple[str, float]] = Counter()
    found: dict[tuple[str, float, int], Window] = {}
    for window in windows:
        key = (window.clip, window.start)
        found[(*key, seen[key])] = window
        seen[key] += 1
    return found


def _rows(first: NDArray[np.intp], frames: NDArray[np.intp]) -> NDArray[np.intp]:
    """The numbers first[i] … first[i] + frames[i] - 1 of every i, in order."""
    ends = frames.cumsum()
    return np.arange(ends[-1]) + np.repeat(first - (ends - frames), frames)
