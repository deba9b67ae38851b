"""How much transcripts move when encodings change by next to nothing: what int8 makes of rounding errors.

    python -m benchmarks.export.decoding_noise MANIFEST --model base --out base-decoding-noise.json

faster-whisper without steering, once on its encodings as they are and then on encodings in which every value
is multiplied by 1 + SIZE times a standard normal number. What differs less from the first run than these do
can't be told from it.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import ctranslate2
import faster_whisper
import numpy as np
from faster_whisper.transcribe import get_ctranslate2_storage
from numpy.typing import NDArray
from tqdm import tqdm

from whisper_sae_steer.audio.clips import Clip, read_manifest
from whisper_sae_steer.models.weights import resolve
from whisper_sae_steer.reports import metrics

from ..arguments import script_parser
from ..results import as_json, write_results

Encode = Callable[[NDArray[np.float32]], ctranslate2.StorageView]


def main() -> None:
    """Transcribe the speech once and then with each seed's noise; print and write WER and what differs."""
    args = _arguments()
    folder = str(resolve(args.model).ct2_dir)
    # sampling in fallbacks is seeded when a model's threads start
    ctranslate2.set_random_seed(0)
    model: Any = faster_whisper.WhisperModel(
        folder, device="cpu", compute_type=args.compute_type, cpu_threads=args.threads
    )
    clips = read_manifest(args.manifest, args.split, "speech", args.source)[: args.clips]
    before = transcripts(model, clips)
    errors = _errors(clips, before)
    runs: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        model.encode = noisy(model, args.size, seed)
        after = transcripts(model, clips)
        differ = sum(a.split() != b.split() for a, b in zip(after, before, strict=True))
        noisy_errors = _errors(clips, after)
        change = metrics.word_error_change(noisy_errors, errors)
        runs.append(
            {"seed": seed, "transcripts with other words": differ, "WER": _wer(noisy_errors),
             "change": change._asdict()}
        )  # fmt: skip
    found = {
        "model": args.model,
        "compute_type": args.compute_type,
        "noise": args.size,
        "clips": len(clips),
        "WER": _wer(errors),
        "with noise": runs,
    }
    write_results(args.out, found)
    print(as_json(found))


def transcripts(model: Any, clips: Sequence[Clip]) -> list[str]:
    """What the library writes at its defaults, normalised."""
    texts: list[str] = []
    for clip in tqdm(clips, unit="clip"):
        segments, _ = model.transcribe(str(clip.path))
        texts.append(metrics.normalise("".join(segment.text for segment in segments), clip.language))
    return texts


def noisy(model: Any, size: float, seed: int) -> Encode:
    """The model's encoder with noise in every value."""
    rng = np.random.default_rng(seed)

    def encode(features: NDArray[np.float32]) -> ctranslate2.StorageView:
        batch = features if features.ndim == 3 else features[None]
        frames = np.array(model.model.encode(get_ctranslate2_storage(batch), to_cpu=True))
        frames *= 1 + size * rng.standard_normal(frames.shape, dtype=np.float32)
        return ctranslate2.StorageView.from_array(frames)

    return encode


def _errors(clips: Sequence[Clip], texts: Sequence[str]) -> list[metrics.WordErrors | None]:
    return [metrics.word_errors(c.text, text, c.language) for c, text in zip(clips, texts, strict=True)]


def _wer(errors: Sequence[metrics.WordErrors | None]) -> float:
    return metrics.total([known for known in errors if known]).rate


def _arguments() -> argparse.Namespace:
    librispeech = ["librispeech-train-clean-100-1utt-per-spk"]
    parser = script_parser(
        __doc__, "manifest", "--split", "--model", "--compute_type", "--threads", "--out", source=librispeech
    )
    parser.add_argument("--clips", type=int, help="the first so many; default: all")
    parser.add_argument("--size", type=float, default=1e-6)
    parser.add_argument("--seeds", type=int, default=4)
    return parser.parse_args()


if __name__ == "__main__":
    main()
