"""What features sound like: mean log-mel around their activations, and the excerpts they fire most on.

The mean is weighted by the activation, as in AudioSAE (Aparin et al. 2026, arXiv 2602.05027). Of each
frame's surroundings only those inside its window count.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix

from ...audio.units import ENCODER_FRAME_SECONDS
from ...errors import AnalysisError
from ...files import write_atomically
from ...reports.page import aligned, heading, paragraph, percent, table
from ..store.activations import ActivationStore
from ..store.arguments import add_store_arguments, chosen_sae
from ..store.excerpts import Excerpt, count_recordings, player, top_excerpts
from ..store.sparse import shape_of
from .sound import (
    BAND_WORDS,
    CLEAR_DB,
    COURSE_WORDS,
    DECIBELS,
    HIGH_HZ,
    LEVEL_WORDS,
    LOW_HZ,
    OFFSETS,
    SoundSummary,
    activation_seconds,
    band_hz,
    describe_sound,
    mean_mels,
)

TITLE = "What features sound like"
QUESTION = "What does the sound around a feature's activations have in common?"
HEIGHT = 6.0

MEANS = "mel.safetensors"
SHOWN, PLAYERS = 12, 3


@dataclass(frozen=True)
class MelConfig:
    """What is computed and what is shown."""

    features: tuple[int, ...] = ()
    """features to show; by default those that differ most from the average sound"""
    excerpts: int = 5
    """a feature, at most one of each recording or speaker"""


class MelFeature(NamedTuple):
    """One feature; a dead one has rate, max and mean 0, no sound and no excerpts."""

    feature: int
    rate: float
    """share of frames it fires in"""
    max: float
    """strongest activation"""
    mean: float
    """mean of its activations above 0"""
    recordings: int
    """recordings or speakers it fires in"""
    seconds: float
    """mean length of an uninterrupted activation"""
    sound: SoundSummary | None
    excerpts: list[Excerpt]
    """strongest first"""


class MelResult(NamedTuple):
    """All features in order; ``shown`` are those of the plot."""

    sae: str
    frames: int
    offsets: list[float]
    """seconds from the activation"""
    means: Path
    """safetensors file: ``difference`` [F, offsets, 80] float16, weighted mean log-mel minus ``average``
    [80] float32, ``hz`` [80] the bands' middles"""
    shown: list[int]
    features: list[MelFeature]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_store_arguments(parser)
    add("--features", type=int, nargs="+", default=[], metavar="ID", help="features to plot and play")
    add("--excerpts", type=int, default=MelConfig.excerpts, metavar="N", help="excerpts of each feature")


def run(args: argparse.Namespace) -> MelResult:
    store, sae = chosen_sae(args)
    config = MelConfig(tuple(args.features), args.excerpts)
    return interpret(store, sae, args.out, config)


def interpret(store: ActivationStore, sae: str, out: Path, config: MelConfig | None = None) -> MelResult:
    """Means, numbers and excerpts of all features; the means go to ``out/mel.safetensors``.

    AnalysisError for a feature that doesn't exist.
    """
    config = config or MelConfig()
    features, mel = store.features(sae), store.mel()
    if missing := [f for f in config.features if not 0 <= f < shape_of(features)[1]]:
        raise AnalysisError(f"no feature {missing[0]}: {sae} has 0 to {shape_of(features)[1] - 1}")
    numbers = store.window_numbers()
    average = mel.mean(0, dtype=np.float64).astype(np.float32)
    difference = mean_mels(features, mel, numbers, OFFSETS)
    out.mkdir(parents=True, exist_ok=True)
    with write_atomically(out / MEANS) as temporary:
        hz = band_hz().astype(np.float32)
        save_file({"difference": difference.astype(np.float16), "average": average, "hz": hz}, temporary)
    found = _features(store, features, numbers, difference, config.excerpts)
    structure = difference.std((1, 2))
    shown = list(config.features) or _most_distinct(found, structure)
    offsets = [round(offset * ENCODER_FRAME_SECONDS, 3) for offset in OFFSETS]
    return MelResult(sae, store.rows, offsets, out / MEANS, shown, found)


def _features(
    store: ActivationStore,
    features: csr_matrix,
    numbers: NDArray[np.intp],
    difference: NDArray[np.float32],
    excerpts: int,
) -> list[MelFeature]:
    count = np.bincount(features.indices, minlength=shape_of(features)[1])
    total = np.asarray(features.sum(0), np.float64).ravel()
    strongest = features.max(0).toarray().ravel()
    lasting = activation_seconds(features, numbers)
    examples = top_excerpts(features, store.windows, excerpts)
    groups = count_recordings(features, store.windows)
    return [
        MelFeature(
            feature=f,
            rate=round(float(count[f] / store.rows), 7),
            max=round(float(strongest[f]), 4),
            mean=round(float(total[f] / max(count[f], 1)), 4),
            recordings=int(groups[f]),
            seconds=round(float(lasting[f]), 3),
            sound=describe_sound(difference[f], OFFSETS) if count[f] else None,
            excerpts=examples[f],
        )
        for f in range(shape_of(features)[1])
    ]


def _most_distinct(found: Sequence[MelFeature], structure: NDArray[np.float32]) -> list[int]:
    """Those whose mean log-mel varies most over band and time, in many recordings, one of each label."""
    far = [structure[f.feature] * f.recordings**0.5 for f in found]
    known = [f for f in np.argsort(far, kind="stable")[::-1].tolist() if found[f].excerpts]
    turns: dict[str, int] = {}
    ranked: list[tuple[int, int, int]] = []
    for place, f in enumerate(known):
        label = found[f].excerpts[0].label
        turns[label] = turns.get(label, 0) + 1
        ranked.append((turns[label], place, f))
    return [f for _, _, f in sorted(ranked)[:SHOWN]]


def text(result: MelResult) -> list[str]:
    return [_answer(result), *aligned(_HEAD, _rows(result))]


_HEAD = ("feature", "frames", "recordings", "seconds", "band", "sound", "strongest in")


def _rows(result: MelResult) -> list[list[str]]:
    rows: list[list[str]] = []
    for feature in (result.features[f] for f in result.shown):
        sound, first = feature.sound, next(iter(feature.excerpts), None)
        rows.append([
            str(feature.feature), percent(feature.rate, 2), str(feature.recordings), f"{feature.seconds:.2f}",
            f"{sound.low_hz:.0f}–{sound.high_hz:.0f} Hz" if sound else "–", sound.words if sound else "dead",
            first.label if first else "–",
        ])  # fmt: skip
    return rows


def _answer(result: MelResult) -> str:
    found = [f.sound.words.split() for f in result.features if f.sound]

    def counts(words: Sequence[str]) -> str:
        return ", ".join(f"{sum(word in have for have in found)} {word}" for word in words)

    return (
        f"{result.sae}: {len(found)} of {len(result.features)} features fire. Of their sounds"
        f" {counts(LEVEL_WORDS)}; {counts(BAND_WORDS)}; {counts(COURSE_WORDS)}."
    )


def plot(result: MelResult, figure: Any) -> None:
    means = load_file(result.means)
    shown = result.shown[:SHOWN]
    axes = figure.subplots(3, 4, squeeze=False, sharex=True, sharey=True).ravel()
    picture = None
    for f, axis in zip(shown, axes, strict=False):
        decibels = DECIBELS * means["difference"][f].astype(np.float32).T
        edges = (result.offsets[0], result.offsets[-1], 0, decibels.shape[0])
        picture = axis.imshow(
            decibels, origin="lower", aspect="auto", extent=edges, cmap="RdBu_r", vmin=-30, vmax=30
        )
        first = next(iter(result.features[f].excerpts), None)
        axis.set_title(f"{f}: {first.label if first else 'dead'}", fontsize=8)
        axis.set_yticks(*_ticks(means["hz"]))
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    figure.supxlabel("seconds from the activation")
    if picture is not None:
        figure.colorbar(picture, ax=axes.tolist(), label="dB above the mean of all frames")


def _ticks(hz: NDArray[np.float32]) -> tuple[list[float], list[str]]:
    marks = (100, 500, 1000, 2000, 4000)
    return [float(np.interp(mark, hz, np.arange(len(hz)))) for mark in marks], [f"{m} Hz" for m in marks]


def section(result: MelResult) -> list[str]:
    answer, notes = paragraph(_answer(result)), paragraph(_notes(result), small=True)
    parts: list[str] = [answer, table(_HEAD, _rows(result)), notes]
    for f in result.shown[: SHOWN // 2]:
        parts += [heading(f"Feature {f}", 3), *(player(e) for e in result.features[f].excerpts[:PLAYERS])]
    return parts


def _notes(result: MelResult) -> str:
    return (
        f"Means over {result.frames} frames of 20 ms, each weighted by the feature's activation, minus the"
        f" mean of all frames. Loud and quiet: {CLEAR_DB:.0f} dB above or below. Band: what stands out from"
        " the other bands at least half as much as the band that does most; low is a peak under"
        f" {LOW_HZ:.0f} Hz, high over {HIGH_HZ:.0f} Hz. Onset and end: a rise or fall of {CLEAR_DB:.0f} dB"
        " from the 0.3 s before to the 0.3 s after; burst: only around the activation; otherwise sustained."
        " Seconds: mean length of an activation. Shown: features whose mean varies most over band and time"
        " in many recordings, one of each label in turn, or those asked for."
    )
