"""The command ``calibrate``: folders of own noise and speech in, a steering pack and a report out."""

import argparse
import shutil
from pathlib import Path

import torch

from ..commands.common import add_model, add_sae, add_threads, how_to_use, pack_named
from ..commands.fields import add_fields, from_fields
from ..commands.recordings import add_both_kinds, read_both_kinds
from ..errors import CalibrationError
from ..models.taps import WindowEncoder
from ..models.weights import Weights, resolve
from ..sae.find import locate_sae
from ..sae.formats import load_sae
from ..steering.pack import SteeringPack, fitting_pack, load_pack, save_pack
from .calibration import calibrate
from .config import CalibrationConfig
from .estimate import calibration_seconds, forecast, recordings_line, window_seconds
from .recordings import listen
from .report import text_report, write_html


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments that :func:`main` reads."""
    add = parser.add_argument
    add_model(parser)
    add_both_kinds(
        parser,
        nonspeech="audio without speech; none: synthetic sounds only",
        speech="speech, transcripts beside it as .txt if there are any; none: the gate of the base is kept",
    )
    add("--out", type=Path, required=True, help="the pack, a .safetensors file; reports beside it")
    add("--base", default="auto", metavar="PACK",
        help="pack to build on; auto: the installed or shipped one, if it edits what the SAE reads; none:"
        " only these recordings")  # fmt: skip
    add_sae(parser, "auto: the best one for this model")
    add_fields(parser, CalibrationConfig)
    add_threads(parser)
    add(
        "--work",
        type=Path,
        help="folder for encoded windows (default: OUT.work, removed at the end)",
    )


def main(args: argparse.Namespace) -> int:
    """Calibrate and report; stopped, the same command goes on where it was."""
    if args.out.is_dir():
        raise CalibrationError(f"--out {args.out} is a folder; give the file that the pack is to be")
    if args.threads:
        torch.set_num_threads(args.threads)
    weights = resolve(args.model)
    nonspeech, speech, warnings = listen(*read_both_kinds(args))
    for warning in warnings:
        print(f"Warning: {warning}")
    sae = load_sae(locate_sae(args.sae, args.layer, weights))
    config = from_fields(args, CalibrationConfig)
    work = args.work or args.out.with_suffix(".work")
    base = _base(args.base, weights, sae.config.tap)
    print(recordings_line(weights, len(nonspeech), len(speech)))
    print(f"The gate and the edit are fitted on three quarters of them, and measured on the rest: {args.out}")
    print(forecast(_seconds(weights, sae.config.tap, len(nonspeech) + config.synthetic, len(speech)), work))
    result = calibrate(weights, sae, nonspeech, speech, config, work, base)
    save_pack(result.pack, args.out)
    page = args.out.with_suffix(".html")
    write_html(result.report, page)
    print(text_report(result.report))
    print(f"\nWritten: {args.out}, report {page}. To use it:")
    print(how_to_use(args.model, sae.config.tap, args.out))
    if args.work is None:
        shutil.rmtree(work)
    return 0


def _seconds(weights: Weights, tap: str, sounds: int, utterances: int) -> float:
    encoder = WindowEncoder(weights, tap, threads=torch.get_num_threads())
    return calibration_seconds(window_seconds(encoder), sounds, utterances)


def _base(source: str, weights: Weights, tap: str) -> SteeringPack | None:
    named = pack_named(source)
    if named is None or (named == "auto" and fitting_pack(weights) is None):
        return None
    base = load_pack(named, weights)
    return None if named == "auto" and base.metadata.tap != tap else base
