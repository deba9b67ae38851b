"""What calibrating on few clips of one's own noise gains there, and whether it harms anything else.

    python -m benchmarks.steering.own_noise MANIFEST --model tiny.en --source 0ad --out own

A pack for users who lack the source is calibrated on all others (split `calib`, `without`). For each
count two more are calibrated on so many clips of the source: one of them alone (`alone`), and one built on
that pack (`built on`), all with the same speech. Each is then measured on clips of the source that no pack
has seen, on all sources of the `dev` split and on its speech, beside the unsteered model.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from whisper_sae_steer.audio.clips import NONSPEECH_KINDS, Clip, read_manifest, select, spread
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.calibrate import CalibrationConfig, calibrate
from whisper_sae_steer.faster import WhisperModel
from whisper_sae_steer.models.weights import resolve
from whisper_sae_steer.reports import metrics
from whisper_sae_steer.sae.find import find_sae
from whisper_sae_steer.sae.formats import load_sae
from whisper_sae_steer.steering.pack import read_pack, save_pack

from ..arguments import script_parser
from ..results import read_results, write_results
from ..selection import select_sounds, select_speech


def main() -> None:
    """Calibrate and measure; what OUT/own_noise.json holds is not measured again."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    own = spread(read_manifest(args.manifest, "calib", NONSPEECH_KINDS, args.source))
    speech = select_speech(args.manifest, "calib", args.per_class)
    tests = {
        "own noise": own[max(args.counts) :],
        "other noise": select_sounds(args.manifest, "dev", args.per_class),
        "speech": select_speech(args.manifest, "dev", args.per_class, args.speech),
    }
    path = args.out / "own_noise.json"
    found = read_results(path)
    others = [clip for clip in read_manifest(args.manifest, "calib", NONSPEECH_KINDS) if clip not in own]
    others = select(others, args.per_class)
    runs: dict[str, tuple[Sequence[Clip], bool]] = {"unsteered": ((), False), "without": (others, False)}
    for count in args.counts:
        runs[f"{count} alone"] = own[:count], False
        runs[f"{count} built on"] = own[:count], True
    for name, (noise, built_on) in runs.items():
        if name in found:
            continue
        pack: str | Path = "auto"
        if noise:
            base = args.out / "without.safetensors" if built_on else None
            pack = _calibrated(args, noise, speech, base, args.out / f"{name}.safetensors")
        model = WhisperModel(args.model, compute_type=args.compute_type, cpu_threads=args.threads, pack=pack)
        alpha = 0.0 if name == "unsteered" else 1.0
        found[name] = {kind: measure(model, clips, alpha) for kind, clips in tests.items()}
        write_results(path, found)
    for name, at in found.items():
        print(name, json.dumps(at))


def _arguments() -> argparse.Namespace:
    parser = script_parser(
        __doc__, "manifest", "--compute_type", "--threads", "--out", model="tiny.en", per_class=8, work=None
    )
    parser.add_argument("--source", nargs="+", required=True, help="the noise that is one's own")
    parser.add_argument("--speech", nargs="+", help="only these sources of dev speech")
    parser.add_argument("--counts", nargs="+", type=int, default=[10, 30, 100, 300])
    return parser.parse_args()


def _calibrated(
    args: argparse.Namespace, noise: Sequence[Clip], speech: Sequence[Clip], base: Path | None, out: Path
) -> Path:
    """Write a pack for this noise."""
    weights = resolve(args.model)
    config = CalibrationConfig(synthetic=0)
    work = args.work or args.out / "work"
    sae = load_sae(find_sae("auto", weights))
    result = calibrate(weights, sae, noise, speech, config, work, read_pack(base) if base else None)
    save_pack(result.pack, out)
    return out


def measure(model: WhisperModel, clips: Sequence[Clip], alpha: float) -> dict[str, Any]:
    """Text on clips without speech; word errors and lost utterances on speech."""
    errors: list[metrics.WordErrors] = []
    texts: list[bool] = []
    for clip in tqdm(clips, f"α = {alpha:g}"):
        language = clip.language or None
        segments, _ = model.transcribe(load_audio(clip.path), language=language, steer_alpha=alpha)
        text = " ".join(segment.text for segment in segments)
        texts.append(metrics.has_text(text, clip.language))
        if clip.kind == "speech" and (found := metrics.word_errors(clip.text, text, clip.language)):
            errors.append(found)
    if not errors:
        return metrics.wilson(sum(texts), len(texts))._asdict()
    total = metrics.total(errors)
    return {"n": len(texts), "empty": texts.count(False), "wer": total.rate, "deletions": total.deletions}


if __name__ == "__main__":
    main()
