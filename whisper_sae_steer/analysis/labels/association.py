"""Feature search: the features that mark each label, judged on recordings they were not chosen on.

Half of the groups of each label choose features and thresholds (F1, ties by average precision), the other
half measure how good they are. Whether a feature goes with a label at all is tested on all groups, one value
a group, because frames and windows of a recording are not independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix
from scipy.stats import hypergeom
from sklearn.metrics import average_precision_score, precision_recall_fscore_support
from tqdm import tqdm

from ...errors import AnalysisError
from ..store.sparse import averaging, columns_of, fires_anywhere, product, rows_of, shape_of
from .thresholds import BestThresholds, Sweep


class LabelDetector(NamedTuple):
    """A feature as a detector of a label."""

    feature: int
    threshold: float
    """it says yes where the activation is at least that"""
    f1: float
    """on the groups held back, as are the next three"""
    precision: float
    recall: float
    average_precision: float
    fitted_f1: float
    """on the groups that chose feature and threshold"""
    p: float
    """of Fisher's exact test over groups, one-sided"""
    p_holm: float
    """corrected for all features and labels"""


class LabelFeatures(NamedTuple):
    """The best features of one label, best first."""

    label: str
    fitted_groups: int
    held_back_groups: int
    share: float
    """of the units held back that have the label: the average precision of chance"""
    survivors: int
    """features whose corrected p is at most the level"""
    can_survive: bool
    """whether the label has groups enough for the smallest p there can be to survive the correction"""
    features: tuple[LabelDetector, ...]


@dataclass(frozen=True)
class Search:
    """The features of all labels."""

    labels: tuple[LabelFeatures, ...]
    left_out: tuple[str, ...]
    """labels of one group, which can't be both chosen and judged on"""
    units: int
    groups: int
    features: int
    alive: int
    """features that fired; the others are not tested"""
    tests: int
    """features × labels of the correction"""
    level: float
    """chance of any false association among all that survive, at most"""
    survivors: int
    """features that survive for at least one label"""


def find_features(
    features: csr_matrix,
    labels: NDArray[np.str_],
    groups: NDArray[np.str_],
    top: int = 10,
    level: float = 0.05,
    seed: int = 0,
) -> Search:
    """Features [units, F] of each label [units], split by groups [units].

    AnalysisError unless two labels, or one and a rest, have two groups.
    """
    names = _searchable(labels, groups)
    first_half = halves(labels, groups, seed)
    sweep, back = Sweep(rows_of(features, first_half)), csc_matrix(rows_of(features, ~first_half))
    alive = np.flatnonzero(fires_anywhere(features))
    p = group_tests(columns_of(features, alive), labels, groups, names)
    corrected = _holm(p)
    found: list[LabelFeatures] = []
    for number, name in enumerate(tqdm(names, desc="search", unit="label")):
        best, is_label = sweep.best(labels[first_half] == name), labels[~first_half] == name
        detectors = _detectors(best, alive, top, back, is_label, p[number], corrected[number])
        fitted, held_back = (len(set(groups[half & (labels == name)])) for half in (first_half, ~first_half))
        found.append(
            LabelFeatures(
                label=name,
                fitted_groups=fitted,
                held_back_groups=held_back,
                share=float(is_label.mean()),
                survivors=int((corrected[number] <= level).sum()),
                can_survive=p.size <= level * comb(_count(labels, groups), fitted + held_back),
                features=tuple(detectors),
            )
        )
    return Search(
        labels=tuple(found),
        left_out=tuple(sorted(set(labels.tolist()) - set(names))),
        units=len(labels),
        groups=len(set(groups)),
        features=shape_of(features)[1],
        alive=len(alive),
        tests=p.size,
        level=level,
        survivors=int((corrected <= level).any(0).sum()),
    )


def _detectors(
    best: BestThresholds,
    alive: NDArray[np.intp],
    top: int,
    held_back: csc_matrix,
    is_label: NDArray[np.bool_],
    p: NDArray[np.float64],
    corrected: NDArray[np.float64],
) -> list[LabelDetector]:
    """The features with the best F1, judged on the units held back [n, F]; ``p`` are of those ``alive``."""
    order = np.lexsort((-best.average_precision[alive], -best.f1[alive]))[:top]
    found: list[LabelDetector] = []
    for place in order[best.f1[alive[order]] > 0]:
        feature = int(alive[place])
        activation = held_back[:, [feature]].toarray().ravel()
        judged = _judge(activation, float(best.threshold[feature]), is_label)
        tested = float(p[place]), float(corrected[place])
        found.append(LabelDetector(feature, *judged, float(best.f1[feature]), *tested))
    return found


def halves(labels: NDArray[np.str_], groups: NDArray[np.str_], seed: int = 0) -> NDArray[np.bool_]:
    """Whether each unit's group is in the first half; of each label's groups half are, rounded up."""
    rng = np.random.default_rng(seed)
    label_of = dict(zip(groups[::-1].tolist(), labels[::-1].tolist(), strict=True))
    chosen: set[str] = set()
    for label in sorted(set(label_of.values())):
        members = rng.permutation(sorted(group for group, name in label_of.items() if name == label))
        chosen.update(members[: (len(members) + 1) // 2].tolist())
    return np.isin(groups, sorted(chosen))


def group_tests(
    features: csr_matrix, labels: NDArray[np.str_], groups: NDArray[np.str_], names: Sequence[str]
) -> NDArray[np.float64]:
    """p [names, F] of each feature × label: Fisher's exact test, one-sided, over groups.

    A group's value is the mean of its units. The n groups of a label are compared with the groups of the n
    highest values (more if some are equal; those that never fire are out). That cut-off doesn't depend on
    which groups have the label, so the test is exact. A rank test by its normal approximation is not: with
    features silent in most groups it makes p too small by orders of magnitude.
    """
    values, label_of = _group_values(features, labels, groups)
    total = len(values)
    falling = -np.sort(-values, axis=0)
    p = np.empty((len(names), shape_of(features)[1]))
    for number, name in enumerate(names):
        is_label = label_of == name
        count = int(is_label.sum())
        high = (values >= falling[count - 1]) & (values > 0)
        p[number] = hypergeom.sf(high[is_label].sum(0) - 1, total, high.sum(0), count)
    return np.minimum(p, 1)


def _group_values(
    features: csr_matrix, labels: NDArray[np.str_], groups: NDArray[np.str_]
) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Mean of each feature over the units of each group and label [G, F], and those labels [G]."""
    pairs, place = np.unique(np.stack([groups, labels], 1), axis=0, return_inverse=True)
    return product(averaging(place.ravel()), features), pairs[:, 1]


def _count(labels: NDArray[np.str_], groups: NDArray[np.str_]) -> int:
    return len(set(zip(groups.tolist(), labels.tolist(), strict=True)))


def _searchable(labels: NDArray[np.str_], groups: NDArray[np.str_]) -> list[str]:
    """Labels of two groups or more."""
    everything = sorted(set(labels.tolist()))
    names = [name for name in everything if len(set(groups[labels == name])) > 1]
    if len(everything) < 2:
        raise AnalysisError("all recordings have the same label; search needs another to tell it from")
    if not names:
        raise AnalysisError(
            "no label has two recordings (groups); search needs one to choose and one to judge"
        )
    return names


def _holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p corrected by Holm's method over all of [labels, F]."""
    try:
        from statsmodels.stats.multitest import multipletests
    except ImportError:
        raise AnalysisError("search needs statsmodels: pip install 'whisper-sae-steer[analysis]'") from None
    if not p.size:
        return p
    corrected = cast("NDArray[np.float64]", multipletests(p.ravel(), method="holm")[1])
    return corrected.reshape(p.shape)


def _judge(
    activation: NDArray[np.float32], threshold: float, is_label: NDArray[np.bool_]
) -> tuple[float, float, float, float, float]:
    """Threshold, F1, precision, recall and average precision of one detector."""
    precision, recall, f1, _ = precision_recall_fscore_support(
        is_label, activation >= threshold, average="binary", zero_division=cast(Any, 0)
    )
    area = average_precision_score(is_label, activation)
    return threshold, float(f1), float(precision), float(recall), float(area)
