"""Long recordings in pieces, cut where nobody speaks: several workers share one recording."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audio.units import SAMPLE_RATE
from ..steering.speech_map import FRAME_SAMPLES, PAD_SAMPLES, THRESHOLD, speech_probabilities
from .row import Row, failed

PIECE_SECONDS = 1200
"""about so long; recordings below one and a half of it stay whole"""
SEARCHED_SAMPLES = 120 * SAMPLE_RATE
"""around each place at which a piece should end, in which its cut is looked for"""
BETWEEN = "\0"
"""which no path has in it"""


class Piece(NamedTuple):
    """One of the pieces of a recording."""

    number: int = 0
    of: int = 1

    def name(self, key: str) -> str:
        """That of the piece of a recording; a whole one keeps its key."""
        return f"{key}{BETWEEN}{self.number} of {self.of}" if self.of > 1 else key

    def span(self, audio: NDArray[np.float32]) -> tuple[int, int]:
        """Its first sample in the whole recording [n], and the one behind its last.

        It ends late in the longest gap near. Without a gap of 1 s it goes on to the next cut, and
        the piece that was to begin there is empty.
        """
        start = self._cut(audio, self.number)
        if start is None:
            return 0, 0
        ends = (self._cut(audio, number) for number in range(self.number + 1, self.of + 1))
        return start, next(end for end in ends if end is not None)

    def _cut(self, audio: NDArray[np.float32], number: int) -> int | None:
        """Where the piece of this number begins."""
        place = number * len(audio) // self.of
        if number in (0, self.of):
            return place
        first = max(0, place - SEARCHED_SAMPLES)
        spoken = speech_probabilities(audio[first : place + SEARCHED_SAMPLES]) >= THRESHOLD
        edges = np.flatnonzero(np.diff(~spoken, prepend=False, append=False)).reshape(-1, 2) * FRAME_SAMPLES
        start, end = max(edges.tolist(), key=lambda edge: edge[1] - edge[0], default=(0, 0))
        if end - start < PAD_SAMPLES:
            return None
        # behind more silence Whisper would place the first words too early
        return first + max((start + end) // 2, end - PAD_SAMPLES)


def names_piece(name: str) -> bool:
    """Whether that is the name of a piece, and of no whole recording."""
    return BETWEEN in name


def pieces_of(seconds: float) -> list[Piece]:
    """The pieces of a recording of so many seconds."""
    count = max(1, round(seconds / PIECE_SECONDS))
    return [Piece(number, count) for number in range(count)]


def shifted(segment: dict[str, Any], seconds: float) -> dict[str, Any]:
    """A segment, that much later."""
    later = {edge: round(segment[edge] + seconds, 3) for edge in ("start", "end")}
    words = [shifted(word, seconds) for word in segment.get("words") or []]
    return segment | later | ({"words": words} if words else {})


def joined(key: str, rows: Sequence[Row]) -> Row:
    """The row of a recording whose pieces have these rows, in their order; the first error is its own."""
    error = next((row["error"] for row in rows if row["error"] is not None), None)
    if error is not None:
        return failed(key, error)
    return Row(
        path=key,
        seconds=round(sum(row["seconds"] or 0.0 for row in rows), 3),
        language=next((row["language"] for row in rows if row["language"]), None),
        text="".join(row["text"] or "" for row in rows),
        segments=[segment for row in rows for segment in row["segments"]],
        error=None,
        wall_seconds=round(sum(row["wall_seconds"] or 0.0 for row in rows), 4),
    )
