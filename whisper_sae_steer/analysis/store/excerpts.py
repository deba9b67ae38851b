"""Pieces of recordings around a feature's strongest activations, to show and to play."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix

from ...audio.reading import load_audio
from ...audio.units import ENCODER_FRAME_SECONDS, SAMPLE_RATE
from ...errors import AudioError
from ...reports.page import paragraph, sound
from .activations import Window
from .sparse import shape_of, summing

EXCERPT_SECONDS = 2.0


class Excerpt(NamedTuple):
    """A piece of a recording around the frame in which a feature is strongest."""

    clip: str
    """the recording's key"""
    path: str
    start: float
    """seconds into the recording"""
    seconds: float
    peak: float
    """seconds into the recording of the strongest frame"""
    value: float
    """the activation there"""
    label: str
    domain: str


def top_excerpts(
    features: csr_matrix, windows: Sequence[Window], count: int = 5, seconds: float = EXCERPT_SECONDS
) -> list[list[Excerpt]]:
    """The strongest frames of every feature, at most one a recording or speaker (``group``), strongest first.

    ``features`` [N, F] holds the windows' frames in their order. A dead feature gets an empty list.
    """
    found: list[list[Excerpt]] = [[] for _ in range(shape_of(features)[1])]
    names = {name: number for number, name in enumerate(sorted({w.group for w in windows}))}
    frames = [w.frames for w in windows]
    window_of = np.repeat(np.arange(len(windows)), frames)
    group_of = np.repeat([names[w.group] for w in windows], frames)
    first = np.cumsum([0, *frames])
    for feature, row, value in _strongest(features, group_of):
        if len(found[feature]) < count:
            window = windows[window_of[row]]
            found[feature].append(_around(window, row - int(first[window_of[row]]), value, seconds))
    return found


def count_recordings(features: csr_matrix, windows: Sequence[Window]) -> NDArray[np.intp]:
    """In how many recordings or speakers (groups) each feature fires, [F]."""
    groups, number = np.unique([w.group for w in windows], return_inverse=True)
    group_of = np.repeat(number, [w.frames for w in windows])
    return np.diff(csc_matrix(summing(group_of, len(groups)) @ features).indptr)


def _strongest(features: csr_matrix, group_of: NDArray[np.intp]) -> list[tuple[int, int, float]]:
    """(feature, row, activation) of the strongest frame of each feature in each group, strongest first."""
    entries: Any = features.tocoo()
    rows, columns, values = entries.row, entries.col, entries.data
    key = columns.astype(np.int64) * (int(group_of.max(initial=0)) + 1) + group_of[rows]
    order = np.lexsort((rows, -values, key))  # the earliest of equal frames
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = key[order[1:]] != key[order[:-1]]
    best = order[fresh]
    best = best[np.lexsort((rows[best], -values[best]))]
    return list(zip(columns[best].tolist(), rows[best].tolist(), values[best].tolist(), strict=True))


def _around(window: Window, frame: int, value: float, seconds: float) -> Excerpt:
    """The piece around a frame of a window, moved where it would reach beyond it."""
    length = window.frames * ENCODER_FRAME_SECONDS
    seconds = min(seconds, length)
    middle = (frame + 0.5) * ENCODER_FRAME_SECONDS
    start = min(max(0.0, middle - seconds / 2), length - seconds)
    return Excerpt(
        clip=window.clip,
        path=window.path,
        start=round(window.start + start, 3),
        seconds=round(seconds, 3),
        peak=round(window.start + middle, 3),
        value=round(value, 4),
        label=window.label,
        domain=window.domain,
    )


def excerpt_audio(excerpt: Excerpt) -> NDArray[np.float32]:
    """Its samples at 16 kHz, float32 [n]. AudioError if the recording can't be read or is shorter now."""
    first = round(excerpt.start * SAMPLE_RATE)
    audio = load_audio(excerpt.path)[first : first + round(excerpt.seconds * SAMPLE_RATE)]
    if not len(audio):
        raise AudioError(f"{excerpt.path} is shorter than when it was encoded")
    return audio


def player(excerpt: Excerpt) -> Markup:
    """HTML of an excerpt with its sound inside; a line that says so where it can't be read."""
    name = f"{excerpt.label}, {excerpt.clip} at {excerpt.peak:.1f} s, activation {excerpt.value:.2f}"
    try:
        return paragraph(name, small=True) + sound(excerpt_audio(excerpt), name)
    except AudioError as error:
        return paragraph(f"{name}: {error}", small=True)
