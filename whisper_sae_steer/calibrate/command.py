"""The command ``calibrate``: folders of own noise and speech in, a steering pack and a report out."""

import argparse
import shutil
from pathlib import Path
from typing import get_args

import torch

from ..audio.clips import NONSPEECH_KINDS, read_clips
from ..errors import CalibrationError
from ..models.weights import Weights, resolve
from ..sae.find import find_sae
from ..sae.formats import load_sae
from ..steering.pack import GateKind, SteeringPack, Strategy, load_pack, save_pack, shipped_pack
from .calibration import CalibrationConfig, calibrate
from .directions import SELECTIONS
from .report import text_report, write_html


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments that :func:`main` reads."""
    add = parser.add_argument
    defaults = CalibrationConfig()
    add("--model", default="base", help="name or path of a Whisper model")
    add("--nonspeech", nargs="+", type=Path, default=[], metavar="DIR",
        help="folders (or .tsv manifests) of audio without speech; none: synthetic sounds only")  # fmt: skip
    add("--speech", nargs="+", type=Path, default=[], metavar="DIR",
        help="folders (or manifests) of speech, transcripts beside it as .txt if there are any;"
        " none: the gate of the base is kept")  # fmt: skip
    add("--split", help="only clips of this split of the manifests")
    add("--per_class", type=int, metavar="N", help="at most N clips a source and class")
    add("--out", type=Path, required=True, help="the pack, a .safetensors file; reports beside it")
    add("--base", default="auto", metavar="PACK",
        help="pack to build on; auto: the shipped one, if there is; none: only these recordings")  # fmt: skip
    add("--sae", default="auto", help="folder of the SAE; auto: the one for this model")
    add("--strategy", choices=get_args(Strategy), default=defaults.strategy)
    add("--selection", choices=SELECTIONS, default=defaults.selection,
        help="how features are chosen; gradient and contrast are dense baselines")  # fmt: skip
    add("--gate", choices=get_args(GateKind), default=defaults.gate)
    add("--synthetic", type=int, default=defaults.synthetic, help="synthetic sounds added")
    add("--seed", type=int, default=defaults.seed)
    add("--threads", type=int, default=0, help="CPU threads; 0 leaves it to the libraries")
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
    nonspeech = read_clips(args.nonspeech, args.split, NONSPEECH_KINDS, args.per_class)
    speech = read_clips(args.speech, args.split, ("speech",), args.per_class)
    sae = load_sae(find_sae(args.sae, weights))
    config = CalibrationConfig(args.strategy, args.selection, args.gate, args.synthetic, args.seed)
    work = args.work or args.out.with_suffix(".work")
    result = calibrate(weights, sae, nonspeech, speech, config, work, _base(args.base, weights))
    save_pack(result.pack, args.out)
    write_html(result.report, args.out.with_suffix(".html"))
    print(text_report(result.report))
    if args.work is None:
        shutil.rmtree(work)
    return 0


def _base(source: str, weights: Weights) -> SteeringPack | None:
    if source == "none" or (source == "auto" and shipped_pack(weights) is None):
        return None
    return load_pack(source, weights)
