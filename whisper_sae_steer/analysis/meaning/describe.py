"""Features in words, and how well the words predict activations in recordings that were not described.

Two thirds of the recordings are described, the others predicted from the description alone.
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from tqdm import tqdm

from ...errors import AnalysisError
from ...reports.page import aligned, paragraph, percent, table
from ..store.activations import ActivationStore
from ..store.arguments import add_store_arguments, chosen_sae
from ..store.journal import Journal
from ..store.sparse import shape_of
from .describers import CommandDescriber, Describer, LabelDescriber
from .scoring import GOOD, DescribeConfig, Described, ScoreSummary, score, summarise
from .spans import cut, evidence_of, held_back_windows

TITLE = "Features in words"
QUESTION = "How well does a description of a feature predict where it fires in other recordings?"
HEIGHT = 3.0

SHOWN = 15


class DescribeResult(NamedTuple):
    """All features described, in order."""

    sae: str
    describer: str
    windows: int
    """described from"""
    held_back: int
    """windows of other recordings and speakers, predicted"""
    detection: ScoreSummary
    fuzzing: ScoreSummary
    shuffled: ScoreSummary
    spearman: ScoreSummary
    features: list[Described]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_store_arguments(parser)
    add(
        "--describer",
        default="labels",
        metavar="COMMAND",
        help="labels, or a command that answers questions, one line of JSON each",
    )
    add(
        "--features",
        type=int,
        nargs="+",
        default=[],
        metavar="ID",
        help="features to describe (default: all)",
    )
    add("--examples", type=int, default=DescribeConfig.examples, metavar="N", help="spans of a score")


def run(args: argparse.Namespace) -> DescribeResult:
    store, sae = chosen_sae(args)
    config = DescribeConfig(tuple(args.features), args.examples)
    if args.describer == "labels":
        return describe(store, sae, LabelDescriber(), "labels", config)
    key = [store.key, sae, args.describer, _settings(config)]
    with ExitStack() as stack:
        kept = Journal(args.out / "describe-work.jsonl", key)  # first: it may refuse
        describer = stack.enter_context(CommandDescriber(args.describer))
        return describe(store, sae, describer, args.describer, config, kept)


def _settings(config: DescribeConfig) -> dict[str, Any]:
    """What answers depend on; more features may be asked about later."""
    return {name: value for name, value in asdict(config).items() if name != "features"}


def describe(
    store: ActivationStore,
    sae: str,
    describer: Describer,
    name: str = "describer",
    config: DescribeConfig | None = None,
    kept: dict[str, Any] | None = None,
) -> DescribeResult:
    """Describe features from two thirds of the recordings and score the descriptions on the others.

    ``kept`` (a :class:`.journal.Journal`) takes what the describer says and gives it back in the next run.
    AnalysisError for a feature that doesn't exist, or without recordings to hold back.
    """
    config, kept = config or DescribeConfig(), {} if kept is None else kept
    features, held = store.features(sae), held_back_windows(store.windows, config.seed)
    ids = _chosen(features, config.features)
    known, unseen = cut(store, features, ~held), cut(store, features, held)
    evidence = evidence_of(store, features, ~held, known)
    texts: dict[int, str] = {}
    for f in tqdm(ids, desc="describe", unit="feature"):
        if f"describe {f}" not in kept:
            kept[f"describe {f}"] = describer.describe(evidence(f))
        texts[f] = kept[f"describe {f}"]
    found: list[Described] = []
    for f, other in zip(tqdm(ids, desc="predict", unit="feature"), _others(ids, config.seed), strict=True):
        if f"predict {f} {other}" not in kept:
            scored = score(describer, f, texts[f], texts[other] if other != f else None, unseen, config)
            kept[f"predict {f} {other}"] = list(scored)
        found.append(Described(*kept[f"predict {f} {other}"]))
    return DescribeResult(
        sae=sae,
        describer=name,
        windows=int((~held).sum()),
        held_back=int(held.sum()),
        detection=summarise([one.score for one in found]),
        fuzzing=summarise([one.fuzzing for one in found]),
        shuffled=summarise([one.shuffled for one in found]),
        spearman=summarise([one.spearman for one in found]),
        features=found,
    )


def _chosen(features: csr_matrix, wanted: Sequence[int]) -> list[int]:
    """The features asked for, or all that fire."""
    if missing := [f for f in wanted if not 0 <= f < shape_of(features)[1]]:
        raise AnalysisError(f"no feature {missing[0]}: the SAE has 0 to {shape_of(features)[1] - 1}")
    return list(wanted) or np.unique(features.indices).tolist()


def _others(ids: Sequence[int], seed: int) -> list[int]:
    """For each feature another one; itself if it is alone."""
    order = np.random.default_rng(seed).permutation(len(ids))
    following = dict(zip(order.tolist(), np.roll(order, -1).tolist(), strict=True))
    return [ids[following[place]] for place in range(len(ids))]


def text(result: DescribeResult) -> list[str]:
    return [
        _answer(result),
        *aligned(_HEAD, _table(result)),
        *(f"{d.feature}: {d.description}" for d in _best(result)[:SHOWN]),
    ]


_HEAD = ("score", "features", "median", "quartiles", f"at least {GOOD}")
_NAMES = {
    "score": "detection (AUC)",
    "fuzzing": "fuzzing (AUC)",
    "shuffled": "detection with another's description",
    "spearman": "rank correlation with activation",
}


def _table(result: DescribeResult) -> list[list[str]]:
    rows: list[list[str]] = []
    for name, one in zip(_NAMES.values(), _scores_of(result), strict=True):
        low, high = one.quartiles or (None, None)
        rows.append(
            [
                name,
                str(one.features),
                _figure(one.median),
                f"{_figure(low)} to {_figure(high)}",
                percent(one.good),
            ]
        )
    return rows


def _scores_of(result: DescribeResult) -> tuple[ScoreSummary, ...]:
    return result.detection, result.fuzzing, result.shuffled, result.spearman


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _best(result: DescribeResult) -> list[Described]:
    return sorted((d for d in result.features if d.score is not None), key=lambda d: -(d.score or 0))


def _answer(result: DescribeResult) -> str:
    return (
        f"{result.sae}, described by {result.describer}: descriptions of {result.detection.features} of"
        f" {len(result.features)} features could be checked on {result.held_back} windows of other recordings"
        f" than the {result.windows} described. Median AUC {_figure(result.detection.median)}, with another"
        f" feature's description {_figure(result.shuffled.median)}."
    )


def plot(result: DescribeResult, figure: Any) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    bins = np.linspace(0, 1, 26)
    for axis, names in ((left, ("score", "shuffled")), (right, ("fuzzing",))):
        for name in names:
            values = [v for d in result.features if (v := getattr(d, name)) is not None]
            axis.hist(values, bins, alpha=0.7, label=_NAMES[name])
        axis.axvline(0.5, color="0.6", linewidth=0.8)
        axis.set_xlabel("AUC")
        axis.legend(frameon=False, fontsize=7)
    left.set_ylabel("features")


def section(result: DescribeResult) -> list[str]:
    ranked = _best(result)
    head = ("feature", "detection", "fuzzing", "another's", "description")

    def rows(some: Sequence[Described]) -> list[list[str]]:
        return [
            [str(d.feature), _figure(d.score), _figure(d.fuzzing), _figure(d.shuffled), d.description]
            for d in some
        ]

    middle = ranked[len(ranked) // 2 - 2 : len(ranked) // 2 + 3]
    return [
        paragraph(_answer(result)),
        table(_HEAD, _table(result)),
        paragraph("Best, middling and worst predicted:"),
        table(head, rows([*ranked[:SHOWN], *middle, *ranked[-5:]])),
        paragraph(
            "Detection: the description alone ranks spans of a second with activation against spans without,"
            f" at most {DescribeConfig.examples} each by default, of recordings and speakers that were not"
            " described. Fuzzing: the spans without are of the same windows. Good: AUC of"
            f" {GOOD} or more; half is chance. Labels are given to whoever predicts, so the default describer"
            " tells how far labels and loudness explain a feature, not what a listener would find.",
            small=True,
        ),
    ]
