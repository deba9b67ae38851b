"""The command ``make-pack``: one line from a Whisper model to a measured, installed pack."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ..calibrate.calibration import calibrate
from ..calibrate.config import CalibrationConfig
from ..calibrate.estimate import forecast, recordings_line
from ..calibrate.recordings import check_recordings, listen
from ..commands.common import (
    add_compute_type,
    add_device,
    add_model,
    add_sae,
    add_threads,
    check_compute_type,
    how_to_use,
)
from ..commands.recordings import add_both_kinds, read_both_kinds
from ..errors import CalibrationError
from ..models.cache import cache_dir
from ..models.memory import keep_large_blocks
from ..models.weights import Weights, resolve
from ..steering.pack import save_pack, stored_digest
from . import autoencoder
from .audio import Recordings, bundled, for_judging, for_training
from .autoencoder import ChosenSAE
from .download import SETS, with_downloaded
from .estimate import estimated_seconds
from .install import install
from .judge import judge
from .report import MadePack, text_report, write_html
from .verdict import foreseen, verdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments that :func:`main` reads."""
    add = parser.add_argument
    add_model(parser)
    add_both_kinds(
        parser,
        nonspeech="audio without speech, besides the bundle of open recordings",
        speech="speech, transcripts beside it as .txt if there are any, besides the bundle",
    )
    add("--no_bundle", action="store_true", help="only the recordings that are named")
    add("--download", nargs="*", choices=SETS, metavar="SET",
        help="open sets, fetched into the cache, besides the bundle: librispeech (340 MB), fleurs (ten"
             " languages, 0.6 GB), musan (noise and music, 11 GB); all three if none is named")  # fmt: skip
    add_sae(parser, "auto: the best one for this model, or else a new one; new: train one")
    add_device(parser)
    add_compute_type(parser, "CTranslate2's, for the figures")
    add_threads(parser)
    add("--work", type=Path,
        help="folder for what is made on the way (default: in the cache, removed at the end)")  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """Make, measure and install a pack; 1 if it is not good enough. Stopped, the same command goes on."""
    try:
        return _make(args)
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130


def _make(args: argparse.Namespace) -> int:
    if args.threads:
        torch.set_num_threads(args.threads)
    check_compute_type(args.compute_type, args.device)
    recordings, warnings = _recordings(args)
    check_recordings(*recordings, CalibrationConfig(), has_base=False)
    weights = resolve(args.model)
    device = torch.device(args.device)
    work = args.work or cache_dir() / "make-pack" / f"{weights.name}-{weights.sha256[:8]}"
    chosen = None if args.sae == "new" else autoencoder.existing(args.sae, args.layer, weights)
    print(recordings_line(weights, len(recordings.nonspeech), len(recordings.speech)))
    for warning in (*warnings, *foreseen(recordings, for_judging(recordings, weights))):
        print(f"Warning: {warning}")
    seconds = estimated_seconds(weights, recordings, chosen is None, device, args.threads)
    print(forecast(seconds, work))
    if chosen is None:
        keep_large_blocks()
        chosen = autoencoder.trained(weights, for_training(recordings, work), work, device)
    print(autoencoder.describe(chosen))
    made = _made(args, weights, recordings, chosen, work, warnings)
    print(text_report(made))
    if not made.verdict.passed:
        print(f"Not installed. The pack is {work / 'pack.safetensors'}, its report {work / 'pack.html'}.")
        return 1
    place = install(work / "pack.safetensors", work / "pack.html", weights)
    print(f"Installed: {place}, report {place.with_suffix('.html')}. It is found by itself from now on:")
    print(how_to_use(args.model, chosen.sae.config.tap))
    if args.work is None:
        shutil.rmtree(work)
    return 0


def _recordings(args: argparse.Namespace) -> tuple[Recordings, Sequence[str]]:
    """One's own, the sets downloaded and the bundle's, and what is odd about one's own."""
    if args.no_bundle and args.download is None and not (args.nonspeech and args.speech):
        raise CalibrationError(
            "--no_bundle needs recordings of both kinds: --nonspeech and --speech, or --download"
        )
    given = read_both_kinds(args) if args.nonspeech or args.speech else ([], [])
    bundle = Recordings([], []) if args.no_bundle else bundled()
    heard = listen(*given)  # before hours of downloading
    own = with_downloaded(Recordings(heard.nonspeech, heard.speech), args.download)
    if not bundle.all and not (own.nonspeech and own.speech):
        raise CalibrationError("recordings of both kinds are needed: add --nonspeech or --speech, or a set")
    return Recordings([*bundle.nonspeech, *own.nonspeech], [*bundle.speech, *own.speech]), heard.warnings


def _made(
    args: argparse.Namespace, weights: Weights, recordings: Recordings, chosen: ChosenSAE, work: Path,
    warnings: Sequence[str],
) -> MadePack:  # fmt: skip
    """Calibrate, write the pack and its page into ``work``, and judge it on what was held back."""
    result = calibrate(
        weights, chosen.sae, recordings.nonspeech, recordings.speech, CalibrationConfig(), work / "windows"
    )
    pack = work / "pack.safetensors"
    save_pack(result.pack, pack)
    rows = work / "judged" / stored_digest(pack)[:12]
    held_back = for_judging(recordings, weights)
    judgement = judge(
        args.model, pack, held_back, rows, args.compute_type, args.device, args.threads,
        library="faster" if result.pack.metadata.tap == autoencoder.TAP else "openai",
    )  # fmt: skip
    found = verdict(judgement, result.pack.metadata)
    made = MadePack(found, judgement, result.report, autoencoder.describe(chosen), tuple(warnings))
    write_html(made, work / "pack.html")
    return made
