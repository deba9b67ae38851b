"""Is the language of a recording right whose speech begins late?

    python -m benchmarks.speech.late_start MANIFEST --model base --out base-late-speech.json

Before each utterance come some seconds of silence, of faint noise, or of a sound of the manifest, each in
turn. Of each method: in how many recordings `transcribe` names the utterance's language.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from whisper_sae_steer.audio.clips import Clip, read_manifest, spread
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.units import SAMPLE_RATE
from whisper_sae_steer.faster import WhisperModel

from ..arguments import script_parser
from ..results import as_json, write_results
from ..selection import select_sounds

METHODS: dict[str, dict[str, Any]] = {
    "faster": {"steer_alpha": 0.0},
    "vad-0.5": {"steer_alpha": 0.0, "vad_filter": True},
    "ours": {},
}
FAINT = 1e-3
"""standard deviation of the faint noise"""


def main() -> None:
    """Ask every method for the language of every recording; print and write what they got right."""
    args = _arguments()
    model = WhisperModel(args.model, compute_type=args.compute_type, cpu_threads=args.threads)
    speech = [clip for clip in read_manifest(args.manifest, args.split, "speech") if clip.language]
    utterances = [
        clip
        for language in sorted({clip.language for clip in speech})
        for clip in spread([c for c in speech if c.language == language])[: args.utterances]
    ]
    sounds = select_sounds(args.manifest, args.split, args.per_class)
    right: dict[str, dict[str, int]] = {}
    for seconds in args.seconds:
        rows = list(recordings(utterances, sounds, seconds))
        counts = right[f"{seconds:g} s"] = dict.fromkeys(METHODS, 0) | {"recordings": len(rows)}
        for language, audio in tqdm(rows, f"{seconds:g} s", unit="recording"):
            for method, options in METHODS.items():
                _, info = model.transcribe(audio, **options)  # the text is lazy, and not asked for
                counts[method] += info.language == language
    write_results(args.out, right)
    print(as_json(right))


def _arguments() -> argparse.Namespace:
    parser = script_parser(
        __doc__, "manifest", "--split", "--model", "--compute_type", "--threads", "--out", per_class=1
    )
    parser.add_argument("--seconds", type=float, nargs="+", default=[0, 10, 20, 40, 70])
    parser.add_argument("--utterances", type=int, default=8, help="of each language")
    return parser.parse_args()


def recordings(
    utterances: list[Clip], sounds: list[Clip], seconds: float
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Language and samples [n] at 16 kHz of each utterance behind ``seconds`` of something else."""
    samples = round(seconds * SAMPLE_RATE)
    silence = np.zeros(samples, np.float32)
    faint = FAINT * np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    for number, clip in enumerate(utterances):
        sound = load_audio(sounds[number // 3 % len(sounds)].path)
        lead = (silence, faint, np.resize(sound, samples))[number % 3]
        yield clip.language, np.concatenate([lead, load_audio(clip.path)])


if __name__ == "__main__":
    main()
