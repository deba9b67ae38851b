"""What steering adds to a whole transcribe: the same clips at α = 0 and 1 in turn, as ratios.

    python -m benchmarks.speed.latency MANIFEST --split dev --model base --compute_type int8 --clips 20

CPU time (all threads of the process) is what the edit costs; wall time also depends on what else runs. Of a
clip's repeats the fastest counts, as others were disturbed.
"""

import json
import time
from collections.abc import Sequence
from itertools import product

import ctranslate2
import numpy as np

from whisper_sae_steer.audio.clips import NONSPEECH_KINDS, read_manifest
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.faster import WhisperModel
from whisper_sae_steer.reports.metrics import bootstrap_difference

from ..arguments import script_parser
from ..selection import some_of_each, within_a_window

KINDS = {"speech": ("speech",), "nonspeech": NONSPEECH_KINDS}


def main() -> None:
    """Measure speech and non-speech and print one JSON line for each."""
    parser = script_parser(__doc__, "manifest", "--split", "--model", "--compute_type", "--threads")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--give_language", action="store_true", help="rather than have it detected")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    ctranslate2.set_random_seed(0)
    model = WhisperModel(args.model, compute_type=args.compute_type, cpu_threads=args.threads)
    for name in args.kinds:
        clips = within_a_window(read_manifest(args.manifest, args.split, KINDS[name]))
        chosen = some_of_each(clips, args.clips)
        languages = [clip.language or "en" if args.give_language else None for clip in chosen]
        audio = [load_audio(clip.path) for clip in chosen]
        found = measure(model, audio, languages, args.repeats)
        print(json.dumps({"clips": name, "model": args.model, "given": args.give_language, **found}))


def measure(
    model: WhisperModel, clips: Sequence[np.ndarray], languages: Sequence[str | None], repeats: int
) -> dict[str, object]:
    """Ratios of CPU and wall time, α = 1 to α = 0, with a bootstrap interval of the CPU ratio."""
    cpu, wall = (np.full((2, len(clips)), np.inf) for _ in range(2))
    for turn, (i, audio) in product(range(repeats), enumerate(clips)):
        for alpha in (1, 0) if (turn + i) % 2 else (0, 1):
            started, worked = time.perf_counter(), time.process_time()
            list(model.transcribe(audio, language=languages[i], steer_alpha=float(alpha))[0])
            cpu[alpha, i] = min(cpu[alpha, i], time.process_time() - worked)
            wall[alpha, i] = min(wall[alpha, i], time.perf_counter() - started)
    change = bootstrap_difference(cpu[1], cpu[0], weights=cpu[0])
    return {
        "n": len(clips),
        "repeats": repeats,
        "cpu_ratio": round(float(cpu[1].sum() / cpu[0].sum()), 4),
        "cpu_interval": [round(1 + change.low, 4), round(1 + change.high, 4)],
        "wall_ratio": round(float(wall[1].sum() / wall[0].sum()), 4),
    }


if __name__ == "__main__":
    main()
