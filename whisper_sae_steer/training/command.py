"""The command ``train``: audio in, sparse autoencoders in SAELens v6 layout and a report out."""

import argparse
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed

from ..audio.clips import KINDS
from ..commands.common import add_device, add_model, add_threads
from ..commands.fields import add_fields, from_fields
from ..commands.recordings import add_recordings, read_recordings
from ..models.memory import keep_large_blocks
from ..models.weights import resolve
from .buffer import process
from .config import TrainConfig
from .encoders import FrameEncoder, HubertFrames, WhisperFrames
from .live import LiveFrames
from .report import TrainedSAE, text_report, write_html
from .saving import save_trained
from .source import FrameRecipe, FrameSource
from .store import build_store
from .stream import StreamConfig
from .trainer import Trained, train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments that :func:`main` reads."""
    add = parser.add_argument
    add_recordings(parser, "speech, music and sound (the default)")
    add_model(parser)
    add("--hubert", metavar="MODEL", help="train on a HuBERT model instead: what transformers loads")
    add("--out", type=Path, required=True, help="folder for the SAEs and report.html")
    add("--work", type=Path, help="folder for activations, checkpoints and curves (default: OUT/work)")
    add("--taps", nargs="+", metavar="TAP", help="encoder_output, block.N, or all (default: encoder_output)")
    add("--seeds", nargs="+", type=int, default=[0], help="train one SAE from each of these")
    add("--on_the_fly", action="store_true", help="encode while training; no activations on disk")
    add_device(parser)
    add_threads(parser)
    for options in (FrameRecipe, TrainConfig):
        add_fields(parser, options)
    stream = parser.add_argument_group("audio", "how recordings become windows")
    add_fields(stream, StreamConfig, skip=("seed",))


def main(args: argparse.Namespace) -> int:
    """Encode the audio, train, report; the same command goes on where it was stopped.

    Under ``torchrun`` the processes share each batch; the first one writes.
    """
    if args.threads:
        torch.set_num_threads(args.threads)
    keep_large_blocks()
    config, recipe = from_fields(args, TrainConfig), from_fields(args, FrameRecipe)
    stream = from_fields(args, StreamConfig)
    clips = read_recordings(args, KINDS)
    with _processes(args.device) as device:
        encoder = _encoder(args, device)
        work = args.work or args.out / "work"
        if args.on_the_fly:
            source = LiveFrames(encoder, clips, stream, recipe)
        else:
            with _first_process_first():
                source = build_store(encoder, clips, work / "frames", stream, recipe)
        trained = train(source, config, work, seeds=args.seeds, device=device)
        if process()[0] == 0:
            _report(trained, source, args.out, len(args.seeds) > 1)
    return 0


def _encoder(args: argparse.Namespace, device: torch.device) -> FrameEncoder:
    if args.hubert:
        return HubertFrames(args.hubert, args.taps or ["all"], device)
    return WhisperFrames(resolve(args.model), args.taps or ["encoder_output"], device)


def _report(trained: Sequence[Trained], source: FrameSource, out: Path, several_seeds: bool) -> None:
    """Measure each SAE on the recordings held back and write it; then the page."""
    pages: list[TrainedSAE] = []
    several_taps = len({member.tap for member, _, _ in trained}) > 1
    for one in trained:
        member = one.member
        folder = out / member.tap if several_taps else out
        folder = folder / f"seed{member.seed}" if several_seeds else folder
        quality = save_trained(one, source, folder)
        name = member.name if several_seeds else member.tap
        pages.append(TrainedSAE(name, one.sae.config, quality, history=one.history))
    write_html(pages, out / "report.html")
    print(text_report(pages))


@contextmanager
def _processes(device: str) -> Generator[torch.device]:
    """The device of this process; joins the others if ``torchrun`` started several."""
    if "RANK" not in os.environ:
        yield torch.device(device)
        return
    cuda = device.startswith("cuda")
    place = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device(device)
    if cuda:
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield place
    finally:
        distributed.destroy_process_group()


@contextmanager
def _first_process_first() -> Generator[None]:
    """The first process runs the block while the others wait; then they do."""
    several = distributed.is_initialized()
    if several and process()[0] > 0:
        distributed.barrier()
    yield
    if several and process()[0] == 0:
        distributed.barrier()
