"""The command ``train``: audio in, a sparse autoencoder in SAELens v6 layout out."""

import argparse
import gc
from dataclasses import replace
from pathlib import Path

import torch

from ..audio import find_audio
from ..clips import read_manifest, select
from ..formats import save_sae
from ..weights import resolve
from .store import build_store
from .trainer import TrainConfig, TrainReport, train

EXPANSION = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments that :func:`main` reads."""
    add = parser.add_argument
    add("audio", nargs="+", type=Path, help="folders of audio, or manifests (.tsv)")
    add("--model", default="base", help="name or path of a Whisper model")
    add("--out", type=Path, required=True, help="folder for cfg.json and sae_weights.safetensors")
    add("--split", help="only clips of this split of the manifests")
    add("--per_class", type=int, metavar="N", help="at most N clips a source and class of them")
    add("--tap", default="encoder_output", help="encoder_output or block.N")
    add("--work", type=Path, help="folder for activations and checkpoints (default: OUT/work)")
    add("--d_sae", type=int, help=f"number of features (default: {EXPANSION} times the width)")
    add("--threads", type=int, default=0, help="CPU threads; 0 leaves it to PyTorch")
    defaults = TrainConfig(d_sae=0)
    for name in ("k", "steps", "batch_size", "lr", "seed"):
        default = getattr(defaults, name)
        add(f"--{name}", type=type(default), default=default)


def main(args: argparse.Namespace) -> int:
    """Encode the audio, train, report; the same command goes on where it was stopped."""
    if args.threads:
        torch.set_num_threads(args.threads)
    weights = resolve(args.model)
    gc.freeze()  # or every decoded file walks through all of torch's objects again
    work = args.work or args.out / "work"
    store = build_store(weights, _files(args.audio, args.split, args.per_class), work / "frames", args.tap)
    config = TrainConfig(
        d_sae=args.d_sae or EXPANSION * store.d_in, k=args.k, steps=args.steps,
        batch_size=args.batch_size, lr=args.lr, seed=args.seed,
    )  # fmt: skip
    sae, report = train(store, config, work)
    metadata = {**sae.config.metadata, "held_back": report._asdict()}
    sae.config = replace(sae.config, metadata=metadata)
    save_sae(sae, args.out, dtype=torch.float16)
    print(_describe(report))
    return 0


def _files(sources: list[Path], split: str | None, per_class: int | None) -> list[Path]:
    manifests = [path for path in sources if path.suffix == ".tsv"]
    folders = [path for path in sources if path.suffix != ".tsv"]
    clips = [clip for path in manifests for clip in read_manifest(path, split)]
    if per_class and clips:
        clips = select(clips, per_class)
    return [clip.path for clip in clips] + (find_audio(folders) if folders else [])


def _describe(report: TrainReport) -> str:
    return (
        f"held-back frames {report.frames}: explained variance {report.explained_variance:.4f},"
        f" L0 {report.l0:.1f}, never active {100 * report.dead_share:.1f}%"
    )
