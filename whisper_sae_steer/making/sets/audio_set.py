"""What ``make-pack --download`` has to know of a set of recordings."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...audio.clips import Clip
from ...errors import DownloadError

SPLIT = "calib"
"""of every clip: nothing of these sets is kept for tests of this package"""


class AudioSet(NamedTuple):
    """A set, and how its clips are found and fetched.

    Both functions get the set's folder for what is only needed on the way, which need not exist. A clip's
    ``key`` is where it will lie in the set's own folder, ``path`` says nothing yet.
    """

    title: str
    size: str
    """What has to be fetched, for people."""
    per_class: int
    """Clips taken at most of each class, spread over its groups."""
    candidates: Callable[[Path], list[Clip]]
    """Every clip there is to choose from, with its licence, always in the same order."""
    audio: Callable[[Sequence[Clip], Path], Iterator[tuple[Clip, NDArray[np.float32]]]]
    """The clips with their samples at 16 kHz, float32 [n], one at a time in any order."""


def lacks(library: str, name: str) -> DownloadError:
    """What to raise when a set's library isn't installed."""
    return DownloadError(f"--download {name} needs {library}: pip install 'whisper-sae-steer[download]'")


def not_as_expected(name: str, reason: str) -> DownloadError:
    """What to raise when a set isn't laid out as it was when this was written."""
    return DownloadError(
        f"{name} is not laid out as expected ({reason}); leave it out: name the other sets after --download"
    )
