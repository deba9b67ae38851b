"""What is labelled: windows or sampled frames of a store, each with a label and a group."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ...errors import AnalysisError
from .activations import ActivationStore, Window
from .alignments import Alignments, labels_of_frames
from .sparse import columns_of, rows_of

TARGETS: Mapping[str, Callable[[Window], str]] = {
    "label": lambda window: window.label,
    "domain": lambda window: window.domain,
    "language": lambda window: window.language,
    "source": lambda window: window.source,
}
LEVELS = ("window", "frame")
FRAMES_A_WINDOW = 20
ALIGNED_FRAMES_A_WINDOW = 200


class LabelledUnits(NamedTuple):
    """Units with a label: frames, or windows as the mean of their frames."""

    mean: csr_matrix
    """[n, rows]: times what a store holds, a unit's values"""
    labels: NDArray[np.str_]
    """[n]"""
    groups: NDArray[np.str_]
    """[n]: recordings or speakers"""

    def of(self, rows: NDArray[np.float16]) -> NDArray[np.float32]:
        """Values [n, d] of the units, of dense rows [rows, d]."""
        used = np.unique(self.mean.indices)
        return np.asarray(columns_of(self.mean, used) @ rows[used].astype(np.float32), np.float32)

    def take(self, which: NDArray[np.bool_]) -> "LabelledUnits":
        """Only some of the units."""
        return LabelledUnits(rows_of(self.mean, which), self.labels[which], self.groups[which])


class KeptUnits(NamedTuple):
    """Units of labels that have groups enough, and the labels that have not."""

    units: LabelledUnits
    left_out: tuple[str, ...]


def add_target_arguments(parser: argparse.ArgumentParser, level: str) -> None:
    """Arguments that :func:`choose_units` reads."""
    add = parser.add_argument
    add("--by", choices=TARGETS, default="label", help="what is told apart")
    add("--alignments", type=Path, metavar="DIR", help="tell phones apart: a folder of TextGrid or CTM files")
    add("--tier", default="phones", help="tier of the TextGrids")
    add("--level", choices=LEVELS, default=level, help="windows (mean of their frames) or sampled frames")
    sampled = f"frames sampled of a window (default: {FRAMES_A_WINDOW}, of phones {ALIGNED_FRAMES_A_WINDOW})"
    add("--per_window", type=int, metavar="N", help=sampled)
    add("--folds", type=int, default=5, help="parts that groups are dealt to; labels of fewer are left out")


def choose_units(store: ActivationStore, args: argparse.Namespace) -> KeptUnits:
    """The units that the arguments ask for. AnalysisError if too few labels have groups enough."""
    if args.folds < 2 or (args.per_window or 1) < 1:
        raise AnalysisError("--folds must be at least 2 and --per_window at least 1")
    if args.alignments:
        alignments = Alignments.read(args.alignments, args.tier)
        units = aligned_frames(store, alignments, args.per_window or ALIGNED_FRAMES_A_WINDOW)
    elif args.level == "window":
        units = whole_windows(store, args.by)
    else:
        units = sampled_frames(store, args.by, args.per_window or FRAMES_A_WINDOW)
    return with_groups(units, args.folds)


def target_name(args: argparse.Namespace) -> str:
    """What is told apart, in words."""
    return "phone" if args.alignments else args.by


def labelled_windows(store: ActivationStore, by: str) -> NDArray[np.intp]:
    """Numbers of the windows that have a label. AnalysisError if none has."""
    of = TARGETS[by]
    windows = np.array([i for i, window in enumerate(store.windows) if of(window)], np.intp)
    if not len(windows):
        raise AnalysisError(
            f"{store.path}: no recording has a {by}; encode with a manifest or folders that tell"
        )
    return windows


def whole_windows(store: ActivationStore, by: str) -> LabelledUnits:
    """The mean of each window's frames."""
    windows = [store.windows[i] for i in labelled_windows(store, by)]
    lengths = np.array([window.frames for window in windows])
    mean = csr_matrix(
        (np.repeat(1 / lengths, lengths), np.concatenate([np.r_[w.rows] for w in windows]),
         np.concatenate([[0], np.cumsum(lengths)])),
        shape=(len(windows), store.rows),
    )  # fmt: skip
    of = TARGETS[by]
    return LabelledUnits(mean, np.array([of(w) for w in windows]), np.array([w.group for w in windows]))


def sampled_frames(store: ActivationStore, by: str, per_window: int, seed: int = 0) -> LabelledUnits:
    """At most ``per_window`` frames of each window, so that long recordings don't outweigh short ones."""
    of, rng = TARGETS[by], np.random.default_rng(seed)
    windows = [store.windows[i] for i in labelled_windows(store, by)]
    rows = [_some(rng, np.arange(window.frames), per_window) + window.first for window in windows]
    counts = [len(some) for some in rows]
    labels = np.repeat([of(window) for window in windows], counts)
    return _frames(store, np.concatenate(rows), labels, np.repeat([w.group for w in windows], counts))


def aligned_frames(
    store: ActivationStore, alignments: Alignments, per_window: int, seed: int = 0
) -> LabelledUnits:
    """Frames with the phone at their centre, at most ``per_window`` of each window.

    AnalysisError if no recording has an alignment.
    """
    rng = np.random.default_rng(seed)
    rows: list[NDArray[np.intp]] = []
    labels: list[NDArray[np.str_]] = []
    groups: list[str] = []
    for window, intervals in alignments.match(store.windows):
        phones = labels_of_frames(intervals, window.start, window.frames)
        chosen = _some(rng, np.flatnonzero(phones != ""), per_window)
        rows.append(chosen + window.first)
        labels.append(phones[chosen])
        groups += [window.group] * len(chosen)
    if not groups:
        raise AnalysisError(
            f"{alignments.path}: no phone lies in the recordings; check the alignments' times"
        )
    return _frames(store, np.concatenate(rows), np.concatenate(labels), np.array(groups))


def with_groups(units: LabelledUnits, folds: int) -> KeptUnits:
    """Leave out labels of fewer than ``folds`` groups. AnalysisError unless two are left."""
    names = sorted(set(units.labels.tolist()))
    common = [name for name in names if len(set(units.groups[units.labels == name])) >= folds]
    if len(common) < 2:
        raise AnalysisError(
            f"{len(common)} of {len(names)} labels have {folds} recordings (groups) or more;"
            " give more recordings, or lower --folds"
        )
    kept = units.take(np.isin(units.labels, common))
    return KeptUnits(kept, tuple(name for name in names if name not in common))


def _frames(
    store: ActivationStore, rows: NDArray[np.intp], labels: NDArray[np.str_], groups: NDArray[np.str_]
) -> LabelledUnits:
    shape = (len(rows), store.rows)
    chosen = csr_matrix((np.ones(len(rows)), rows, np.arange(len(rows) + 1)), shape)
    return LabelledUnits(chosen, labels, groups)


def _some(rng: np.random.Generator, candidates: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    if len(candidates) <= count:
        return candidates
    return np.sort(rng.choice(candidates, count, replace=False))
