"""Is the gate's promise kept by speakers nobody calibrated on?

    python benchmarks/promise.py MANIFEST --model base --work windows --out promise-base.json

Speech of a split as calibration takes it: each utterance as it is, in noise of that split and as a piece of
half a second or so. For all recordings and each source: the share of speech that is touched, and the bound
(conformal risk control) it gives for new recordings. Stopped, it goes on with the windows in --work.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from whisper_sae_steer.audio.clips import NONSPEECH_KINDS, read_manifest, select
from whisper_sae_steer.calibrate.guarantee import bound
from whisper_sae_steer.calibrate.windows import encode, plan
from whisper_sae_steer.files import write_text
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.models.weights import resolve
from whisper_sae_steer.steering.operator import Steering
from whisper_sae_steer.steering.pack import load_pack


def main() -> None:
    """Score every window, and print and write what the gate touches."""
    args = _arguments()
    weights = resolve(args.model)
    pack = load_pack(args.pack, weights)
    speech = read_manifest(args.manifest, args.split, "speech", args.source)
    if args.model.endswith(".en"):
        speech = [clip for clip in speech if clip.language == "en"]
    speech = select(speech, args.per_class)
    sounds = select(read_manifest(args.manifest, args.split, NONSPEECH_KINDS), args.per_class)
    recipes = [recipe for recipe in plan(sounds, speech, 0, 0) if recipe.clip in speech]
    windows = [w for w in encode(WindowEncoder(weights), recipes, args.work) if w.speech.any()]
    steering = Steering(pack)
    scores: dict[str, NDArray[np.float32]] = {
        window.key: steering.scores(window.frames()[None])[0].numpy() for window in windows
    }
    parts = {"all": windows}
    for source in sorted({window.source for window in windows}):
        parts[source] = [window for window in windows if window.source == source]
    found = {name: bound(part, scores, pack.metadata)._asdict() for name, part in parts.items()}
    write_text(args.out, json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--source", nargs="+", help="of the speech; default: all")
    parser.add_argument("--model", default="base")
    parser.add_argument("--pack", default="auto")
    parser.add_argument("--per_class", type=int, default=1000, help="clips of each source and class")
    parser.add_argument("--work", type=Path, required=True, help="folder for encoded windows")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
