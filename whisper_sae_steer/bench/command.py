"""The commands `bench fpr` and `bench wer`, for the package's command line and `benchmarks/`."""

import argparse
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import ctranslate2
import torch

from ..audio.clips import NONSPEECH_KINDS, Clip
from ..batch import choosing
from ..commands.common import (
    add_compute_type,
    add_model,
    add_pack,
    add_threads,
    check_compute_type,
    loading,
    pack_named,
)
from ..commands.recordings import add_recordings, read_recordings
from ..commands.values import alpha, device_or_auto
from ..errors import ManifestError, SteerError
from . import runner
from .backends import Backend, FasterBackend, OpenAIBackend
from .report import write_report

Metric = Literal["fpr", "wer"]


def add_arguments(parser: argparse.ArgumentParser, metric: Metric) -> None:
    """Give a parser the arguments that `main` reads."""
    what = "audio without speech" if metric == "fpr" else "speech (transcripts beside it as .txt)"
    parser.set_defaults(metric=metric)
    add = parser.add_argument
    add_recordings(parser, what, required=False)
    add("--manifest", nargs="+", default=[], metavar="TSV", help="manifests, which may also be named above")
    add("--alphas", type=alpha, nargs="+", default=[0.0, 1.0], help="steering strengths")
    add("--out", type=Path, required=True, help="folder for clips.jsonl, summary.json, table.md")
    add_model(parser)
    add("--backend", choices=["faster", "openai"], default="faster")
    add_compute_type(parser, "CTranslate2's, for the faster back end")
    add("--device", type=device_or_auto, default="auto", help="auto, cpu or cuda")
    add_threads(parser)
    add_pack(parser)
    add("--language", help="language of every clip; 'own' takes the manifest's; default: detect")
    add("--no_raw", action="store_true", help="leave out the greedy first window: faster")
    choosing.add_arguments(parser.add_argument_group("workers; without --engine, this process"), None)


def main(args: argparse.Namespace) -> int:
    """Run a bench and write its rows, summary and table; 1 if clips failed, 130 after Ctrl-C."""
    elsewhere = runner.Elsewhere(choosing.choose(args), partial(_load, args)) if args.engine else None
    if args.backend == "faster":
        check_compute_type(args.compute_type, args.device)
    clips = _clips(args)
    with loading(args.model, args.device):
        backend = _load(args)
    stopped = False
    try:
        runner.run(
            *(backend, clips, args.alphas, args.out, not args.no_raw, args.language), elsewhere=elsewhere
        )
    except KeyboardInterrupt:
        stopped = True
    rows = runner.read_rows(args.out / "clips.jsonl")
    if rows:
        write_report(args.out, rows, _conditions(args, clips, backend))
    if stopped:
        print(f"stopped; the same command goes on from {args.out}", file=sys.stderr)
        return 130
    print((args.out / "table.md").read_text(encoding="utf-8"))
    return int(any(row["error"] is not None for row in rows))


def _clips(args: argparse.Namespace) -> list[Clip]:
    kinds = NONSPEECH_KINDS if args.metric == "fpr" else ("speech",)
    args.recordings += args.manifest
    if not args.recordings:
        raise ManifestError("give either folders and files of audio, or manifests (.tsv)")
    return read_recordings(args, kinds, args.language)


def _load(args: argparse.Namespace) -> Backend:
    # fallback temperatures sample: CTranslate2 takes its seed when a model's threads start
    ctranslate2.set_random_seed(0)
    if args.backend == "openai":
        from ..openai import load_model  # only the back end that is asked for

        if args.compute_type != "default":
            raise SteerError("--compute_type is for the faster back end; openai runs its own")
        if args.threads:
            torch.set_num_threads(args.threads)
        device = None if args.device == "auto" else args.device
        return OpenAIBackend(load_model(args.model, device, pack=pack_named(args.pack)), args.model)
    from ..faster import WhisperModel

    model = WhisperModel(
        args.model,
        device=args.device,
        compute_type=args.compute_type,
        cpu_threads=args.threads,
        pack=pack_named(args.pack),
    )
    given = args.compute_type != "default"
    return FasterBackend(model, args.model, args.compute_type if given else model.model.compute_type)


def _conditions(args: argparse.Namespace, clips: Sequence[Clip], backend: Backend) -> dict[str, str]:
    libraries = ("whisper-sae-steer", "faster-whisper", "ctranslate2", "openai-whisper", "torch")
    return {
        "model": f"{backend.model_name}, back end {backend.name}, {backend.compute_type}",
        "pack": backend.pack or "none",
        "device": f"{args.device}, {args.threads or 'default'} threads, on {machine()}",
        "language": args.language or "detected",
        "libraries": ", ".join(f"{name} {version(name)}" for name in libraries),
        "clips": f"{len(clips)} of this command; the tables count every row in clips.jsonl",
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def machine() -> str:
    """The processor's name and number of cores, as far as the system tells."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} cores"
