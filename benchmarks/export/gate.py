"""The gate that exported weights hold, beside the hook's, on speech and sounds that neither was fitted on.

    python -m benchmarks.export.gate MANIFEST --model base --work windows --out base-export-gate.json

For each kind of window: how many there are, how many either gate edits at all, and how many the exported
one edits in full. And by how much folding changes frames of speech. Stopped, it goes on with the windows in
--work.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import torch

from whisper_sae_steer.audio.clips import Clip
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.units import WINDOW_SAMPLES
from whisper_sae_steer.calibrate.export_gate import speech_evidence
from whisper_sae_steer.calibrate.windows import CalibrationWindow, encode, plan, words_in_noise
from whisper_sae_steer.export import fold
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.models.weights import Weights, resolve
from whisper_sae_steer.steering.operator import Operator
from whisper_sae_steer.steering.pack import SteeringPack, load_pack

from ..arguments import script_parser
from ..results import as_json, write_results
from ..selection import select_sounds, select_speech

CHANGED = 12
"""utterances of which the change is measured"""


def main() -> None:
    """Judge every window by both gates; print and write the counts."""
    args = _arguments()
    weights = resolve(args.model)
    pack = load_pack(args.pack, weights)
    sounds = select_sounds(args.manifest, args.split, args.per_class)
    speech = select_speech(args.manifest, args.split, args.per_class, args.source, args.model)
    recipes = [*plan(sounds, speech, 0, args.seed), *words_in_noise(sounds, speech, args.seed)]
    made_by = {recipe.key: recipe for recipe in recipes}
    kinds: dict[str, list[CalibrationWindow]] = {}
    encoder = WindowEncoder(weights)
    for window in encode(encoder, recipes, args.work):
        recipe, kind = made_by[window.key], "sounds"
        if window.is_speech:
            kind = "utterances in noise" if recipe.noise else "pieces" if recipe.short else "utterances"
            if recipe.at is not None:
                kind = f"words in 30 s of noise, {recipe.snr:g} dB"
        if window.speech.any() or not window.is_speech:
            kinds.setdefault(kind, []).append(window)
    found: dict[str, object] = {kind: judge(pack, windows) for kind, windows in kinds.items()}
    found["change of frames"] = change(encoder, weights, pack, speech[:CHANGED])
    write_results(args.out, found)
    print(as_json(found))


def judge(pack: SteeringPack, windows: Sequence[CalibrationWindow]) -> dict[str, float]:
    """Counts of windows, and how the exported gate's values are spread: about 0 with speech, −1 without."""
    assert pack.pooled is not None
    steering, found = Operator(pack), speech_evidence(pack.pooled, windows)
    scores = np.array([float(steering.scores(w.frames()[None]).max()) for w in windows])
    return {
        "windows": len(windows),
        "edited by the hook": int((scores < pack.metadata.levels.threshold).sum()),
        "edited by the export": int((found < float(pack.pooled.shut)).sum()),
        "in full": int((found < float(pack.pooled.full)).sum()),
        "lowest": round(float(found.min()), 3),
        "mean": round(float(found.mean()), 3),
        "deviation": round(float(found.std()), 3),
        "highest": round(float(found.max()), 3),
    }


@torch.no_grad()
def change(encoder: WindowEncoder, weights: Weights, pack: SteeringPack, clips: Sequence[Clip]) -> float:
    """Mean of the norm of the change over that of the frames, in float32."""
    plain = load_torch(weights)
    folded = fold(plain, pack)
    changes: list[float] = []
    for clip in clips:
        mel = torch.from_numpy(encoder.mel(load_audio(clip.path)[:WINDOW_SAMPLES]))[None]
        before = plain.embed_audio(mel)
        changes.append(float((folded.embed_audio(mel) - before).norm() / before.norm()))
    return round(float(np.mean(changes)), 6)


def _arguments() -> argparse.Namespace:
    parser = script_parser(
        __doc__, "manifest", "--split", "--source", "--model", "--pack", "--work", "--out", per_class=60
    )
    parser.add_argument("--seed", type=int, default=7)
    return parser.parse_args()


if __name__ == "__main__":
    main()
