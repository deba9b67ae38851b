"""Short words against sounds, at every threshold that a gate could have, and what Silero VAD does with them.

    python -m benchmarks.steering.short_words MANIFEST --model base --work windows --out base-short-words.json

Of utterances of at most 3 s with one or two words, those that a gate would leave to the edit; of sounds,
those that it would let pass. Both for the pack's own score, and for the gate that exported weights hold.
What passes needn't become text, and what is edited is decoded first where the gate is in doubt, so these
are bounds of what `bench wer` and `bench fpr` measure. Stopped, it goes on with the windows in --work.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from faster_whisper.vad import VadOptions, get_speech_timestamps
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from whisper_sae_steer.audio.clips import Clip
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.units import WINDOW_SAMPLES
from whisper_sae_steer.calibrate.export_gate import speech_evidence
from whisper_sae_steer.calibrate.windows import CalibrationWindow, WindowRecipe, encode
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.models.weights import resolve
from whisper_sae_steer.steering.operator import Operator
from whisper_sae_steer.steering.pack import SteeringPack, load_pack

from ..arguments import script_parser
from ..results import as_json, write_results
from ..selection import select_sounds, select_speech

LONGEST_SECONDS = 3.0
MOST_WORDS = 2
STEPS = np.arange(-6, 10.01, 0.5)
"""thresholds in logits, before the pack's own"""
VAD_THRESHOLDS = (0.3, 0.5, 0.7)


def main() -> None:
    """Score all windows, and print and write the curve."""
    args = script_parser(
        __doc__, "manifest", "--split", "--source", "--model", "--pack", "--work", "--out", per_class=1000
    ).parse_args()
    weights = resolve(args.model)
    pack = load_pack(args.pack, weights)
    speech = select_speech(args.manifest, args.split, args.per_class, args.source, args.model)
    words = [clip for clip in speech if _is_short(clip)]
    sounds = select_sounds(args.manifest, args.split, args.per_class)
    recipes = [WindowRecipe(f"{clip.key}@0", clip) for clip in [*words, *sounds]]
    windows = encode(WindowEncoder(weights), recipes, args.work)
    found = {
        "words": len(words),
        "sounds": len(sounds),
        "silero_vad": {f"{threshold}": vad(words, sounds, threshold) for threshold in VAD_THRESHOLDS},
        "gate": curve(windows, highest(pack, windows), [*STEPS, pack.metadata.levels.threshold]),
    }
    if pack.pooled is not None:
        evidence = speech_evidence(pack.pooled, windows)
        found["export_gate"] = curve(windows, evidence, [float(pack.pooled.full), float(pack.pooled.shut)])
    write_results(args.out, found)
    print(as_json(found))


def _is_short(clip: Clip) -> bool:
    return (clip.seconds or 0) <= LONGEST_SECONDS and 0 < len(clip.text.split()) <= MOST_WORDS


def highest(pack: SteeringPack, windows: Sequence[CalibrationWindow]) -> NDArray[np.float64]:
    """The highest smoothed speech score of each window [N]."""
    steering = Operator(pack)
    return np.array([float(steering.scores(window.frames()[None]).max()) for window in windows])


def curve(
    windows: Sequence[CalibrationWindow], scores: NDArray[np.float64], thresholds: Sequence[float]
) -> dict[str, Any]:
    """How well scores part words from sounds, and what either threshold costs."""
    is_word = np.array([window.is_speech for window in windows])
    words, sounds = scores[is_word], scores[~is_word]
    return {
        "auc": float(roc_auc_score(is_word, scores)),
        "thresholds": [_at(float(t), int((words < t).sum()), int((sounds >= t).sum())) for t in thresholds],
    }


def _at(threshold: float, words_edited: int, sounds_passed: int) -> dict[str, float]:
    return {"threshold": threshold, "words_edited": words_edited, "sounds_passed": sounds_passed}


def vad(words: Sequence[Clip], sounds: Sequence[Clip], threshold: float) -> dict[str, float]:
    """The same for Silero VAD: words in which it hears nobody, sounds in which it hears somebody."""
    options = VadOptions(threshold=threshold)
    heard = [
        [bool(get_speech_timestamps(load_audio(clip.path)[:WINDOW_SAMPLES], options)) for clip in clips]
        for clips in (words, sounds)
    ]
    return _at(threshold, heard[0].count(False), heard[1].count(True))


if __name__ == "__main__":
    main()
