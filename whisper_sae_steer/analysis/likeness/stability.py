"""Stability of features: are they found again by an SAE of another seed, layer or model?

Two features are the same to the degree that they fire on the same frames: intersection over union (IoU) of
their binarised activations. A feature is stable if its best match has an IoU above 0.5. AudioSAE (arXiv
2602.05027) reports that more than half of the features are between seeds.
"""

import argparse
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ...errors import AnalysisError
from ...reports.page import aligned, paragraph, percent, table
from ..store.activations import ActivationStore
from ..store.arguments import add_stores_argument, chosen_saes
from ..store.common_frames import common_frames
from ..store.overlap import SAME_IOU
from .comparison import (
    THRESHOLDS,
    BestMatches,
    Cosine,
    Duplicates,
    OneToOne,
    compare_directions,
    find_duplicates,
    match,
)

TITLE = "Stability"
QUESTION = "Which features are found again by an SAE of another seed, layer or model?"
HEIGHT = 3.4
LINES = 3
"""more pairs than this are drawn as a matrix"""
PAIRS_HEAD = ("features of", "in", "activations", "alive", "found", "of firings", "by chance", "one to one",
              "cosine > 0.7")  # fmt: skip
PAIRS_NOTE = (
    "Two features are as alike as the intersection over union (IoU) of the 20 ms frames they fire on. Found:"
    " share of features that fire at all whose best match in the other SAE has an IoU above 0.5; of firings:"
    " the same, each feature counted as often as it fires; by chance: found if the other SAE's windows are"
    " shuffled; one to one: share of the pairs above 0.5 if no feature is used twice (Hungarian method, as"
    " many pairs as the smaller SAE has live features); cosine: share with a decoder direction of the other"
    " SAE within 0.7, only where both read the same activations. AudioSAE reports more than 50% found between"
    " seeds."
)
DUPLICATES_HEAD = (
    "within", "tap", "features", "alive", "pairs > 0.5", "pairs > 0.9", "features with a double",
)  # fmt: skip
DUPLICATES_NOTE = (
    "Pairs of features of the same SAE by IoU; features with a double: share of those that fire at all whose"
    " closest other has an IoU above 0.5."
)


class SAEPair(NamedTuple):
    """Two SAEs compared on the same recordings."""

    a: str
    b: str
    kind: str
    """same activations (as two seeds have), other layer, or other model"""
    windows: int
    frames: int
    a_in_b: BestMatches
    b_in_a: BestMatches
    one_to_one: OneToOne
    cosine: Cosine | None


class Stability(NamedTuple):
    """Result of :func:`stability`."""

    thresholds: tuple[float, ...]
    pairs: tuple[SAEPair, ...]
    duplicates: tuple[Duplicates, ...]


def stability(sources: Sequence[tuple[ActivationStore, str]]) -> Stability:
    """Compare all pairs of the SAEs given, and the features within each.

    AnalysisError if their stores hold other recordings (see :func:`common_frames`), or if an SAE is dead.
    """
    names = _names(sources)
    duplicates: list[Duplicates] = []
    pairs: list[SAEPair] = []
    total = len(sources) * (len(sources) + 1) // 2
    with tqdm(total=total, desc="stability", unit="pair") as progress:
        for name, (store, sae) in zip(names, sources, strict=True):
            duplicates.append(find_duplicates(store.features(sae), name, store.sae(sae).config.tap))
            progress.update()
        for (a, one), (b, other) in combinations(zip(names, sources, strict=True), 2):
            pairs.append(_compare(a, one, b, other))
            progress.update()
    return Stability(THRESHOLDS, tuple(pairs), tuple(duplicates))


def _compare(a: str, one: tuple[ActivationStore, str], b: str, other: tuple[ActivationStore, str]) -> SAEPair:
    (store_a, name_a), (store_b, name_b) = one, other
    common = common_frames(store_a.windows, store_b.windows)
    sae_a, sae_b = store_a.sae(name_a), store_b.sae(name_b)
    found = match(store_a.features(name_a), store_b.features(name_b), common, (a, b))
    kind = "other model"
    if store_a.fingerprint == store_b.fingerprint:
        kind = "same activations" if sae_a.config.tap == sae_b.config.tap else "other layer"
    cosine = compare_directions(sae_a, sae_b, found) if kind == "same activations" else None
    return SAEPair(a, b, kind, len(common.frames), int(common.frames.sum()), *found, cosine)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_stores_argument(
        parser, "folder that `analyze encode` made, and which of its SAEs; several: all pairs are compared"
    )


def run(args: argparse.Namespace) -> Stability:
    return stability(chosen_saes(args))


def text(result: Stability) -> list[str]:
    lines = aligned(DUPLICATES_HEAD, [_duplicates_row(found) for found in result.duplicates])
    if result.pairs:
        lines += ["", *aligned(PAIRS_HEAD, [row for pair in result.pairs for row in _pair_rows(pair)])]
    return lines


def plot(result: Stability, figure: Any) -> None:
    left, right = figure.subplots(1, 2)
    (_draw_curves if len(result.pairs) <= LINES else _draw_matrix)(result, left)
    for label, found in _lines(result):
        strata = [(s.up_to, 100 * s.coverage) for s in found.by_rate if s.coverage is not None]
        right.plot(*zip(*strata, strict=True), marker="o", label=label)
    right.set_xscale("log")
    right.set_xlabel("share of frames a feature fires on, up to")
    right.set_ylabel("features found, %" if result.pairs else "features with a double, %")
    right.set_ylim(-2, 102)
    if len(result.pairs) > LINES:
        right.legend(fontsize=7, frameon=False)


def section(result: Stability) -> list[str]:
    parts: list[str] = [paragraph(line) for line in _answers(result)]
    if result.pairs:
        parts.append(table(PAIRS_HEAD, [row for pair in result.pairs for row in _pair_rows(pair)]))
        parts.append(paragraph(PAIRS_NOTE, small=True))
        parts += _strata_table(result)
    parts.append(table(DUPLICATES_HEAD, [_duplicates_row(found) for found in result.duplicates]))
    parts.append(paragraph(DUPLICATES_NOTE, small=True))
    twins = [
        [found.sae, str(twin.a), str(twin.b), f"{twin.iou:.3f}"]
        for found in result.duplicates
        for twin in found.top[:5]
    ]
    if twins:
        parts.append(table(["closest pairs of", "feature", "feature", "IoU"], twins))
    return parts


def _names(sources: Sequence[tuple[ActivationStore, str]]) -> list[str]:
    """The SAEs' names, with those or the paths of their stores where they would be the same otherwise."""
    choices = [
        [name for _, name in sources],
        [f"{store.path.resolve().name}:{name}" for store, name in sources],
        [f"{store.path.resolve()}:{name}" for store, name in sources],
    ]
    for names in choices:
        if len(set(names)) == len(names):
            return names
    raise AnalysisError("an SAE is given twice; name each once")


def _answers(result: Stability) -> list[str]:
    """What a reader wants to know first."""
    found = [
        f"{percent(side.coverage)} of the {side.alive} live features of {a} are found in {b}"
        + (f" ({percent(side.chance)} by chance)" if side.chance is not None else "")
        + f"; they make {percent(side.of_firings)} of its firings. {pair.kind.capitalize()},"
        f" {pair.frames} frames of {pair.windows} windows."
        for pair in result.pairs[:LINES]
        for a, b, side in _sides(pair)
    ]
    doubles = [
        f"{percent(own.closest.coverage)} of the {own.closest.alive} live features of {own.sae} have a double"
        f" in the same SAE; {own.copies} pairs are all but copies."
        for own in result.duplicates
    ]
    return found or doubles


def _sides(pair: SAEPair) -> list[tuple[str, str, BestMatches]]:
    return [(pair.a, pair.b, pair.a_in_b), (pair.b, pair.a, pair.b_in_a)]


def _pair_rows(pair: SAEPair) -> list[list[str]]:
    rows: list[list[str]] = []
    for a, b, side in _sides(pair):
        both = [percent(pair.one_to_one.coverage), percent(pair.cosine.shared if pair.cosine else None)]
        shares = [percent(side.coverage), percent(side.of_firings), percent(side.chance)]
        rows.append([a, b, pair.kind, str(side.alive), *shares, *(both if side is pair.a_in_b else ["", ""])])
    return rows


def _duplicates_row(own: Duplicates) -> list[str]:
    counts = [own.features, own.closest.alive, own.alike, own.copies]
    return [own.sae, own.tap, *map(str, counts), percent(own.closest.coverage)]


def _strata_table(result: Stability) -> list[str]:
    """Coverage by firing rate: rare features have few frames to agree on."""
    lines = _lines(result)
    head = ["frames it fires on", *(label for label, _ in lines)]
    rows = [
        [
            f"{percent(first.above, 2)} – {percent(first.up_to, 2)}",
            *(f"{percent(found.by_rate[i].coverage)} of {found.by_rate[i].features}" for _, found in lines),
        ]
        for i, first in enumerate(lines[0][1].by_rate)
    ]
    return [table(head, rows), paragraph("Features found, by how often they fire.", small=True)]


def _lines(result: Stability) -> list[tuple[str, BestMatches]]:
    """What is drawn and tabled in full: the first pairs both ways, or the SAEs by themselves."""
    if not result.pairs:
        return [(own.sae, own.closest) for own in result.duplicates]
    return [(f"{a} in {b}", side) for pair in result.pairs[:LINES] for a, b, side in _sides(pair)]


def _draw_curves(result: Stability, axes: Any) -> None:
    for label, found in _lines(result):
        (line,) = axes.plot(result.thresholds, [100 * share for share in found.curve], label=label)
        if found.chance_curve:
            chance = [100 * share for share in found.chance_curve]
            axes.plot(result.thresholds, chance, color=line.get_color(), linestyle=":")
    axes.axvline(SAME_IOU, color="#bbb", linewidth=0.8)
    axes.set_xlabel("IoU with the best match" + (" (dotted: by chance)" if result.pairs else ""))
    axes.set_ylabel("features above it, %")
    axes.set_ylim(-2, 102)
    axes.legend(fontsize=7, frameon=False)


def _draw_matrix(result: Stability, axes: Any) -> None:
    """Rows: whose features; columns: where they are looked for."""
    names = [own.sae for own in result.duplicates]
    shares = np.full((len(names), len(names)), np.nan)
    for pair in result.pairs:
        for a, b, side in _sides(pair):
            shares[names.index(a), names.index(b)] = 100 * side.coverage
    drawn = axes.imshow(shares, vmin=0, vmax=100, cmap="viridis")
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.figure.colorbar(drawn, ax=axes, label="features found, %", shrink=0.8)
