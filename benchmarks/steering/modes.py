"""Text on non-speech in the ways of calling Whisper where its own gates don't work.

    python -m benchmarks.steering.modes MANIFEST --split dev --model base --per_class 2 --out modes-base

Each clip of at most 30 s is transcribed at α = 0 and 1 in every mode: without timestamps, batched without
VAD, with prompts, in a language nobody speaks, translating, and with the thresholds off.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from whisper_sae_steer.audio.clips import NONSPEECH_KINDS, Clip, read_manifest, select
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.units import SAMPLE_RATE, WINDOW_SAMPLES
from whisper_sae_steer.faster import BatchedInferencePipeline, WhisperModel
from whisper_sae_steer.reports import metrics

from ..arguments import script_parser
from ..results import read_results, write_results
from ..selection import within_a_window


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
    parser = script_parser(
        __doc__, "manifest", "--split", "--model", "--compute_type", "--threads", "--out", per_class=2
    )
    args = parser.parse_args()
    sounds = read_manifest(args.manifest, args.split, NONSPEECH_KINDS)
    clips = select(within_a_window(sounds), args.per_class)
    model = WhisperModel(args.model, compute_type=args.compute_type, cpu_threads=args.threads)
    path = args.out / "modes.json"
    found = read_results(path)
    for name, mode in MODES.items():
        if name in found or (mode.multilingual and not model.model.is_multilingual):
            continue
        found[name] = {f"{alpha:g}": measure(model, mode, clips, alpha) for alpha in (0.0, 1.0)}
        write_results(path, found)
    for name, at in found.items():
        print(f"{name:20} {at['0']['k']:4} → {at['1']['k']:3} of {at['1']['n']}")


def measure(model: WhisperModel, mode: Mode, clips: list[Clip], alpha: float) -> dict[str, Any]:
    """FPR_text with its Wilson interval, and what was written."""
    written: dict[str, str] = {}
    for clip in tqdm(clips, f"α = {alpha:g}"):
        segments, _ = transcribe(model, mode, load_audio(clip.path), alpha)
        text = " ".join(segment.text for segment in segments)
        if metrics.has_text(text):
            written[clip.key] = text[:200]
    rate = metrics.wilson(len(written), len(clips))
    return {**rate._asdict(), "written": written}


def transcribe(
    model: WhisperModel, mode: Mode, audio: NDArray[np.float32], alpha: float
) -> tuple[list[Any], Any]:
    """Segments and faster-whisper's information on the recording [n] at 16 kHz."""
    options: dict[str, Any] = {**mode.options, "steer_alpha": alpha}
    if mode.batched and options.get("vad_filter") is False:  # the pipeline then has to be given windows
        options["clip_timestamps"] = [
            {"start": first / SAMPLE_RATE, "end": min(first + WINDOW_SAMPLES, len(audio)) / SAMPLE_RATE}
            for first in range(0, len(audio), WINDOW_SAMPLES)
        ]
    called = BatchedInferencePipeline(model) if mode.batched else model
    segments, information = called.transcribe(audio, **options)
    return list(segments), information


if __name__ == "__main__":
    main()
