"""Is the gate's promise kept by speakers nobody calibrated on?

    python -m benchmarks.steering.promise MANIFEST --model base --work windows --out base-promise.json

Speech of a split as calibration takes it: each utterance as it is, in noise of that split and as a piece of
half a second or so. For all recordings and each source: the share of speech that is touched, and the bound
(conformal risk control) it gives for new recordings. Stopped, it goes on with the windows in --work.
"""

import numpy as np
from numpy.typing import NDArray

from whisper_sae_steer.calibrate.guarantee import bound
from whisper_sae_steer.calibrate.windows import encode, plan
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.models.weights import resolve
from whisper_sae_steer.steering.operator import Operator
from whisper_sae_steer.steering.pack import load_pack

from ..arguments import script_parser
from ..results import as_json, write_results
from ..selection import select_sounds, select_speech


def main() -> None:
    """Score every window, and print and write what the gate touches."""
    parser = script_parser(
        __doc__, "manifest", "--split", "--source", "--model", "--pack", "--work", "--out", per_class=1000
    )
    args = parser.parse_args()
    weights = resolve(args.model)
    pack = load_pack(args.pack, weights)
    speech = select_speech(args.manifest, args.split, args.per_class, args.source, args.model)
    sounds = select_sounds(args.manifest, args.split, args.per_class)
    recipes = [recipe for recipe in plan(sounds, speech, 0, 0) if recipe.clip in speech]
    windows = [w for w in encode(WindowEncoder(weights), recipes, args.work) if w.speech.any()]
    steering = Operator(pack)
    scores: dict[str, NDArray[np.float32]] = {
        window.key: steering.scores(window.frames()[None])[0].numpy() for window in windows
    }
    parts = {"all": windows}
    for source in sorted({window.source for window in windows}):
        parts[source] = [window for window in windows if window.source == source]
    found = {name: bound(part, scores, pack.metadata.levels)._asdict() for name, part in parts.items()}
    write_results(args.out, found)
    print(as_json(found))


if __name__ == "__main__":
    main()
