"""Does a gate hold for other compute types and other languages than it was calibrated on?

    python -m benchmarks.steering.gate_shift MANIFEST --model base --out base-gate-shift.json

The highest score of a window decides whether it is steered. For each compute type: by how much that score
moves against float32, in logits, beside the distance of the threshold from noise and from speech. For each
language: the lowest scores of its first windows.
"""

import argparse
from typing import Any

import ctranslate2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from whisper_sae_steer.audio.clips import NONSPEECH_KINDS, Clip, read_manifest, select
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.units import WINDOW_SAMPLES
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.models.weights import Weights, resolve
from whisper_sae_steer.steering.operator import Operator
from whisper_sae_steer.steering.pack import load_pack

from ..arguments import script_parser
from ..results import as_json, write_results
from ..selection import known_to


def main() -> None:
    """Score first windows in every compute type and print and write what was found."""
    args = _arguments()
    weights = resolve(args.model)
    pack = load_pack(args.pack, weights)
    clips = select(read_manifest(args.manifest, args.split, ("speech", *NONSPEECH_KINDS)), args.per_class)
    clips = known_to(args.model, clips)
    steering = Operator(pack)
    scores = {kind: highest(weights, clips, kind, steering, args.threads) for kind in args.compute_types}
    levels = pack.metadata.levels
    found: dict[str, Any] = {
        "threshold": levels.threshold,
        "highest_noise": levels.noise_ceiling,
        "lowest_speech": levels.speech_floor,
        "windows": len(clips),
        "shift": {kind: _shift(scores["float32"], of, levels.threshold) for kind, of in scores.items()},
        "languages": _languages(clips, scores["float32"]),
    }
    write_results(args.out, found)
    print(as_json(found))


def _arguments() -> argparse.Namespace:
    parser = script_parser(
        __doc__, "manifest", "--split", "--model", "--pack", "--threads", "--out", per_class=12
    )
    parser.add_argument("--compute_types", nargs="+", default=["float32", "int8"], help="float32 among them")
    return parser.parse_args()


def highest(
    weights: Weights, clips: list[Clip], compute_type: str, steering: Operator, threads: int
) -> NDArray[np.float64]:
    """Highest smoothed score of each clip's first window."""
    mel = WindowEncoder(weights).mel
    model = ctranslate2.models.Whisper(str(weights.ct2_dir), compute_type=compute_type, intra_threads=threads)
    scores: list[float] = []
    for clip in tqdm(clips, compute_type, unit="clip"):
        features = ctranslate2.StorageView.from_array(mel(load_audio(clip.path)[:WINDOW_SAMPLES])[None])
        frames = torch.from_numpy(np.array(model.encode(features, to_cpu=True))).float()
        scores.append(float(steering.scores(frames).amax()))
    return np.array(scores)


def _shift(before: NDArray[np.float64], after: NDArray[np.float64], threshold: float) -> dict[str, float]:
    moved = np.abs(after - before)
    return {
        "median": float(np.median(moved)),
        "95%": float(np.quantile(moved, 0.95)),
        "largest": float(moved.max()),
        "across the threshold": int(((before < threshold) != (after < threshold)).sum()),
    }


def _languages(clips: list[Clip], scores: NDArray[np.float64]) -> dict[str, dict[str, float]]:
    """Of speech: windows, lowest score, lowest tenth and median."""
    languages = np.array([clip.language if clip.kind == "speech" else "" for clip in clips])
    found: dict[str, dict[str, float]] = {}
    for language in sorted(set(languages) - {""}):
        of = scores[languages == language]
        lowest, tenth, median = np.quantile(of, [0.0, 0.1, 0.5]).tolist()
        found[str(language)] = {"windows": len(of), "lowest": lowest, "10%": tenth, "median": median}
    return found


if __name__ == "__main__":
    main()
