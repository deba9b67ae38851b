"""The command ``sweep``: audio in, SAEs of every combination of options, and which of them to take."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from ..audio.clips import KINDS, read_manifest
from ..audio.units import WINDOW_SAMPLES
from ..calibrate.estimate import forecast, seconds_of
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
from ..training.trainee import Member, Trainee
from .config import SweepConfig
from .gate import gate_frames
from .groups import groups
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
    recipe, stream = from_fields(args, FrameRecipe), from_fields(args, StreamConfig)
    clips = read_recordings(args, KINDS)
    weights = resolve(args.model)
    encoder = WhisperFrames(weights, args.taps, args.device)
    config = SweepConfig(settings, tuple(encoder.taps), tuple(args.seeds), args.memory_gb)
    judge = _judge(weights, args) if args.downstream else None
    minutes = sum(clip.seconds or 0 for clip in clips) / 60
    print(_announced(config, encoder, minutes, args), flush=True)
    source = build_store(encoder, clips, args.out / WORK / "frames", stream, recipe)
    found = {tap: gate_frames(weights, tap, clips, args.out / WORK / "gate") for tap in encoder.taps}
    gates = {tap: frames for tap, frames in found.items() if frames is not None}
    result = sweep(source, config, args.out, gates, judge, args.device)
    write_html(result, args.out / "report.html")
    print(text_report(result))
    return 0


def _announced(config: SweepConfig, encoder: WhisperFrames, minutes: float, args: argparse.Namespace) -> str:
    """How much there is to do, and about how long it takes here. ConfigError for a setting that can't be."""
    silence = np.zeros(WINDOW_SAMPLES, np.float32)
    (window,) = encoder([silence])
    widths = {tap: h.shape[1] for tap, h in window.taps.items()}
    members = config.members(encoder.taps)
    teams = groups(members, widths, config.memory_gb)
    steps = _seconds_a_step(members, widths, torch.device(args.device))
    seconds = sum(steps[options, widths[member.tap]] * options.steps for member, options in members.items())
    seconds += 2 * minutes * seconds_of(lambda: list(encoder([silence])))  # two windows of 30 s a minute
    numbers = {"setting": len(config.settings), "seed": len(config.seeds), "tap": len(encoder.taps)}
    counts = ", ".join(f"{n} {what}{'s' if n != 1 else ''}" for what, n in numbers.items())
    in_groups = f"in {len(teams)} groups, one after the other" if len(teams) > 1 else "side by side"
    return f"{len(members)} SAEs ({counts}), {in_groups}. {forecast(seconds, args.out / WORK)}"


def _seconds_a_step(
    members: Mapping[Member, TrainConfig], widths: Mapping[str, int], device: torch.device
) -> dict[tuple[TrainConfig, int], float]:
    """Of each setting at each width: that of a step on frames that mean nothing."""
    seconds: dict[tuple[TrainConfig, int], float] = {}
    for member, options in members.items():
        width = widths[member.tap]
        if (options, width) not in seconds:
            frames = torch.randn(options.batch_size, width, device=device)
            trainee = Trainee(width, options, device)
            trainee.model.initialise(frames, torch.Generator().manual_seed(0))
            seconds[options, width] = seconds_of(lambda: trainee.step(frames, 0))  # noqa: B023
    return seconds


def _judge(weights: Weights, args: argparse.Namespace) -> Callable[[SAE], Downstream]:
    """Measures the downstream cost of an SAE, clip by clip, so that it goes on where it was stopped."""
    clips = read_manifest(args.downstream, args.downstream_split)
    speech, nonspeech = clips_to_judge(weights, clips)
    work = args.out / WORK / "downstream"
    return lambda sae: measure_downstream(weights, sae, speech, nonspeech, work, args.threads)
