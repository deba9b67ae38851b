"""Text on non-speech in the ways of calling Whisper where its own gates don't work.

    python benchmarks/modes.py MANIFEST --split dev --model base --per_class 2 --out modes-base

Each clip of at most 30 s is transcribed at α = 0 and 1 in every mode: without timestamps, batched without
VAD, with prompts, in a language nobody speaks, translating, and with the thresholds off.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from whisper_sae_steer.audio.clips import NONSPEECH_KINDS, Clip, read_manifest, select
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.units import SAMPLE_RATE
from whisper_sae_steer.faster import BatchedInferencePipeline, WhisperModel
from whisper_sae_steer.files import write_text
from whisper_sae_steer.reports import metrics


class Mode(NamedTuple):
    """Options of transcribe()."""

    options: dict[str, Any]
    batched: bool = False
    multilingual: bool = False
    """for multilingual models only"""


MODES = {
    "default": Mode({}),
    "without_timestamps": Mode({"without_timestamps": True}),
    "batched, no VAD": Mode({"vad_filter": False}, batched=True),
    "initial_prompt": Mode({"initial_prompt": "Welcome to the weekly meeting about Whisper."}),
    "hotwords": Mode({"hotwords": "Whisper, steering"}),
    "thresholds off": Mode({"no_speech_threshold": None, "log_prob_threshold": None}),
    "wrong language": Mode({"language": "ja"}, multilingual=True),
    "translate": Mode({"language": "de", "task": "translate"}, multilingual=True),
}


def main() -> None:
    """Measure every mode; a mode that OUT/modes.json holds is not run again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--model", default="base")
    parser.add_argument("--compute_type", default="int8")
    parser.add_argument("--per_class", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    read = read_manifest(args.manifest, args.split, NONSPEECH_KINDS)
    clips = select([clip for clip in read if (clip.seconds or 0) <= 30], args.per_class)
    model = WhisperModel(args.model, compute_type=args.compute_type, cpu_threads=args.threads)
    path = args.out / "modes.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    args.out.mkdir(parents=True, exist_ok=True)
    for name, mode in MODES.items():
        if name in found or (mode.multilingual and not model.model.is_multilingual):
            continue
        found[name] = {f"{alpha:g}": measure(model, mode, clips, alpha) for alpha in (0.0, 1.0)}
        write_text(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    for name, at in found.items():
        print(f"{name:20} {at['0']['k']:4} → {at['1']['k']:3} of {at['1']['n']}")


def measure(model: WhisperModel, mode: Mode, clips: list[Clip], alpha: float) -> dict[str, Any]:
    """FPR_text with its Wilson interval, and what was written."""
    written: dict[str, str] = {}
    for clip in tqdm(clips, f"α = {alpha:g}"):
        audio = load_audio(clip.path)
        options: dict[str, Any] = {**mode.options, "steer_alpha": alpha}
        if mode.batched:
            options["clip_timestamps"] = [{"start": 0, "end": len(audio) / SAMPLE_RATE}]
        called = BatchedInferencePipeline(model) if mode.batched else model
        text = " ".join(segment.text for segment in called.transcribe(audio, **options)[0])
        if metrics.has_text(text):
            written[clip.key] = text[:200]
    rate = metrics.wilson(len(written), len(clips))
    return {**rate._asdict(), "written": written}


if __name__ == "__main__":
    main()
