"""The analysis ``probe``: how many features it takes to tell labels or phones apart."""

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from ...errors import AnalysisError
from ...reports.page import aligned, heading, paragraph, percent, table
from ..store.arguments import add_store_arguments, chosen_sae
from ..store.labelling import add_target_arguments, choose_units, target_name
from .probing import KS, ProbeScore, Probing, probe_curve
from .ranking import RANKINGS

TITLE = "Sparse probing"
QUESTION = "How many features does it take to tell labels apart, and what is lost against all activations?"
HEIGHT = 3.5
COLOURS = {"fisher": "#2a6f97", "l1": "#c2543a", "random": "#999999"}
NAMES = {"fisher": "Fisher", "l1": "L1", "random": "random"}
IN_TABLE = 10
"""k whose accuracy is shown for each label"""


@dataclass(frozen=True)
class ProbeResult:
    """What was probed, and how well it went."""

    sae: str
    tap: str
    target: str
    unit: str
    """frame, or window: the mean of its frames"""
    folds: int
    left_out: tuple[str, ...]
    """labels of fewer groups than folds"""
    probing: Probing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_store_arguments(parser)
    add_target_arguments(parser, level="frame")
    add("--k", nargs="+", type=int, default=list(KS), help="numbers of features; all is always among them")


def run(args: argparse.Namespace) -> ProbeResult:
    """AnalysisError if labels or alignments don't allow it."""
    if min(args.k) < 1:
        raise AnalysisError("--k must be at least 1")
    store, sae = chosen_sae(args)
    tap = store.sae(sae).config.tap or next(iter(store.taps))
    kept = choose_units(store, args)
    features = csr_matrix(kept.units.mean @ store.features(sae), dtype=np.float32)
    dense = kept.units.of(store.frames(tap))
    probing = probe_curve(features, dense, kept.units, args.k, args.folds)
    unit = "frame" if args.alignments else args.level
    return ProbeResult(sae, tap, target_name(args), unit, args.folds, kept.left_out, probing)


def text(result: ProbeResult) -> list[str]:
    return [_answer(result), "", *aligned(_CURVE_HEAD, _curve_rows(result.probing)), "", *_notes(result)]


def plot(result: ProbeResult, figure: Any) -> None:
    """Balanced accuracy against k, with the dense probe and the majority as lines."""
    probing = result.probing
    axes = figure.subplots()
    for ranking in RANKINGS:
        curve = [(p.k, p.score) for p in probing.points if p.ranking == ranking]
        curve.append((probing.alive, probing.everything))
        ks = [k for k, _ in curve]
        axes.plot(
            ks, [s.balanced_accuracy for _, s in curve], ".-", color=COLOURS[ranking], label=NAMES[ranking]
        )
        low, high = zip(*(s.balanced_interval for _, s in curve), strict=True)
        axes.fill_between(ks, low, high, color=COLOURS[ranking], alpha=0.15, linewidth=0)
    axes.axhline(probing.dense.balanced_accuracy, color="#222", linestyle="--", label="all activations")
    axes.axhline(probing.majority.balanced_accuracy, color="#222", linestyle=":", label="majority")
    axes.set(xscale="log", ylim=(0, 1), xlabel="features", ylabel=f"balanced accuracy, {result.target}")
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def section(result: ProbeResult) -> list[str]:
    return [
        paragraph(_answer(result)),
        table(_CURVE_HEAD, _curve_rows(result.probing)),
        *(paragraph(note, small=True) for note in _notes(result)),
        heading(f"Accuracy of each {result.target}"),
        table(*_label_table(result)),
    ]


def enough(probing: Probing, ranking: str, share: float = 0.9) -> int | None:
    """The fewest features tried that reach a share of the dense probe's way from majority to its balanced
    accuracy; None if none of them does."""
    floor, ceiling = probing.majority.balanced_accuracy, probing.dense.balanced_accuracy
    aim = floor + share * (ceiling - floor)
    reached = [p.k for p in probing.points if p.ranking == ranking and p.score.balanced_accuracy >= aim]
    return min(reached, default=None)


def _answer(result: ProbeResult) -> str:
    probing = result.probing
    counts = [enough(probing, ranking) for ranking in ("fisher", "l1", "random")]
    fisher, l1, chance = ("more than all" if count is None else str(count) for count in counts)
    everything = probing.everything
    return (
        f"90% of what the dense activations give over the majority takes {fisher} of the {probing.alive}"
        f" features that fire by Fisher score, {l1} by L1, {chance} at random. All"
        f" features: balanced accuracy {percent(everything.balanced_accuracy)}; all {probing.width}"
        f" activations at {result.tap}: {percent(probing.dense.balanced_accuracy)}; majority:"
        f" {percent(probing.majority.balanced_accuracy)} ({len(probing.counts)} {result.target}s,"
        f" {sum(probing.counts.values())} {result.unit}s of {probing.groups} recordings or speakers;"
        f" SAE {result.sae})."
    )


def _notes(result: ProbeResult) -> list[str]:
    notes = [
        f"Recordings or speakers are dealt to {result.folds} folds; features are ranked and the logistic"
        " probe is fitted on the other folds, every figure is of folds held back. Balanced accuracy: mean of"
        " the accuracies of all labels. Intervals: 95%, bootstrap over recordings or speakers."
    ]
    if result.left_out:
        notes.append(f"Left out, of fewer recordings than folds: {', '.join(result.left_out)}.")
    return notes


_CURVE_HEAD = ("probe on", "features", "accuracy", "95%", "balanced accuracy", "95%")


def _curve_rows(probing: Probing) -> list[tuple[str, ...]]:
    return [
        *(_row(NAMES[p.ranking], p.k, p.score) for p in probing.points),
        _row("all features", probing.alive, probing.everything),
        _row("all activations", probing.width, probing.dense),
        _row("majority", 0, probing.majority),
    ]


def _row(name: str, k: int, score: ProbeScore) -> tuple[str, ...]:
    return (
        name,
        str(k),
        percent(score.accuracy),
        _range(score.accuracy_interval),
        percent(score.balanced_accuracy),
        _range(score.balanced_interval),
    )


def _range(interval: tuple[float, float]) -> str:
    return f"{percent(interval[0])}–{percent(interval[1])}"


def _label_table(result: ProbeResult) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Accuracy of each label on few and on all features, and on dense activations."""
    probing = result.probing
    few = [p for p in probing.points if p.ranking != "random" and p.k == IN_TABLE]
    scores = [*(p.score for p in few), probing.everything, probing.dense]
    names = [*(f"{IN_TABLE} by {NAMES[p.ranking]}" for p in few), "all features", "all activations"]
    rows = [
        (label, str(count), *(percent(s.recall[label]) for s in scores))
        for label, count in probing.counts.items()
    ]
    return (result.target, f"{result.unit}s", *names), rows
