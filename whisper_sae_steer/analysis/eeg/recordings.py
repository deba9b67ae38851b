"""EEG files at the rate of the features, and when each recording of a store was played.

The formats are those that ``mne.io.read_raw`` reads (BrainVision, EDF, BDF, EEGLAB, FIF, …); files in a BIDS
tree are read with their sidecars, so that bad channels, channel types and electrode positions count.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import AnalysisError
from ..store.activations import ActivationStore, Window
from .trf import RATE, Array, Lags, Trial

TIMES = ("onset", "duration")
CHANNELS_AT_ONCE = 8
"""that are held at their full rate"""


class Event(NamedTuple):
    """One presentation of a recording."""

    onset: float
    """seconds into the EEG"""
    duration: float | None
    """seconds that were played; None: all of it"""
    clip: str
    """key of the recording in the store"""


class Eeg(NamedTuple):
    """One file at 50 Hz."""

    data: Array
    """[T, channels] in µV, resampled, not yet filtered"""
    channels: tuple[str, ...]
    positions: dict[str, tuple[float, float, float]]
    """of electrodes, in metres; empty if the file has none"""
    events: tuple[Event, ...]


def read_eeg(
    path: Path, store: ActivationStore, events: Path | None = None, channels: Sequence[str] = ()
) -> Eeg:
    """Read a file, by default its EEG channels that are not bad, and resample it to 50 Hz, anti-aliased.

    Events are those of the table ``events`` (onset, duration, stim_file, tab-separated, as BIDS has it), else
    of the BIDS sidecar, else annotations named like recordings. AnalysisError if the file can't be read, is
    sampled below 50 Hz, holds NaN, lacks a channel, or has no event with a recording of the store.
    """
    raw, sidecar = _open(path)
    rate = float(raw.info["sfreq"])
    if rate < RATE:
        raise AnalysisError(
            f"{path}: sampled at {rate:g} Hz; features are at {RATE} Hz, use EEG of that or more"
        )
    missing = [name for name in channels if name not in raw.ch_names]
    if missing:
        raise AnalysisError(f"{path} has no channel {missing[0]}; it has {', '.join(raw.ch_names)}")
    try:
        raw.pick(list(channels) or "eeg", exclude=() if channels else "bads", verbose="ERROR")
    except ValueError:
        raise AnalysisError(f"{path} has no EEG channels; name some with --channels") from None
    found = _events(path, raw, store, events or sidecar)
    data = np.concatenate(list(_resampled(path, raw, rate)))
    return Eeg(data.T * 1e6, tuple(raw.ch_names), _positions(raw), found)


def band_pass(data: Array, low: float, high: float) -> Array:
    """[T, n] at 50 Hz → its part from ``low`` to ``high`` Hz: mne's zero-phase FIR filter.

    AnalysisError for a band that 50 Hz can't hold.
    """
    import mne

    if not 0 < low < high < RATE / 2:
        raise AnalysisError(f"a band from {low:g} to {high:g} Hz: it must lie between 0 and {RATE / 2:g} Hz")
    filtered: Any = mne.filter.filter_data(data.T.astype(float), RATE, low, high, verbose="ERROR")
    return filtered.T


def envelope(mel: NDArray[np.float16]) -> Array:
    """Log-mel [T, 80] → broadband envelope [T]: amplitude to the power of 0.6, about 0 in silence.

    The compression is that of Biesmans et al. 2017 (doi:10.1109/TNSRE.2016.2571900).
    """
    power = 10 ** (4 * mel.astype(np.float64) - 4)  # Whisper keeps log10(power) / 4 + 1
    return power.mean(1) ** 0.3


def cut(
    eegs: Sequence[Eeg],
    store: ActivationStore,
    predictors: Array,
    lags: Lags,
    band: tuple[float, float],
    folds: int,
) -> list[Trial]:
    """Trials of what was played: predictors [rows, n] put on each EEG's time, both filtered alike, then cut.

    A trial goes on for the longest lag after its recording unless the next one begins. All trials of a
    recording are of one fold, and recordings are dealt out to ``folds`` folds, one each if there are fewer.
    AnalysisError for a trial that is no longer than the longest lag.
    """
    windows = _by_clip(store)
    names = list(dict.fromkeys(event.clip for eeg in eegs for event in eeg.events))
    fold = {clip: i % folds for i, clip in enumerate(names)}
    trials: list[Trial] = []
    for eeg in eegs:
        x, spans = _played(eeg, windows, predictors)
        x, y = band_pass(x, *band), band_pass(eeg.data, *band)
        for i, (event, start, end) in enumerate(spans):
            after = spans[i + 1][1] if i + 1 < len(spans) else len(y)
            end = min(end + lags.last, after, len(y))
            if end - start <= lags.last:
                raise AnalysisError(
                    f"only {max(0, end - start) / RATE:.2f} s of EEG for {event.clip}, played at"
                    f" {event.onset:g} s; remove its event"
                )
            trials.append(Trial(x[start:end], y[start:end], fold[event.clip]))
    return trials


def rows_played(eegs: Sequence[Eeg], store: ActivationStore) -> NDArray[np.bool_]:
    """For each row of the store whether its recording was played: [rows]."""
    played = {event.clip for eeg in eegs for event in eeg.events}
    return np.repeat([w.clip in played for w in store.windows], [w.frames for w in store.windows])


def _played(
    eeg: Eeg, windows: dict[str, list[Window]], predictors: Array
) -> tuple[Array, list[tuple[Event, int, int]]]:
    """Predictors on the EEG's time, 0 where nothing was played, and each event's first and last sample."""
    x = np.zeros((len(eeg.data), predictors.shape[1]))
    spans: list[tuple[Event, int, int]] = []
    for i, event in enumerate(eeg.events):
        start = round(event.onset * RATE)
        last = windows[event.clip][-1]
        length = round(last.start * RATE) + last.frames
        if event.duration is not None:
            length = min(length, round(event.duration * RATE))
        end = min(start + length, len(x))
        if i + 1 < len(eeg.events):
            end = min(end, round(eeg.events[i + 1].onset * RATE))
        for window in windows[event.clip]:
            first = start + round(window.start * RATE)
            count = min(window.frames, end - first)
            if count > 0:
                x[first : first + count] = predictors[window.first : window.first + count]
        spans.append((event, start, end))
    return x, spans


def _by_clip(store: ActivationStore) -> dict[str, list[Window]]:
    found: dict[str, list[Window]] = {}
    for window in sorted(store.windows, key=lambda window: window.start):
        found.setdefault(window.clip, []).append(window)
    return found


def _open(path: Path) -> tuple[Any, Path | None]:
    """An mne Raw, not yet loaded, and its table of events if BIDS has one."""
    try:
        import mne
    except ImportError:
        raise AnalysisError("EEG needs mne: pip install 'whisper-sae-steer[analysis]'") from None
    bids = path.stem.endswith("_eeg") and path.stem.startswith("sub-")
    try:
        if not bids:
            return mne.io.read_raw(path, verbose="ERROR"), None
        import mne_bids

        where: Any = mne_bids.get_bids_path_from_fname(path, verbose="ERROR")
        raw: Any = mne_bids.read_raw_bids(where, verbose="ERROR")
        table: Any = where.find_matching_sidecar(suffix="events", extension=".tsv", on_error="ignore")
        return raw, None if table is None else Path(table)
    except ImportError:
        raise AnalysisError("BIDS needs mne-bids: pip install 'whisper-sae-steer[analysis]'") from None
    except Exception as error:  # the readers of some thirty formats raise what they like
        line = " ".join(str(error).split())[:200]
        raise AnalysisError(f"{path} can't be read as EEG: {line}") from None


def _positions(raw: Any) -> dict[str, tuple[float, float, float]]:
    """Of all channels, or none."""
    montage: Any = raw.get_montage()
    places: dict[str, Any] = {} if montage is None else montage.get_positions()["ch_pos"]
    if not all(name in places and np.isfinite(places[name]).all() for name in raw.ch_names):
        return {}
    return {name: (float(x), float(y), float(z)) for name in raw.ch_names for x, y, z in [places[name]]}


def _resampled(path: Path, raw: Any, rate: float) -> Iterator[Array]:
    """All channels at 50 Hz, some at a time: [channels, T] in V.

    Polyphase, on whole seconds: mne's other method moves a long file's samples by up to half a frame.
    """
    import mne

    seconds = -(-raw.n_times // rate)
    for start in range(0, len(raw.ch_names), CHANNELS_AT_ONCE):
        names = raw.ch_names[start : start + CHANNELS_AT_ONCE]
        data: Array = raw.get_data(picks=names)
        for name, channel in zip(names, data, strict=True):
            if not np.isfinite(channel).all():
                raise AnalysisError(
                    f"{path}: channel {name} has NaN; interpolate it, or leave it out with --channels"
                )
        if rate > RATE:
            data = np.pad(data, ((0, 0), (0, round(seconds * rate) - raw.n_times)), mode="edge")
            data = mne.filter.resample(data, RATE, rate, method="polyphase", verbose="ERROR")
        yield data[:, : int(raw.n_times / rate * RATE)]


def _events(path: Path, raw: Any, store: ActivationStore, table: Path | None) -> tuple[Event, ...]:
    if table is not None:
        rows = _read_table(table)
    else:
        rows = [
            (float(mark["onset"]) - raw.first_time, float(mark["duration"]) or None, str(mark["description"]))
            for mark in raw.annotations
        ]
        clips = {window.clip for window in store.windows}
        rows = [row for row in rows if _matches(row[2], clips)]
    if not rows:
        raise AnalysisError(
            f"{path} doesn't tell when recordings began; give a table with onset, duration and stim_file"
            " in seconds and the store's file names: --events FILE.tsv"
        )
    clips = {window.clip for window in store.windows}
    events: list[Event] = []
    for onset, duration, name in rows:
        found = _matches(name, clips)
        if not found:
            raise AnalysisError(f"{table}: {name} is not in {store.path}; encode it there first")
        if len(found) > 1:
            raise AnalysisError(
                f"{table or path}: {name} may be {found[0]} or {found[1]}; write more of its path"
            )
        events.append(Event(onset, duration, found[0]))
    return tuple(sorted(events, key=lambda event: event.onset))


def _matches(name: str, clips: set[str]) -> list[str]:
    """The recordings whose path ends in that name; BrainVision puts ``Comment/`` before it."""
    name = name.removeprefix("Comment/").removeprefix("Stimulus/")
    if name in clips:
        return [name]
    parts = PurePath(name).parts
    return sorted(clip for clip in clips if parts and PurePath(clip).parts[-len(parts) :] == parts)


def _read_table(table: Path) -> list[tuple[float, float | None, str]]:
    """Onset, duration and file of each row that names one; AnalysisError if it isn't such a table."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AnalysisError(f"{table} can't be read as a table of events: {error}") from None
    if lines and not {"onset", "stim_file"} <= set(lines[0]):
        raise AnalysisError(
            f"{table}: the header must name tab-separated columns onset, duration and stim_file"
        )
    rows: list[tuple[float, float | None, str]] = []
    for number, line in enumerate(lines, 2):
        if line["stim_file"] in (None, "", "n/a"):
            continue
        try:
            times = [float(line[name]) if line.get(name) not in (None, "", "n/a") else 0.0 for name in TIMES]
        except ValueError:
            times = [-1.0]
        if not all(0 <= time < float("inf") for time in times):
            raise AnalysisError(f"{table}, line {number}: onset and duration must be seconds, at least 0")
        rows.append((times[0], times[1] or None, line["stim_file"]))
    return rows
