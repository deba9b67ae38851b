"""A published set of recordings, unsteered and steered: rows, summary and table as ``bench`` writes them."""

import argparse
from collections.abc import Sequence
from importlib.metadata import version

import ctranslate2

from whisper_sae_steer.audio.clips import Clip
from whisper_sae_steer.bench import runner
from whisper_sae_steer.bench.backends import FasterBackend
from whisper_sae_steer.bench.command import machine
from whisper_sae_steer.bench.report import write_report
from whisper_sae_steer.faster import WhisperModel

ALPHAS = (0.0, 1.0)


def measure(args: argparse.Namespace, clips: Sequence[Clip], raw: bool, language: str | None) -> None:
    """Transcribe clips at ALPHAS; write ``clips.jsonl``, ``summary.json`` and ``table.md`` into ``args.out``.

    ``args`` has --model, --compute_type, --threads and --out; ``raw`` and ``language`` are those of
    `runner.run`. The same command goes on where it was stopped. Raises ManifestError if no clip was measured.
    """
    ctranslate2.set_random_seed(0)  # fallback temperatures sample
    model = WhisperModel(args.model, compute_type=args.compute_type, cpu_threads=args.threads)
    backend = FasterBackend(model, args.model, args.compute_type)
    rows = runner.run(backend, clips, ALPHAS, args.out, raw, language)
    conditions = {
        "model": f"{args.model}, back end {backend.name}, {args.compute_type}",
        "pack": backend.pack or "none",
        "device": f"{args.threads} threads, on {machine()}",
        "language": language or "detected",
        "libraries": ", ".join(
            f"{name} {version(name)}" for name in ("whisper-sae-steer", "faster-whisper", "ctranslate2")
        ),
    }
    write_report(args.out, rows, conditions)
    print((args.out / "table.md").read_text(encoding="utf-8"))
