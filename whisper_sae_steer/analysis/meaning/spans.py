"""Recordings cut into spans of a second: some are evidence of what features mean, others are predicted."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csc_matrix, csr_matrix
from sklearn.model_selection import StratifiedGroupKFold

from ...audio.units import ENCODER_FRAME_SECONDS, ENCODER_FRAMES_PER_SECOND
from ...errors import AnalysisError
from ..store.activations import ActivationStore, Window
from ..store.excerpts import top_excerpts
from ..store.sparse import shape_of
from .describers import Evidence, Span
from .sound import DECIBELS, band_hz, band_word, describe_sound, mean_mels

SPAN_FRAMES = ENCODER_FRAMES_PER_SECOND
"""A span is a second; what is left of a window is one if it is at least half as long."""
PARTS = 3
"""Recordings are split into so many parts, of which one is held back."""
WORD_OFFSETS = (-22, -12, -6, -2, 0, 2, 6, 12, 22)
"""Places, in frames from an activation, whose sound is put into words."""
EXCERPTS = 5
"""Excerpts of a feature that a describer gets, at most."""


@dataclass(frozen=True)
class Spans:
    """Spans of some windows, S in all."""

    spans: list[Span]
    highest: csc_matrix
    """[S, F] highest activation of each feature"""
    windows: NDArray[np.intp]
    """[S] number of each one's window in the store"""
    groups: NDArray[np.str_]
    """[S]"""

    def __len__(self) -> int:
        return len(self.spans)

    def fires(self, feature: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Spans in which a feature fires, in order, and its highest activation in each."""
        span = slice(*self.highest.indptr[feature : feature + 2])
        return self.highest.indices[span].astype(np.intp), self.highest.data[span].astype(np.float32)


def held_back_windows(windows: Sequence[Window], seed: int = 0) -> NDArray[np.bool_]:
    """A third of the recordings and speakers, of every label as nearly as can be: [windows] bool.

    AnalysisError with fewer than three recordings or speakers.
    """
    groups = [w.group for w in windows]
    if len(set(groups)) < PARTS:
        raise AnalysisError(f"{PARTS} recordings or speakers (groups) are needed to hold one back")
    held = np.zeros(len(windows), dtype=bool)
    split = StratifiedGroupKFold(PARTS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a label of few recordings is in one part only
        try:
            held[next(split.split(groups, [w.label for w in windows], groups))[1]] = True
        except ValueError:  # every label has fewer windows than there are parts
            held[next(split.split(groups, [0] * len(groups), groups))[1]] = True
    return held


def cut(store: ActivationStore, features: csr_matrix, which: NDArray[np.bool_]) -> Spans:
    """Spans of the windows ``which``; ``features`` are those of the whole store, [rows, F]."""
    mel = store.mel().astype(np.float32)
    mel -= mel.mean(0)
    span_of = np.full(store.rows, -1)
    spans: list[Span] = []
    numbers: list[int] = []
    for number in np.flatnonzero(which).tolist():
        window = store.windows[number]
        for first in _starts(window.frames):
            rows = slice(window.first + first, window.first + min(first + SPAN_FRAMES, window.frames))
            span_of[rows] = len(spans)
            spans.append(_span(window, first, DECIBELS * mel[rows]))
            numbers.append(number)
    groups = np.array([store.windows[number].group for number in numbers])
    return Spans(spans, _highest(features, span_of, len(spans)), np.array(numbers), groups)


def _starts(frames: int) -> list[int]:
    return [
        start for start in range(0, frames, SPAN_FRAMES) if frames - start >= SPAN_FRAMES // 2 or start == 0
    ]


def _span(window: Window, first: int, decibels: NDArray[np.float32]) -> Span:
    bands = np.array([band_word(hz) for hz in band_hz()])
    level, half = decibels.mean(0), len(decibels) // 2
    low, middle, high = (round(float(level[bands == name].mean()), 1) for name in ("low", "middle", "high"))
    rise = float(decibels[half:].mean() - decibels[:half].mean()) if half else 0.0
    return Span(
        clip=window.clip,
        path=window.path,
        start=round(window.start + first * ENCODER_FRAME_SECONDS, 2),
        seconds=round(len(decibels) * ENCODER_FRAME_SECONDS, 2),
        label=window.label,
        domain=window.domain,
        low_db=low,
        middle_db=middle,
        high_db=high,
        rise_db=round(rise, 1),
    )


def _highest(features: csr_matrix, span_of: NDArray[np.intp], count: int) -> csc_matrix:
    """Maximum over the rows of each span, [count, F]; rows of none are -1."""
    spans = np.repeat(span_of, np.diff(features.indptr))
    inside = spans >= 0
    columns, values = features.indices[inside], features.data[inside]
    key = columns.astype(np.int64) * count + spans[inside]
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    highest = np.maximum.reduceat(values[order], starts) if len(starts) else values[:0]
    column, span = np.divmod(key[order[starts]], count)
    return csc_matrix(coo_matrix((highest, (span, column)), shape=(count, shape_of(features)[1])))


def evidence_of(
    store: ActivationStore, features: csr_matrix, which: NDArray[np.bool_], spans: Spans
) -> Callable[[int], Evidence]:
    """What the windows ``which``, cut into ``spans``, say about a feature: a function of its number."""
    rows = np.flatnonzero(np.repeat(which, [w.frames for w in store.windows]))
    part = csr_matrix(features[rows])
    means = mean_mels(part, store.mel()[rows], store.window_numbers()[rows], WORD_OFFSETS)
    excerpts = top_excerpts(
        part, [w for w, chosen in zip(store.windows, which, strict=True) if chosen], EXCERPTS
    )
    labels, domains = (_shares([of(span) for span in spans.spans], spans) for of in (_label, _domain))

    def evidence(feature: int) -> Evidence:
        return Evidence(
            feature=feature,
            labels={
                name: round(float(share[feature]), 4) for name, share in labels.items() if share[feature]
            },
            domains={name: round(float(share[feature]), 4) for name, share in domains.items()},
            sound=describe_sound(means[feature], WORD_OFFSETS),
            excerpts=excerpts[feature],
        )

    return evidence


def _label(span: Span) -> str:
    return span.label


def _domain(span: Span) -> str:
    return span.domain


def _shares(names: Sequence[str], spans: Spans) -> dict[str, NDArray[np.float64]]:
    """For each name the share of its spans in which each feature fires, [F]."""
    known, number = np.unique(np.array(names), return_inverse=True)
    rows = csr_matrix(spans.highest > 0)
    return {
        str(name): np.asarray(rows[np.flatnonzero(number == i)].mean(0), np.float64).ravel()
        for i, name in enumerate(known)
    }
