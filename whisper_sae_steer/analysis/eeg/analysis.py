"""The analysis ``eeg``: does the brain follow what SAE features follow?

Temporal response functions of features against the EEG of somebody who listens. AudioSAE (arXiv 2602.05027)
asks the same.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ...errors import AnalysisError
from ...reports.page import aligned, paragraph, percent, table
from ..store.activations import ActivationStore
from ..store.arguments import add_store_arguments
from .recordings import Eeg, read_eeg
from .responses import EegConfig, EegResult, Measured, Response, eeg, most_frequent
from .trf import RATE

TITLE = "EEG"
QUESTION = "Do features predict the EEG of somebody who listens, and beyond the loudness of what is heard?"
HEIGHT = 3.4

SHOWN = 5
"""kernels drawn"""
HEAD = ("predictor", "fires on", "best channel", "r", "p", "q", "gains at", "gain of r", "p", "q")
NOTE = (
    "r: Pearson correlation of measured and predicted EEG on recordings that nothing was fitted to, mean over"
    " the {folds} outer folds, at the channel where it is highest; the ridge parameter is chosen by"
    " cross-validation within the others. Gain: what r rises by if the predictor joins {over}. p: share of"
    " {n} circular shifts of the EEG within each trial (for gains: of what is left of it) that reach the"
    " score, all fitted anew, (k + 1) / (n + 1), so at least {least:.2g}. q: Benjamini–Hochberg over channels"
    " and features. EEG and predictors at 50 Hz, {low:g} to {high:g} Hz. Envelope: amplitude of the log-mel"
    " to the power of 0.6. Responses are those of all predictors but the sum, fitted together on all trials"
    " by mne's ReceptiveField."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_store_arguments(parser)
    add(
        "eeg", nargs="+", type=Path, help="EEG of one listener: BrainVision, EDF or what else mne reads; BIDS"
    )
    add("--events", nargs="+", type=Path, metavar="FILE",
        help="table (onset, duration, stim_file) for each EEG file; default: BIDS, annotations")  # fmt: skip
    add(
        "--channels", nargs="+", default=[], metavar="NAME", help="channels (default: all EEG that isn't bad)"
    )
    add("--features", nargs="+", type=int, default=[], metavar="ID", help="features (default: see --top)")
    add("--top", type=int, default=10, metavar="N", help="the N features that fire most often")
    add("--lags", nargs=2, type=float, default=[0, 500], metavar="MS", help="first and last lag")
    add("--band", nargs=2, type=float, default=[1, 15], metavar="HZ", help="band-pass of EEG and features")
    add("--folds", type=int, default=5, help="of the outer cross-validation, over recordings")
    add("--n_permutations", type=int, default=1000, help="circular shifts; the smallest p is 1 / (1 + n)")
    add("--over", choices=("envelope", "others"), default="envelope",
        help="what a feature must add to: the envelope, or also the other features")  # fmt: skip
    add("--seed", type=int, default=0, help="of the shifts")


def run(args: argparse.Namespace) -> EegResult:
    (first, last), (low, high) = args.lags, args.band
    config = EegConfig(
        first / 1000, last / 1000, low, high, args.folds, args.n_permutations, args.over, args.seed
    )
    if args.events and len(args.events) != len(args.eeg):
        raise AnalysisError(
            f"{len(args.events)} tables of events for {len(args.eeg)} EEG files; give one each"
        )
    store = ActivationStore.open(args.store)
    tables = args.events or [None] * len(args.eeg)
    eegs: list[Eeg] = []
    with tqdm(total=len(args.eeg), desc="read", unit="file") as progress:
        for path, table in zip(args.eeg, tables, strict=True):
            eegs.append(read_eeg(path, store, table, args.channels))
            progress.update()
    features = args.features or most_frequent(store, eegs, args.top, args.sae)
    return eeg(store, eegs, features, args.sae, config)


def text(result: EegResult) -> list[str]:
    return [*answer(result), *aligned(HEAD, [_row(result, response) for response in result.responses])]


def section(result: EegResult) -> list[str]:
    config = result.config
    note = NOTE.format(
        folds=min(config.folds, result.recordings), over=_baseline(result), n=config.n_permutations,
        least=1 / (1 + config.n_permutations), low=config.low, high=config.high,
    )  # fmt: skip
    return [
        *(paragraph(line) for line in answer(result)),
        table(HEAD, [_row(result, response) for response in result.responses]),
        paragraph(note, small=True),
    ]


def answer(result: EegResult) -> list[str]:
    """The findings in two sentences."""
    base = result.responses[0].alone
    assert base is not None
    asked = sum(response.feature is not None for response in result.responses)
    channel, r, _, _ = _best(result, base)
    at, gain, p, _ = _best(result, result.joint)
    return [
        f"{len(result.alone)} of {asked} features predict the EEG at some of {len(result.channels)} channels,"
        f" {len(result.beyond)} of them beyond {_baseline(result)} (q < 0.05; {result.trials} trials of"
        f" {result.recordings} recordings, {result.minutes:.1f} minutes).",
        f"The envelope alone reaches r = {r} at {channel}; all features together add {gain} at {at} (p {p}).",
    ]


def plot(result: EegResult, figure: Any) -> None:
    left, right = figure.subfigures(1, 2, width_ratios=(3, 4))
    _draw_kernels(result, left.subplots())
    base = result.responses[0].alone
    assert base is not None
    maps = {"envelope: r": base.score, "features add": result.joint.score}
    if result.positions:
        _draw_maps(result, right.subplots(1, 2), maps, right)
    else:
        _draw_bars(result, right.subplots(), maps)


def _draw_kernels(result: EegResult, axes: Any) -> None:
    """The responses with the surest and largest gains, each at its best channel."""
    found = [r for r in result.responses if r.kernel is not None and r.alone is not None]
    found.sort(key=_surest)
    for response in found[:SHOWN]:
        assert response.kernel is not None
        measured = response.gain or response.alone
        assert measured is not None
        channel = int(np.argmax(measured.score))
        label = f"{response.name}, {result.channels[channel]}"
        axes.plot([1000 * lag for lag in result.lags], response.kernel[channel], label=label)
    axes.axhline(0, color="#999", linewidth=0.5)
    axes.set_xlabel("lag, ms")
    axes.set_ylabel("response, µV per SD")
    axes.legend(fontsize=6, frameon=False)


def _draw_maps(result: EegResult, axes: Any, maps: dict[str, list[float]], figure: Any) -> None:
    import mne

    montage = mne.channels.make_dig_montage(
        {name: np.array(place) for name, place in result.positions.items()}, coord_frame="head"
    )
    info: Any = mne.create_info(list(result.channels), RATE, "eeg")
    info.set_montage(montage)
    for ax, (title, values) in zip(axes, maps.items(), strict=True):
        image, _ = mne.viz.plot_topomap(values, info, axes=ax, show=False, contours=0)
        figure.colorbar(image, ax=ax, orientation="horizontal", shrink=0.7)
        ax.set_title(title)


def _draw_bars(result: EegResult, axes: Any, maps: dict[str, list[float]]) -> None:
    places = np.arange(len(result.channels))
    for i, (title, values) in enumerate(maps.items()):
        axes.bar(places + 0.4 * i - 0.2, values, 0.4, label=title)
    axes.set_xticks(places, result.channels, rotation=90, fontsize=6)
    axes.legend(fontsize=7, frameon=False)


def _surest(response: Response) -> tuple[float, float]:
    measured = response.gain or response.alone
    assert measured is not None
    return min(measured.q), -max(measured.score)


def _baseline(result: EegResult) -> str:
    return "the envelope" if result.config.over == "envelope" else "the envelope and the other features"


def _best(result: EegResult, measured: Measured) -> tuple[str, str, str, str]:
    i = int(np.argmax(measured.score))
    return (
        result.channels[i], f"{measured.score[i]:.3f}", f"{measured.p[i]:.2g}", f"{measured.q[i]:.2g}",
    )  # fmt: skip


def _row(result: EegResult, response: Response) -> list[str]:
    cells: list[str] = []
    for measured in (response.alone, response.gain):
        cells += _best(result, measured) if measured else ["–"] * 4
    return [response.name, "dead" if response.rate == 0 else percent(response.rate), *cells]
