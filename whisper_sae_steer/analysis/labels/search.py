"""The analysis ``search``: which features mark each label."""

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ...errors import AnalysisError
from ...reports.page import aligned, heading, paragraph, percent, table
from ..store.activations import Window
from ..store.arguments import add_store_arguments, chosen_sae
from ..store.labelling import LEVELS, TARGETS, labelled_windows
from ..store.sparse import rows_of, shape_of
from .association import LabelFeatures, Search, find_features

TITLE = "Feature search"
QUESTION = "Which features mark each label?"
HEIGHT = 6.0
DRAWN = 30
"""labels in the plot, at most"""


@dataclass(frozen=True)
class SearchResult:
    """What was searched, and what was found."""

    sae: str
    by: str
    unit: str
    """window (highest activation in it) or frame"""
    search: Search


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_store_arguments(parser)
    add("--by", choices=TARGETS, default="label", help="what labels are")
    add("--level", choices=LEVELS, default="window", help="windows (highest activation) or frames")
    add("--top", type=int, default=10, metavar="N", help="features a label, at most")
    add("--alpha", type=float, default=0.05, help="chance of any false association among those that survive")
    add("--seed", type=int, default=0, help="of the split of groups")


def run(args: argparse.Namespace) -> SearchResult:
    """AnalysisError if the labels don't allow a search."""
    if args.top < 1 or not 0 < args.alpha < 1:
        raise AnalysisError("--top must be at least 1 and --alpha between 0 and 1")
    (store, sae), of = chosen_sae(args), TARGETS[args.by]
    numbers = labelled_windows(store, args.by)
    windows = [store.windows[i] for i in numbers]
    labels, groups = np.array([of(w) for w in windows]), np.array([w.group for w in windows])
    features = store.features(sae)
    if args.level == "window":
        units = window_maxima(features, windows)
    else:
        counts = [window.frames for window in windows]
        labels, groups = np.repeat(labels, counts), np.repeat(groups, counts)
        units = rows_of(features, np.concatenate([np.r_[window.rows] for window in windows]))
    found = find_features(units, labels, groups, args.top, args.alpha, args.seed)
    return SearchResult(sae, args.by, args.level, found)


def window_maxima(features: csr_matrix, windows: list[Window]) -> csr_matrix:
    """Highest activation of every feature in each window: [windows, F]."""
    highest: NDArray[np.float32] = np.zeros((len(windows), shape_of(features)[1]), np.float32)
    for row, window in zip(highest, windows, strict=True):
        inside = slice(features.indptr[window.rows.start], features.indptr[window.rows.stop])
        np.maximum.at(row, features.indices[inside], features.data[inside])
    return csr_matrix(highest)


def text(result: SearchResult) -> list[str]:
    return [_answer(result), "", *aligned(_BEST_HEAD, _best_rows(result)), "", *_notes(result)]


def plot(result: SearchResult, figure: Any) -> None:
    """Best feature's F1 and average precision for each label."""
    shown = sorted(result.search.labels, key=_best_f1)[-DRAWN:]
    axes = figure.subplots()
    places = np.arange(len(shown))
    axes.barh(places, [_best_f1(label) for label in shown], color="#7aa6c2", label="F1")
    precision = [label.features[0].average_precision if label.features else label.share for label in shown]
    axes.plot(precision, places, "D", color="#c2543a", label="average precision")
    axes.plot(
        [label.share for label in shown], places, "|", color="#222", label="average precision of chance"
    )
    axes.set_yticks(places, [label.label for label in shown])
    axes.set(xlim=(0, 1), xlabel="best feature, on recordings held back")
    axes.legend(frameon=False, loc="lower right")


def section(result: SearchResult) -> list[str]:
    return [
        paragraph(_answer(result)),
        table(_BEST_HEAD, _best_rows(result)),
        *(paragraph(note, small=True) for note in _notes(result)),
        heading("The best features of each label"),
        table(_FOUND_HEAD, [row for label in result.search.labels for row in _found_rows(label)]),
    ]


def _answer(result: SearchResult) -> str:
    search = result.search
    marked = [label for label in search.labels if label.survivors]
    median = float(np.median([_best_f1(label) for label in search.labels]))
    return (
        f"{len(marked)} of {len(search.labels)} labels have features that go with them beyond chance;"
        f" {search.survivors} of {search.alive} features that fire (of {search.features}) survive the"
        f" correction for {search.tests} tests. The best feature of a label has a median F1 of {median:.2f}"
        f" per {result.unit} of recordings held back ({search.units} {result.unit}s of {search.groups}"
        f" recordings or speakers; SAE {result.sae}, by {result.by})."
    )


def _notes(result: SearchResult) -> list[str]:
    search = result.search
    few = [label.label for label in search.labels if not label.can_survive]
    of = "the highest activation in the window" if result.unit == "window" else "the activation of the frame"
    notes = [
        f"F1: {of} is at least the threshold, against the label. Feature and threshold are chosen on half of"
        " each label's recordings (fitted); F1, precision, recall and average precision (AP) are of the other"
        " half. Chance: the share with the label, which is the AP of a random feature.",
        "p: Fisher's exact test over recordings, one-sided, among the highest values as many as have the"
        f" label; Holm: corrected over all features and labels. Survive: Holm's p at most {search.level:g}.",
    ]
    if few:
        notes.append(f"Too few recordings to survive the correction, whatever they do: {', '.join(few)}.")
    if search.left_out:
        notes.append(f"Left out, of one recording or speaker only: {', '.join(search.left_out)}.")
    return notes


_BEST_HEAD = ("label", "recordings", "feature", "threshold", "F1", "AP", "chance", "Holm's p", "survive")


def _best_rows(result: SearchResult) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for label in result.search.labels:
        recordings = f"{label.fitted_groups} + {label.held_back_groups}"
        best = ("–",) * 4
        corrected = "–"
        if label.features:
            f = label.features[0]
            best = str(f.feature), f"{f.threshold:.3g}", f"{f.f1:.2f}", f"{f.average_precision:.2f}"
            corrected = f"{f.p_holm:.2g}"
        rows.append((label.label, recordings, *best, percent(label.share), corrected, str(label.survivors)))
    return rows


_FOUND_HEAD = (
    *("label", "feature", "threshold", "F1", "precision", "recall", "AP", "F1 fitted", "p", "Holm's p"),
)


def _found_rows(label: LabelFeatures) -> list[tuple[str, ...]]:
    return [
        (
            label.label,
            str(f.feature),
            f"{f.threshold:.3g}",
            *(f"{v:.2f}" for v in (f.f1, f.precision, f.recall, f.average_precision, f.fitted_f1)),
            f"{f.p:.2g}",
            f"{f.p_holm:.2g}",
        )
        for f in label.features
    ]


def _best_f1(label: LabelFeatures) -> float:
    return label.features[0].f1 if label.features else 0.0
