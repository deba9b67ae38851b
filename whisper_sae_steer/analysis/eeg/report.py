"""What the EEG analysis shows: lines, tables, responses over the lags and maps of the channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...reports.page import aligned, paragraph, percent, table

if TYPE_CHECKING:
    from .analysis import EegResult, Measured, Response

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
    info: Any = mne.create_info(list(result.channels), 50.0, "eeg")
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
