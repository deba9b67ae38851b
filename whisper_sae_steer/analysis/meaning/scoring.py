"""How well descriptions predict: detection and fuzzing on spans of recordings that were not described.

As in Paulo et al. 2024 (arXiv 2410.13928). Detection: which of some spans does the feature fire in? The
others come from anywhere. Fuzzing: they come from the same windows, so that only the place in them matters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from ...reports.metrics import auc
from .describers import Describer
from .spans import Spans

GOOD = 0.8
"""AUC"""


@dataclass(frozen=True)
class DescribeConfig:
    """What is described and how it is scored."""

    features: tuple[int, ...] = ()
    """by default all that fire"""
    examples: int = 20
    """spans with and without activation that a score is of, at most each"""
    least: int = 5
    """a feature with fewer of either in the recordings held back gets no score"""
    seed: int = 0


class Described(NamedTuple):
    """One feature. Scores are None where the recordings held back don't have enough spans for them."""

    feature: int
    description: str
    score: float | None
    """detection: AUC of its spans against spans without activation"""
    spearman: float | None
    """rank correlation of prediction and highest activation, same spans; 0 if all predictions agree"""
    fuzzing: float | None
    """AUC against spans without activation of the same windows"""
    shuffled: float | None
    """detection with another feature's description"""
    active: int
    """spans with activation that were scored"""
    inactive: int


class ScoreSummary(NamedTuple):
    """One kind of score over the features that have it; None without any."""

    features: int
    median: float | None
    quartiles: tuple[float, float] | None
    good: float | None
    """share of features with an AUC of at least 0.8"""


def score(
    describer: Describer, feature: int, text: str, other: str | None, unseen: Spans, config: DescribeConfig
) -> Described:
    active, inactive, near, values = _pick(unseen, feature, config)
    described = Described(feature, text, None, None, None, None, len(active), len(inactive))
    if min(len(active), len(inactive)) < config.least:
        return described
    chosen = [unseen.spans[i] for i in (*active, *inactive, *near)]
    said = list(describer.predict(text, chosen))
    right, wrong = said[: len(active)], said[len(active) : len(active) + len(inactive)]
    elsewhere = said[len(active) + len(inactive) :]
    both, a = right + wrong, len(active)
    shuffled = list(describer.predict(other, chosen[: len(both)])) if other is not None else []
    return described._replace(
        score=auc(right, wrong),
        spearman=_rank_correlation(both, [*values, *[0.0] * len(wrong)]),
        fuzzing=auc(right, elsewhere) if len(elsewhere) >= config.least else None,
        shuffled=auc(shuffled[:a], shuffled[a:]),
    )


def _rank_correlation(said: Sequence[float], values: Sequence[float]) -> float:
    if len(set(said)) == 1:
        return 0.0
    found: Any = spearmanr(said, values)
    return float(found.statistic)


class _Picked(NamedTuple):
    """Spans to predict, by number."""

    active: list[int]
    inactive: list[int]
    near: list[int]
    """inactive ones of the windows of ``active``"""
    values: list[float]
    """highest activations of ``active``"""


def _pick(unseen: Spans, feature: int, config: DescribeConfig) -> _Picked:
    rng = np.random.default_rng([config.seed, feature])
    firing, highest = unseen.fires(feature)
    silent = np.setdiff1d(np.arange(len(unseen)), firing)
    active = _spread(rng, firing, unseen.groups, config.examples)
    inactive = _spread(rng, silent, unseen.groups, config.examples)
    beside = silent[np.isin(unseen.windows[silent], unseen.windows[active])]
    near = _spread(rng, beside, unseen.groups, config.examples)
    value = dict(zip(firing.tolist(), highest.tolist(), strict=True))
    return _Picked(active, inactive, near, [value[i] for i in active])


def _spread(
    rng: np.random.Generator, candidates: NDArray[np.intp], groups: NDArray[np.str_], count: int
) -> list[int]:
    """Some of the candidates at random, of each group one in turn."""
    shuffled = rng.permutation(candidates)
    turns: dict[str, int] = {}
    ranked: list[tuple[int, int]] = []
    for i, group in zip(shuffled.tolist(), groups[shuffled].tolist(), strict=True):
        turns[group] = turns.get(group, 0) + 1
        ranked.append((turns[group], i))
    ranked.sort(key=lambda item: item[0])
    return [i for _, i in ranked[:count]]


def summarise(values: Sequence[float | None]) -> ScoreSummary:
    """What the features that have a score have."""
    known = [value for value in values if value is not None]
    if not known:
        return ScoreSummary(0, None, None, None)
    low, median, high = np.percentile(known, [25, 50, 75]).tolist()
    return ScoreSummary(len(known), median, (low, high), sum(value >= GOOD for value in known) / len(known))
