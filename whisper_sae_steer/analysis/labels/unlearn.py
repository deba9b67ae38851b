"""The analysis ``unlearn``: how many features must go to erase a label. Goes on where it was stopped."""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from tqdm import tqdm

from ...errors import AnalysisError
from ...files import write_text
from ...reports.page import aligned, heading, paragraph, percent, points, table
from ..results import plain
from ..store.activations import ActivationStore
from ..store.arguments import add_store_arguments, chosen_sae
from ..store.labelling import LabelledUnits, add_target_arguments, choose_units, target_name
from .unlearning import Erasure, ErasureGoal, ErasureStep, Unlearned, unlearn

TITLE = "Unlearning"
QUESTION = (
    "How many features must go before a label can't be told from the rest, and what do the others lose?"
)
HEIGHT = 3.5
WORK = "unlearn"
"""folder below OUT of the labels done"""
DRAWN = 6
"""labels in the plot, at most"""


@dataclass(frozen=True)
class UnlearnResult:
    """What was erased."""

    sae: str
    target: str
    unit: str
    folds: int
    chance: float
    """balanced accuracy at or below which a label counts as gone"""
    left_out: tuple[str, ...]
    """labels of fewer groups than folds"""
    labels: tuple[Unlearned, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_store_arguments(parser)
    add_target_arguments(parser, level="frame")
    add("--labels", nargs="+", metavar="LABEL", help="only erase these (default: each)")
    add(
        "--chance", type=float, default=0.55, help="balanced accuracy at which a label is gone; 0.5 is chance"
    )


def run(args: argparse.Namespace) -> UnlearnResult:
    """AnalysisError if labels or alignments don't allow it."""
    if not 0.5 <= args.chance < 1:
        raise AnalysisError("--chance must be at least 0.5 and below 1")
    store, sae = chosen_sae(args)
    units, left_out = choose_units(store, args)
    names = sorted(set(units.labels.tolist()))
    unknown = sorted(set(args.labels or ()) - set(names))
    if unknown:
        raise AnalysisError(
            f"can't erase {', '.join(unknown)}; labels of recordings enough: {', '.join(names)}"
        )
    features = csr_matrix(units.mean @ store.features(sae), dtype=np.float32)
    key = _key(store, sae, features, units, args)
    done = [_label(args.out / WORK, key, name, features, units, args) for name in args.labels or names]
    unit = "frame" if args.alignments else args.level
    return UnlearnResult(sae, target_name(args), unit, args.folds, args.chance, left_out, tuple(done))


def _label(
    folder: Path, key: str, name: str, features: csr_matrix, units: LabelledUnits, args: argparse.Namespace
) -> Unlearned:
    """What an earlier call found of a label, or what this one does."""
    path = folder / f"{hashlib.sha256(f'{key} {name}'.encode()).hexdigest()[:16]}.json"
    found = _read(path)
    if found:
        return found
    with tqdm(desc=f"erase {name}", unit="step") as progress:
        found = unlearn(features, units, name, args.chance, args.folds, progress.update)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(plain(found)) + "\n")
    return found


def _read(path: Path) -> Unlearned | None:
    """None if there is none, or if it is damaged: then it is made again."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        orders = {order: _erasure(found[order]) for order in ("fisher", "random")}
        found |= {"before": _step(found["before"]), "first": tuple(found["first"]), **orders}
        return Unlearned(**found)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _erasure(found: Any) -> Erasure | None:
    if found is None:
        return None
    gone, halved = ErasureGoal(**found["gone"]), ErasureGoal(**found["halved"])
    return Erasure(gone, halved, tuple(map(_step, found["curve"])))


def _step(found: Any) -> ErasureStep:
    low, high = found["interval"]
    return ErasureStep(found["erased"], found["balanced_accuracy"], (low, high))


def _key(
    store: ActivationStore, sae: str, features: csr_matrix, units: LabelledUnits, args: argparse.Namespace
) -> str:
    """Hash of all that a label's result depends on."""
    digest = hashlib.sha256(f"{store.key} {sae} {args.folds} {args.chance} {features.shape}".encode())
    for values in (features.data, features.indices, features.indptr):
        digest.update(np.ascontiguousarray(values).tobytes())
    digest.update("\n".join([*units.labels.tolist(), *units.groups.tolist()]).encode())
    return digest.hexdigest()


def text(result: UnlearnResult) -> list[str]:
    return [_answer(result), "", *aligned(_HEAD, _rows(result)), "", *_notes(result)]


def plot(result: UnlearnResult, figure: Any) -> None:
    """Balanced accuracy against features erased, in Fisher order and at random, of the first labels."""
    axes = figure.subplots()
    shown = [label for label in result.labels if label.fisher and label.random][:DRAWN]
    for number, label in enumerate(shown):
        for erasure, line in ((label.fisher, "-"), (label.random, ":")):
            steps = erasure.curve if erasure else ()
            axes.plot(
                [max(s.erased / label.alive, 0.5 / label.alive) for s in steps],
                [s.balanced_accuracy for s in steps],
                line, color=f"C{number}", label=label.label if line == "-" else None,
            )  # fmt: skip
    axes.axhline(result.chance, color="#999", linewidth=0.8)
    axes.set(
        xscale="log",
        ylim=(0.4, 1),
        xlabel="share of the features that fire, erased by Fisher score (dotted: at random)",
    )
    axes.set_ylabel("balanced accuracy")
    if shown:
        axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def section(result: UnlearnResult) -> list[str]:
    features = [(label.label, ", ".join(map(str, label.first))) for label in result.labels]
    return [
        paragraph(_answer(result)),
        table(_HEAD, _rows(result)),
        *(paragraph(note, small=True) for note in _notes(result)),
        heading("The features that go first"),
        table((result.target, "features"), features),
    ]


def _answer(result: UnlearnResult) -> str:
    told = [label for label in result.labels if label.fisher and label.random]
    if not told:
        return "No label can be told from the rest to begin with, so there is nothing to erase."
    gone, halved = _shares(told, "fisher", "gone"), _shares(told, "fisher", "halved")
    losses = [
        x for x in (_loss(label, label.fisher and label.fisher.halved) for label in told) if x is not None
    ]
    harm = f"; the other labels then change by {points(float(np.mean(losses)))} on average" if losses else ""
    return (
        f"To take half of what tells a {result.target} from the rest, {percent(min(halved))} to"
        f" {percent(max(halved))} (median {percent(float(np.median(halved)))}) of the features that fire must"
        f" go, in Fisher order{harm}. To erase it, {percent(min(gone))} to {percent(max(gone))} (median"
        f" {percent(float(np.median(gone)))}). In random order the medians are"
        f" {percent(float(np.median(_shares(told, 'random', 'halved'))))} and"
        f" {percent(float(np.median(_shares(told, 'random', 'gone'))))}. {len(told)} of {len(result.labels)}"
        f" could be told from the rest before. SAE {result.sae}, per {result.unit}."
    )


def _shares(labels: Sequence[Unlearned], order: str, goal: str) -> list[float]:
    """Features erased, of those alive."""
    return [getattr(getattr(label, order), goal).erased / label.alive for label in labels]


def _notes(result: UnlearnResult) -> list[str]:
    notes = [
        "Features are set to zero in the order of their Fisher score for the label against the rest, and a"
        f" balanced logistic classifier is fitted anew each time, on {result.folds} folds of recordings or"
        " speakers; balanced accuracy is of folds held back. Half: midway between the accuracy before and"
        f" 0.5, chance. Erased: at or below {result.chance:g}. Steps are powers of two, then halves, exact"
        " to 2% of the count. Shares are of the features that fire.",
        "Others: change of the balanced accuracy among all other labels with the same features erased.",
    ]
    if result.left_out:
        notes.append(f"Left out, of fewer recordings than folds: {', '.join(result.left_out)}.")
    return notes


_HEAD = (
    *("label", "recordings", "before", "half", "share", "random", "others"),
    *("erased", "share", "of all", "random", "others"),
)


def _rows(result: UnlearnResult) -> list[tuple[str, ...]]:
    return [_row(label) for label in result.labels]


def _row(label: Unlearned) -> tuple[str, ...]:
    head = label.label, str(label.groups), percent(label.before.balanced_accuracy)
    if not label.fisher or not label.random:
        return (*head, "not told apart", *("–",) * 8)
    halved, gone = label.fisher.halved, label.fisher.gone
    return (
        *head,
        str(halved.erased),
        percent(halved.erased / label.alive),
        percent(label.random.halved.erased / label.alive),
        points(_loss(label, halved)),
        str(gone.erased),
        percent(gone.erased / label.alive),
        percent(gone.erased / label.features),
        percent(label.random.gone.erased / label.alive),
        points(_loss(label, gone)),
    )


def _loss(label: Unlearned, goal: ErasureGoal | None) -> float | None:
    if goal is None or goal.others is None or label.others_before is None:
        return None
    return goal.others - label.others_before
