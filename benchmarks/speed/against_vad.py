"""Time of a whole transcribe: unsteered, with Silero VAD in front, and ours, on the same recordings in turn.

    whisper-sae-steer bench hard CLIPS --conditions gaps silent-gaps music-gaps --out hard/
    python -m benchmarks.speed.against_vad hard/manifest.tsv CLIPS --model base tiny.en --out against_vad.json

Recordings are grouped by the class that their manifest gives them; half an hour is made of all of them. Times
are CPU seconds of all threads, the language given, and ratios to VAD of the same recordings; each way goes
first in turn. OUT.svg shows the time a minute against the share of silence. The peak memory of half an hour
is that of a process of its own, above the loaded model.
"""

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ctranslate2
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from whisper_sae_steer.audio.clips import NONSPEECH_KINDS, read_manifest, select
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.units import SAMPLE_RATE
from whisper_sae_steer.faster import WhisperModel

from ..arguments import script_parser
from ..results import write_results
from ..selection import known_to

WAYS: Mapping[str, Mapping[str, Any]] = {
    "unsteered": {"steer_alpha": 0.0},
    "vad": {"steer_alpha": 0.0, "vad_filter": True},
    "ours": {},
}
"""and the options of transcribe"""
LONG_SECONDS = 1800


class Recording(NamedTuple):
    """Audio of some group."""

    group: str
    audio: NDArray[np.float32]
    language: str
    silence: float
    """share of it in which nobody speaks, as far as the manifest tells"""


def main() -> None:
    parser = script_parser(__doc__, "--compute_type", "--out", split=None, per_class=6)
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--model", nargs="+", default=["base", "tiny.en"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument(
        "--memory", choices=list(WAYS), help="print what half an hour takes this way, no more"
    )
    args = parser.parse_args()
    found: list[dict[str, Any]] = []
    for name in args.model:
        recordings = list(read(args.manifests, args.split, args.per_class, name))
        for threads in args.threads:
            model = WhisperModel(name, device="cpu", compute_type=args.compute_type, cpu_threads=threads)
            if args.memory:
                print(json.dumps(peak(model, recordings, WAYS[args.memory])))
                return
            times = measure(model, recordings)
            found += [{"model": name, "threads": threads, **row} for row in summary(recordings, times)]
            for row in found[-len({r.group for r in recordings}) :]:
                print(json.dumps(row))
            plot(recordings, times, args.out.with_name(f"{args.out.stem}-{name}-{threads}.svg"))
    memory = {way: _in_process(way) for way in WAYS}
    write_results(args.out, {"compute_type": args.compute_type, "times": found, "peak_mib": memory})


def read(manifests: Sequence[Path], split: str | None, per_class: int, model: str) -> Iterator[Recording]:
    """Clips of each class of each manifest, and half an hour of all of them."""
    all_audio: list[NDArray[np.float32]] = []
    for clip in [
        clip
        for manifest in manifests
        for clip in select(known_to(model, read_manifest(manifest, split)), per_class)
    ]:
        audio = load_audio(clip.path)
        quiet = (
            1.0
            if clip.kind in NONSPEECH_KINDS
            else sum(e - s for s, e in clip.gaps) / (len(audio) / SAMPLE_RATE)
        )
        group = "sounds" if clip.kind in NONSPEECH_KINDS else clip.class_
        all_audio.append(audio)
        yield Recording(group, audio, clip.language or "en", quiet)
    joined = np.concatenate(all_audio)[: LONG_SECONDS * SAMPLE_RATE]
    yield Recording("half an hour", joined, "en", np.nan)


def measure(model: WhisperModel, recordings: Sequence[Recording]) -> NDArray[np.float64]:
    """CPU seconds [recordings, ways]."""
    ctranslate2.set_random_seed(0)
    times = np.zeros((len(recordings), len(WAYS)))
    for i, recording in enumerate(tqdm(recordings, unit="recording")):
        for j in np.roll(range(len(WAYS)), i):
            worked = time.process_time()
            list(transcribed(model, recording, list(WAYS.values())[j]))
            times[i, j] = time.process_time() - worked
    return times


def transcribed(model: WhisperModel, recording: Recording, options: Mapping[str, Any]) -> Iterator[Any]:
    yield from model.transcribe(recording.audio, language=recording.language, **options)[0]


def summary(recordings: Sequence[Recording], times: NDArray[np.float64]) -> list[dict[str, Any]]:
    """A row for each group."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, recording in enumerate(recordings):
        groups[recording.group].append(i)
    rows: list[dict[str, Any]] = []
    for group, members in groups.items():
        seconds = dict(zip(WAYS, times[members].sum(0), strict=True))
        minutes = sum(len(recordings[i].audio) for i in members) / SAMPLE_RATE / 60
        rows.append(
            {
                "group": group,
                "recordings": len(members),
                "minutes": round(minutes, 1),
                **{way: round(spent, 2) for way, spent in seconds.items()},
                "ours_to_vad": round(seconds["ours"] / seconds["vad"], 3),
                "ours_to_unsteered": round(seconds["ours"] / seconds["unsteered"], 3),
            }
        )
    return rows


def peak(model: WhisperModel, recordings: Sequence[Recording], options: Mapping[str, Any]) -> float:
    """MiB above the loaded model that the longest recording takes at most."""
    longest = max(recordings, key=lambda recording: len(recording.audio))
    list(transcribed(model, longest._replace(audio=longest.audio[:SAMPLE_RATE]), options))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak so far is that of loading
    before = _memory_mib("VmRSS")
    list(transcribed(model, longest, options))
    return round(_memory_mib("VmHWM") - before, 1)


def _memory_mib(name: str) -> float:
    """A figure of Linux's for this process: VmRSS is what it holds, VmHWM the most it has held."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024


def _in_process(way: str) -> float:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.against_vad", *sys.argv[1:], "--memory", way],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return float(run.stdout.splitlines()[-1])


def plot(recordings: Sequence[Recording], times: NDArray[np.float64], path: Path) -> None:
    """CPU seconds a minute against the share of silence, a point for each recording and way."""
    figure, axes = plt.subplots(figsize=(6, 4))
    minutes = np.array([len(recording.audio) for recording in recordings]) / SAMPLE_RATE / 60
    silence = np.array([recording.silence for recording in recordings])
    for j, way in enumerate(WAYS):
        axes.plot(100 * silence, times[:, j] / minutes, ".", label=way)
    axes.set(xlabel="share without speech (%)", ylabel="CPU seconds a minute", yscale="log")
    axes.legend()
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    main()
