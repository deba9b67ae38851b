"""Live sessions: latency per chunk, work per second of audio, and words beside the offline transcript.

    python -m benchmarks.speed.streaming MANIFEST --split dev --utterances 10 --out streaming.json

Recordings are made of the manifest's English speech, with pauses of 0.3 to 6 s of its noise between the
utterances, and of its non-speech alone. A step is a chunk that is transcribed. Its milliseconds are of CPU,
all threads, as wall time also depends on what else runs; their ratio to the audio is the real-time factor.
"""

import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ctranslate2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from whisper_sae_steer.audio.clips import Clip, read_manifest
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.units import SAMPLE_RATE
from whisper_sae_steer.faster import WhisperModel
from whisper_sae_steer.reports import metrics
from whisper_sae_steer.streaming import StreamingTranscriber

from ..arguments import script_parser
from ..results import write_results
from ..selection import some_of_each

CHUNKS = (1.0, 2.0, 5.0)
"""seconds fed at once, min_chunk at 1"""
PAUSES = (0.3, 1.0, 2.0, 4.0, 6.0)


class Recording(NamedTuple):
    """Audio and the words in it."""

    audio: NDArray[np.float32]
    text: str


class Session(NamedTuple):
    """What a session wrote, and the CPU seconds that each step took."""

    text: str
    steps: list[float]


def main() -> None:
    """Measure every model and chunk length, and print and write what was found."""
    parser = script_parser(__doc__, "manifest", "--split", "--compute_type", "--threads", "--out")
    parser.add_argument("--model", nargs="+", default=["tiny.en", "base"])
    parser.add_argument("--utterances", type=int, default=10)
    parser.add_argument("--noise", type=int, default=12, help="clips without speech")
    args = parser.parse_args()
    speech = [c for c in read_manifest(args.manifest, args.split, "speech") if c.language == "en"]
    other = read_manifest(args.manifest, args.split, "nonspeech")
    noise = [load_audio(clip.path) for clip in some_of_each(other, args.noise)[: args.noise]]
    utterances = some_of_each(speech, args.utterances)[: args.utterances]
    spoken = conversation(utterances, np.concatenate(noise))
    found: dict[str, Any] = {"cpu": cpu(), "threads": args.threads, "compute_type": args.compute_type}
    for name in args.model:
        model = WhisperModel(name, compute_type=args.compute_type, cpu_threads=args.threads)
        found[name] = {
            "speech": [on_speech(model, spoken, chunk) for chunk in CHUNKS],
            "noise": on_noise(model, noise),
        }
        print(name, json.dumps(found[name], indent=1))
    write_results(args.out, found)


def conversation(clips: Sequence[Clip], noise: NDArray[np.float32]) -> Recording:
    """Utterances with pauses of quiet noise between them."""
    parts: list[NDArray[np.float32]] = []
    for i, clip in enumerate(clips):
        pause = round(PAUSES[i % len(PAUSES)] * SAMPLE_RATE)
        begin = i * SAMPLE_RATE % max(1, len(noise) - pause)
        parts += [load_audio(clip.path), 0.1 * noise[begin : begin + pause]]
    return Recording(np.concatenate(parts), " ".join(clip.text or "" for clip in clips))


def run(model: WhisperModel, audio: NDArray[np.float32], chunk: float) -> Session:
    """One session, fed ``chunk`` seconds at a time."""
    session, size = StreamingTranscriber(model, language="en"), round(chunk * SAMPLE_RATE)
    text, steps = "", list[float]()
    for begin in range(0, len(audio), size):
        worked = time.process_time()
        update = session.feed(audio[begin : begin + size])
        steps.append(time.process_time() - worked)
        text += "".join(segment.text for segment in update.final)
    return Session(text + "".join(segment.text for segment in session.finish().final), steps)


def on_speech(model: WhisperModel, spoken: Recording, chunk: float) -> dict[str, Any]:
    """Steps and word errors of one chunk length, beside the offline transcript's."""
    session = run(model, spoken.audio, chunk)
    offline = "".join(segment.text for segment in model.transcribe(spoken.audio, language="en")[0])
    live, plain = (metrics.word_errors(spoken.text, text) for text in (session.text, offline))
    apart = metrics.word_errors(offline, session.text)
    assert live is not None
    assert plain is not None
    assert apart is not None
    return {
        "chunk": chunk,
        **timing(session.steps, len(spoken.audio)),
        "WER": round(live.rate, 4),
        "WER_offline": round(plain.rate, 4),
        "words": live.words,
        "words_unlike_offline": apart.errors,
    }


def on_noise(model: WhisperModel, noise: Sequence[NDArray[np.float32]]) -> dict[str, Any]:
    """Steps on non-speech in chunks of a second, and how many clips got text."""
    sessions = [run(model, audio, 1.0) for audio in tqdm(noise, "noise")]
    written = sum(metrics.has_text(session.text) for session in sessions)
    steps = [step for session in sessions for step in session.steps]
    return {
        "clips": len(noise),
        "with_text": written,
        **timing(steps, sum(len(audio) for audio in noise)),
    }


def timing(steps: Sequence[float], samples: int) -> dict[str, float]:
    """CPU seconds a step and a second of audio."""
    median, high = np.quantile(steps, [0.5, 0.95])
    return {
        "audio_seconds": round(samples / SAMPLE_RATE, 1),
        "step_median_ms": round(1000 * float(median)),
        "step_p95_ms": round(1000 * float(high)),
        "real_time_factor": round(sum(steps) / (samples / SAMPLE_RATE), 3),
    }


def cpu() -> str:
    """Name of this machine's CPU, and what CTranslate2 makes of it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    supported = sorted(ctranslate2.get_supported_compute_types("cpu"))
    return f"{names[0] if names else platform.processor()} ({', '.join(supported)})"


if __name__ == "__main__":
    main()
