"""The command ``quality``: a report of SAEs on frames held back, and of what they cost Whisper."""

import argparse
from pathlib import Path

import torch

from ..audio.clips import read_manifest
from ..commands.common import add_threads
from ..errors import SAEFormatError
from ..models.weights import resolve
from ..sae.autoencoder import SAE
from ..sae.formats import load_sae
from .downstream import PER_CLASS, PER_SOURCE, Downstream, clips_to_judge, measure_downstream
from .logs import load_history
from .quality import measure
from .report import TrainedSAE, text_report, write_html
from .store import FrameStore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments that :func:`main` reads."""
    add = parser.add_argument
    add("saes", nargs="+", type=Path, help="folders of SAEs, in any format that load_sae reads")
    add("--frames", type=Path, required=True, help="activation store of `train`: WORK/frames")
    add("--out", type=Path, required=True, help="page to write (.html)")
    add("--model", default="base", help="name or path of the Whisper model, for the downstream cost")
    add("--manifest", type=Path, help="clips to measure WER and FPR on with the reconstruction spliced in")
    add("--split", default="dev", help="only clips of this split of the manifest")
    add(
        "--per_class",
        type=int,
        default=PER_CLASS,
        metavar="N",
        help="non-speech: at most N clips a source and class",
    )
    add("--per_source", type=int, default=PER_SOURCE, metavar="N", help="speech: at most N clips a source")
    add("--work", type=Path, help="folder for transcripts, to go on after a stop (default: beside OUT)")
    add_threads(parser)


def main(args: argparse.Namespace) -> int:
    """Measure and write the page; the same command goes on where it was stopped."""
    if args.threads:
        torch.set_num_threads(args.threads)
    store = FrameStore.open(args.frames)
    saes = {str(folder): (load_sae(folder), folder) for folder in args.saes}
    for name, (sae, _) in saes.items():
        if sae.config.tap not in store.taps:
            raise SAEFormatError(f"{name} reads {sae.config.tap}; {args.frames} has {', '.join(store.taps)}")
    pages: list[TrainedSAE] = []
    for name, (sae, folder) in saes.items():
        quality = measure(sae, store.held_back_frames(sae.config.tap))
        cost = _cost(sae, args) if args.manifest else None
        pages.append(TrainedSAE(name, sae.config, quality, cost, load_history(folder)))
    write_html(pages, args.out)
    print(text_report(pages))
    return 0


def _cost(sae: SAE, args: argparse.Namespace) -> Downstream:
    weights = resolve(args.model)
    clips = read_manifest(args.manifest, args.split)
    speech, nonspeech = clips_to_judge(weights, clips, args.per_source, args.per_class)
    work = args.work or args.out.with_suffix("")
    return measure_downstream(weights, sae, speech, nonspeech, work, args.threads)
