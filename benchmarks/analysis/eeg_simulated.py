"""EEG whose response is known, made of a real store's features: does `analyze eeg` find it again?

    python -m benchmarks.analysis.eeg_simulated STORE --drive 17 203 --others 5 99 310 --out runs/eeg

Each driving feature has its own response at its own channels; the other channels hold only pink noise, and
the other features drive nothing, though they may fire with those that do. Writes the EEG (BIDS, BrainVision
at 250 Hz), runs the command on it and prints one JSON object: what was found, missed and found wrongly.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mne
import mne_bids
import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from whisper_sae_steer.analysis.eeg.trf import RATE
from whisper_sae_steer.analysis.results import read_result
from whisper_sae_steer.analysis.store.activations import ActivationStore
from whisper_sae_steer.cli import main as command

from ..arguments import script_parser
from ..results import as_json, write_results

Array = NDArray[np.float64]
SAMPLED = 250
GAP = 1.5
"""seconds between recordings"""
LAGS = 26


class Response(NamedTuple):
    """Of one driving feature."""

    feature: int
    kernel: Array
    """[26]: 0 to 500 ms"""
    channels: list[str]


class Simulated(NamedTuple):
    """EEG, and what is in it."""

    raw: Any
    """mne's, with an annotation a recording"""
    events: list[tuple[float, float, str]]
    """onset, duration, recording"""
    responses: list[Response]


def simulate(
    store: ActivationStore,
    drive: Sequence[int],
    channels: int,
    snr: float,
    seed: int = 0,
    sae: str | None = None,
) -> Simulated:
    """EEG of somebody who hears each recording of the store once, in random order.

    The first half of the channels respond, each to one driving feature in turn. ``snr`` is the response's
    power over that of the noise, from 1 to 15 Hz, in dB.
    """
    rng = np.random.default_rng(seed)
    montage: Any = mne.channels.make_standard_montage("biosemi64")
    names: list[str] = montage.ch_names[:channels]
    values = store.features(sae)[:, list(drive)].toarray()
    clips: dict[str, list[Any]] = {}
    for window in store.windows:
        clips.setdefault(window.clip, []).append(window)
    order = [list(clips)[i] for i in rng.permutation(len(clips))]
    events: list[tuple[float, float, str]] = []
    parts: list[Array] = [np.zeros((round(GAP * RATE), len(drive)))]
    for clip in order:
        x = np.concatenate([values[w.first : w.first + w.frames] for w in clips[clip]])
        events.append((sum(map(len, parts)) / RATE, len(x) / RATE, clip))
        parts += [x, np.zeros((round(GAP * RATE), len(drive)))]
    x = np.concatenate(parts)
    kernels = [kernel(i) for i in range(len(drive))]
    data = pink(rng, len(x) * SAMPLED // RATE, channels)
    responding = names[: channels // 2]
    for i, name in enumerate(responding):
        which = i % len(drive)
        y = np.convolve(x[:, which], kernels[which])[: len(x)]
        y = resample_poly(y, SAMPLED // RATE, 1)
        data[:, names.index(name)] += y * 10 ** (snr / 20) / in_band(y)
    info: Any = mne.create_info(names, SAMPLED, "eeg")
    raw: Any = mne.io.RawArray(5e-6 * data.T, info, verbose="ERROR")
    raw.set_montage(montage)
    raw.set_annotations(mne.Annotations(*zip(*events, strict=True)))
    found = [Response(f, kernels[i], responding[i :: len(drive)]) for i, f in enumerate(drive)]
    return Simulated(raw, events, found)


def kernel(number: int) -> Array:
    """[26]: a positive and a negative wave, each kernel at other lags."""
    t = np.arange(LAGS) / RATE
    peak = 0.08 + 0.05 * number
    return np.exp(-(((t - peak) / 0.03) ** 2)) - 0.8 * np.exp(-(((t - peak - 0.1) / 0.04) ** 2))


def pink(rng: np.random.Generator, length: int, channels: int) -> Array:
    """[length, channels]: noise whose power falls with frequency, power 1 from 1 to 15 Hz."""
    spectrum = np.fft.rfft(rng.normal(size=(length, channels)), axis=0)
    frequency = np.fft.rfftfreq(length, 1 / SAMPLED)
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequency, 0.2))[:, None], length, axis=0)
    return noise / in_band(noise)


def in_band(y: Array) -> Array:
    """Root mean square from 1 to 15 Hz of each column."""
    return mne.filter.filter_data(y.T, SAMPLED, 1, 15, verbose="ERROR").std(-1)


def write_events(path: Path, events: Sequence[tuple[float, float, str]]) -> None:
    """As BIDS has them."""
    lines = ["onset\tduration\tstim_file", *(f"{onset}\t{length}\t{clip}" for onset, length, clip in events)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_bids(simulated: Simulated, root: Path) -> Path:
    """BrainVision in a BIDS tree; returns the file that the command takes."""
    where = mne_bids.BIDSPath(subject="01", task="listening", datatype="eeg", root=root)
    written: Any = mne_bids.write_raw_bids(
        simulated.raw, where, format="BrainVision", allow_preload=True, overwrite=True, verbose="ERROR"
    )
    write_events(written.directory / "sub-01_task-listening_events.tsv", simulated.events)
    return Path(written.fpath)


def judge(result: dict[str, Any], responses: Sequence[Response], of: str) -> dict[str, Any]:
    """Pairs of feature and channel with q < 0.05, beside those that are truly there, and the kernels."""
    true = {(r.feature, channel) for r in responses for channel in r.channels}
    found: set[tuple[int, str]] = set()
    tested = 0
    correlations: list[float] = []
    truth = {(r.feature, c): r.kernel for r in responses for c in r.channels}
    for response in result["responses"]:
        if response["feature"] is None or response[of] is None:
            continue
        for i, channel in enumerate(result["channels"]):
            tested += 1
            pair = response["feature"], channel
            if response[of]["q"][i] < 0.05:
                found.add(pair)
            if pair in truth:
                correlations.append(float(np.corrcoef(response["kernel"][i], truth[pair])[0, 1]))
    null = set(result["channels"]) - {channel for _, channel in true}
    return {
        "tested": tested,
        "true": len(true),
        "found": len(found & true),
        "found wrongly": len(found - true),
        "of them at channels without a response": sum(channel in null for _, channel in found - true),
        "false discovery proportion": round(len(found - true) / max(1, len(found)), 4),
        "kernel r, lowest": round(min(correlations), 4),
        "kernel r, median": round(float(np.median(correlations)), 4),
    }


def main() -> None:
    """Simulate, run the command, print what it recovered."""
    parser = script_parser(__doc__, "--out")
    parser.add_argument("store", type=Path)
    parser.add_argument("--sae")
    parser.add_argument("--drive", nargs="+", type=int, required=True, help="features that drive the EEG")
    parser.add_argument("--others", nargs="+", type=int, default=[], help="features that don't")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--snr", type=float, default=-10, help="dB, 1 to 15 Hz")
    parser.add_argument("--n_permutations", type=int, default=1000)
    parser.add_argument("--over", default="others", choices=("envelope", "others"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    store = ActivationStore.open(args.store)
    simulated = simulate(store, args.drive, args.channels, args.snr, args.seed, args.sae)
    file = write_bids(simulated, args.out / "bids")
    features = [str(i) for i in [*args.drive, *args.others]]
    began = time.monotonic()
    options = {"over": args.over, "n_permutations": args.n_permutations, "out": args.out}
    options |= {"sae": args.sae} if args.sae else {}
    given = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    failed = command(["analyze", "eeg", str(args.store), str(file), "--features", *features, *given])
    if failed:
        sys.exit(failed)
    seconds = time.monotonic() - began
    result = read_result(args.out, "eeg")
    found = {
        "minutes": round(result["minutes"], 1), "channels": args.channels, "snr dB": args.snr,
        "features": len(features), "n_permutations": args.n_permutations, "seconds": round(seconds, 1),
        "alone": judge(result, simulated.responses, "alone"),
        f"beyond {args.over}": judge(result, simulated.responses, "gain"),
    }  # fmt: skip
    write_results(args.out / "eeg_simulated.json", found)
    print(as_json(found))


if __name__ == "__main__":
    main()
