"""The gate that exported weights hold, beside the hook's, on speech and sounds that neither was fitted on.

    python benchmarks/export_gate.py MANIFEST --model base --work windows --out base-export-gate.json

For each kind of window: how many there are, how many either gate edits at all, and how many the exported
one edits in full. And by how much folding changes frames of speech. Stopped, it goes on with the windows in
--work.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from whisper_sae_steer.audio.clips import NONSPEECH_KINDS, Clip, read_manifest, select
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.units import WINDOW_SAMPLES
from whisper_sae_steer.calibrate.pooled import worth
from whisper_sae_steer.calibrate.windows import Window, encode, plan, words_in_noise
from whisper_sae_steer.export import fold
from whisper_sae_steer.files import write_text
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.models.weights import Weights, resolve
from whisper_sae_steer.steering.operator import Steering
from whisper_sae_steer.steering.pack import SteeringPack, load_pack

CHANGED = 12
"""utterances of which the change is measured"""


def main() -> None:
    """Judge every window by both gates; print and write the counts."""
    args = _arguments()
    weights = resolve(args.model)
    pack = load_pack(args.pack, weights)
    sounds = select(read_manifest(args.manifest, args.split, NONSPEECH_KINDS), args.per_class)
    speech = select(read_manifest(args.manifest, args.split, "speech", args.source), args.per_class)
    if args.model.endswith(".en"):
        speech = [clip for clip in speech if clip.language == "en"]
    recipes = [*plan(sounds, speech, 0, args.seed), *words_in_noise(sounds, speech, args.seed)]
    made_by = {recipe.key: recipe for recipe in recipes}
    kinds: dict[str, list[Window]] = {}
    encoder = WindowEncoder(weights)
    for window in encode(encoder, recipes, args.work):
        recipe, kind = made_by[window.key], "sounds"
        if window.is_speech:
            kind = "utterances in noise" if recipe.noise else "pieces" if recipe.short else "utterances"
            if recipe.at is not None:
                kind = f"words in 30 s of noise, {recipe.snr:g} dB"
        if window.speech.any() or not window.is_speech:
            kinds.setdefault(kind, []).append(window)
    found = {kind: judge(pack, windows) for kind, windows in kinds.items()}
    text = json.dumps(
        {**found, "change of frames": change(encoder, weights, pack, speech[:CHANGED])}, indent=1
    )
    write_text(args.out, text + "\n")
    print(text)


def judge(pack: SteeringPack, windows: Sequence[Window]) -> dict[str, float]:
    """Counts of windows, and the quantiles of what the exported gate finds them worth."""
    assert pack.pooled is not None
    steering, found = Steering(pack), worth(pack.pooled, windows)
    scores = np.array([float(steering.scores(w.frames()[None]).max()) for w in windows])
    return {
        "windows": len(windows),
        "edited by the hook": int((scores < pack.metadata.gate_threshold).sum()),
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--source", nargs="+", help="of the speech; default: all")
    parser.add_argument("--model", default="base")
    parser.add_argument("--pack", default="auto")
    parser.add_argument("--per_class", type=int, default=60, help="clips of each source and class")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--work", type=Path, required=True, help="folder for encoded windows")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
