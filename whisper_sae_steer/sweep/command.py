"""The command ``sweep``: audio in, SAEs of every combination of options, and which of them to take."""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from ..audio.clips import KINDS, read_manifest
from ..commands.common import add_device, add_model, add_threads
from ..commands.fields import add_fields, every_combination, from_fields
from ..commands.recordings import add_recordings, read_recordings
from ..models.memory import keep_large_blocks
from ..models.weights import Weights, resolve
from ..sae.autoencoder import SAE
from ..training.config import TrainConfig
from ..training.downstream import Downstream, clips_to_judge, measure_downstream
from ..training.encoders import WhisperFrames
from ..training.source import FrameRecipe
from ..training.store import build_store
from ..training.stream import StreamConfig
from .audio import AS_GIVEN, audios, change, domain_frames
from .config import SweepConfig
from .forecast import announced
from .gate import gate_frames
from .report import text_report, write_html
from .run import WORK, sweep

SEVERAL = (
    *("architecture", "k", "expansion", "lr", "steps", "decay_share", "aux_coefficient"),
    *("sparsity_coefficient", "bandwidth"),
)
"""options that take several values: every combination is a setting"""
SKIPPED = ("max_fvu", "compile")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments that :func:`main` reads."""
    add = parser.add_argument
    add_recordings(parser, "speech, music and sound (the default)")
    add_model(parser)
    add("--out", type=Path, required=True, help="folder for SAEs, sweep.json and report.html")
    add(
        "--taps", nargs="+", metavar="TAP", default=["encoder_output"], help="encoder_output, block.N, or all"
    )
    add_fields(parser, SweepConfig, skip=("settings", "taps"))
    add("--other_audio", type=change, nargs="+", default=[], metavar="CHANGE",
        help="all settings once more for each of these, on audio with options of it changed:"
        " noise_share=0 or music=0,sound=0")  # fmt: skip
    add("--downstream", type=Path, metavar="MANIFEST",
        help="clips to measure WER and FPR on with each SAE's reconstruction spliced in; slow")  # fmt: skip
    add("--downstream_split", default="dev", help="only clips of this split of that manifest")
    add_device(parser)
    add_threads(parser)
    add_fields(parser, FrameRecipe)
    training = parser.add_argument_group("training", f"several values make a grid: {', '.join(SEVERAL)}")
    add_fields(training, TrainConfig, skip=SKIPPED, several=SEVERAL)
    stream = parser.add_argument_group("audio", "how recordings become windows")
    add_fields(stream, StreamConfig, skip=("seed",))


def main(args: argparse.Namespace) -> int:
    """Encode the audio, train all settings, compare; the same command goes on where it was stopped."""
    if args.threads:
        torch.set_num_threads(args.threads)
    keep_large_blocks()
    vars(args).update({name: getattr(TrainConfig(), name) for name in SKIPPED})
    settings = tuple(every_combination(args, TrainConfig, SEVERAL))
    recipe = from_fields(args, FrameRecipe)
    streams = audios(from_fields(args, StreamConfig), args.other_audio)
    clips = read_recordings(args, KINDS)
    weights = resolve(args.model)
    encoder = WhisperFrames(weights, args.taps, args.device)
    config = SweepConfig(settings, tuple(encoder.taps), tuple(args.seeds), args.memory_gb)
    judge = _judge(weights, args) if args.downstream else None
    work = args.out / WORK
    print(announced(config, encoder, clips, list(streams.values()), work, args.device), flush=True)
    if judge:
        print("What each SAE costs downstream is measured last, and comes on top.", flush=True)
    sources = {
        name: build_store(encoder, clips, work / (f"frames-{name}" if name else "frames"), stream, recipe)
        for name, stream in streams.items()
    }
    found = {tap: gate_frames(weights, tap, clips, work / "gate") for tap in encoder.taps}
    gates = {tap: frames for tap, frames in found.items() if frames is not None}
    domains = domain_frames(encoder, clips, recipe)
    source = sources.pop(AS_GIVEN)
    result = sweep(source, config, args.out, gates, judge, args.device, sources, domains)
    write_html(result, args.out / "report.html")
    print(text_report(result))
    return 0


def _judge(weights: Weights, args: argparse.Namespace) -> Callable[[SAE], Downstream]:
    """Measures the downstream cost of an SAE, clip by clip, so that it goes on where it was stopped."""
    clips = read_manifest(args.downstream, args.downstream_split)
    speech, nonspeech = clips_to_judge(weights, clips)
    work = args.out / WORK / "downstream"
    return lambda sae: measure_downstream(weights, sae, speech, nonspeech, work, args.threads)
