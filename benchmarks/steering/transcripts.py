"""Record the transcripts of clips in every setting, to compare two versions byte for byte.

    python -m benchmarks.steering.transcripts MANIFEST --out before.jsonl
    python -m benchmarks.steering.transcripts MANIFEST --out after.jsonl --compare before.jsonl

One JSON line for each model, back end, clip and setting, with all digits of every number. Of equal clips,
models and back ends, on the same machine with the same number of threads, a version that changes nothing
writes the same file. --compare prints the rows that differ; the exit status is 1 if there are any.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from whisper_sae_steer import load_model
from whisper_sae_steer.audio.clips import NONSPEECH_KINDS, Clip, read_manifest, select
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.faster import WhisperModel
from whisper_sae_steer.files import write_atomically

from ..arguments import script_parser
from ..selection import known_to
from .modes import Mode, transcribe

Run = Callable[[NDArray[np.float32]], object]
"""from samples [n] at 16 kHz to all that the library says of them"""

FASTER: Mapping[str, tuple[float, Mode]] = {
    "α = 0": (0.0, Mode({})),
    "α = 0.5": (0.5, Mode({})),
    "α = 1": (1.0, Mode({})),
    "α = 1, words": (1.0, Mode({"word_timestamps": True})),
    "α = 1, gaps not skipped": (1.0, Mode({"skip_gaps": False})),
    "α = 1, without timestamps": (1.0, Mode({"without_timestamps": True})),
    "batched, α = 0": (0.0, Mode({}, batched=True)),
    "batched, α = 1": (1.0, Mode({}, batched=True)),
    "batched without VAD, α = 1": (1.0, Mode({"vad_filter": False}, batched=True)),
    "batched without VAD, α = 0.5, words": (
        0.5,
        Mode({"vad_filter": False, "word_timestamps": True}, batched=True),
    ),
}
OPENAI: Mapping[str, dict[str, Any]] = {
    "α = 0": {"steer_alpha": 0.0},
    "α = 0.5": {"steer_alpha": 0.5},
    "α = 1": {"steer_alpha": 1.0},
    "α = 1, words": {"steer_alpha": 1.0, "word_timestamps": True},
}
TEMPERATURES = (0.0, 0.4)
"""of openai-whisper: one fallback, as each decodes the window again"""


def main() -> int:
    """Record all rows, and compare them with those of another version if asked to."""
    parser = script_parser(
        __doc__, "manifest", "--split", "--compute_type", "--threads", "--out", per_class=2
    )
    parser.add_argument("--model", nargs="+", default=["tiny.en", "base"])
    parser.add_argument("--backend", nargs="+", choices=list(BACKENDS), default=list(BACKENDS))
    parser.add_argument("--longest", type=float, default=40, help="seconds of a clip, at most")
    parser.add_argument("--compare", type=Path, metavar="OTHER", help="file that an earlier run wrote")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    # Once: a thread of CTranslate2 takes the seed when it first draws, and later seeds don't reach it.
    ctranslate2.set_random_seed(0)
    read = read_manifest(args.manifest, args.split, ("speech", *NONSPEECH_KINDS))
    clips = select([clip for clip in read if (clip.seconds or 0) <= args.longest], args.per_class)
    with write_atomically(args.out) as part, part.open("w", encoding="utf-8") as lines:
        for model in args.model:
            for backend in args.backend:
                runs = BACKENDS[backend](model, args.compute_type, args.threads)
                for row in record(runs, known_to(model, clips), f"{model}, {backend}"):
                    lines.write(as_line({"model": model, "backend": backend, **row}) + "\n")
    return report(differences(args.out, args.compare)) if args.compare else 0


def faster_runs(model: str, compute_type: str, threads: int) -> dict[str, Run]:
    """faster-whisper's sequential and batched pipelines."""
    loaded = WhisperModel(model, compute_type=compute_type, cpu_threads=threads)

    def run(alpha: float, mode: Mode, audio: NDArray[np.float32]) -> object:
        segments, information = transcribe(loaded, mode, audio, alpha)
        return {
            "segments": [asdict(segment) for segment in segments],
            "language": information.language,
            "language_probability": information.language_probability,
        }

    return {name: partial(run, alpha, mode) for name, (alpha, mode) in FASTER.items()}


def openai_runs(model: str, _compute_type: str, _threads: int) -> dict[str, Run]:
    """openai-whisper on the CPU, in float32."""
    loaded = load_model(model, device="cpu")

    def run(options: dict[str, Any], audio: NDArray[np.float32]) -> object:
        return loaded.transcribe(audio, temperature=TEMPERATURES, fp16=False, **options)

    return {name: partial(run, options) for name, options in OPENAI.items()}


BACKENDS: Mapping[str, Callable[[str, str, int], dict[str, Run]]] = {
    "faster": faster_runs,
    "openai": openai_runs,
}


def record(runs: Mapping[str, Run], clips: Sequence[Clip], name: str) -> Iterator[dict[str, object]]:
    """A row for each clip and setting; where the library raises, its error is the result."""
    for clip in tqdm(clips, name, unit="clip"):
        audio = load_audio(clip.path)
        for setting, run in runs.items():
            torch.manual_seed(0)  # of openai-whisper's samples, so that no run depends on those before it
            try:
                result = run(audio)
            except Exception as error:  # that a version refuses a clip is part of what it does
                result = {"error": f"{type(error).__name__}: {error}"}
            yield {"clip": clip.key, "setting": setting, "result": result}


def as_line(row: Mapping[str, object]) -> str:
    """A row as JSON in which equal results are equal text."""
    return json.dumps(row, ensure_ascii=False, sort_keys=True, default=_plain)


def _plain(value: Any) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not expected in a transcript")


def differences(ours: Path, theirs: Path) -> list[str]:
    """What each row is called that isn't the same in both files, and how it differs."""
    mine, other = _read(ours), _read(theirs)
    found: list[str] = []
    for name in {**other, **mine}:
        if name not in other or name not in mine:
            found.append(f"{name}: only in {ours if name in mine else theirs}")
        elif mine[name] != other[name]:
            found.append(f"{name}: differs")
    return found


def _read(path: Path) -> dict[str, str]:
    """Results, as the text they are compared by, under the name of their row."""
    results: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        name = f"{row['model']}, {row['backend']}, {row['setting']}, {row['clip']}"
        results[name] = as_line(row["result"])
    return results


def report(found: Sequence[str]) -> int:
    """Print what differs; the exit status."""
    for line in found:
        print(line)
    print(f"{len(found)} rows differ" if found else "every row is the same")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
