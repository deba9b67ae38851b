"""`whisper-sae-steer analyze encode`: recordings into a store of activations, with features of SAEs."""

import argparse
from pathlib import Path

from ...audio.clips import KINDS
from ...commands.common import add_device, add_model
from ...commands.recordings import add_recordings, read_recordings
from ...models.weights import resolve
from ...sae.formats import load_sae
from ...training.encoders import FrameEncoder, HubertFrames, WhisperFrames
from .encode import add_sae, build_store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_recordings(
        parser, "speech, music and sound (the default); a folder's files are labelled by their own folder"
    )
    add_model(parser)
    add("--hubert", metavar="MODEL", help="a HuBERT model instead: what transformers loads")
    add(
        "--taps",
        nargs="+",
        metavar="TAP",
        help="encoder_output, block.N, or all (default: those of the SAEs)",
    )
    add("--sae", nargs="+", default=[], metavar="[NAME=]PATH", help="SAEs whose features are wanted")
    add("--out", type=Path, required=True, help="folder of the store")
    add_device(parser)


def main(args: argparse.Namespace) -> int:
    """Encode what the store lacks; the same command goes on where it was stopped."""
    saes = {name: load_sae(path) for name, path in map(named, args.sae)}
    taps = args.taps or sorted({sae.config.tap for sae in saes.values()} - {""}) or ["encoder_output"]
    encoder: FrameEncoder = (
        HubertFrames(args.hubert, args.taps or ["all"], args.device)
        if args.hubert
        else WhisperFrames(resolve(args.model), taps, args.device)
    )
    clips = read_recordings(args, KINDS)
    store = build_store(encoder, clips, args.out)
    for name, sae in saes.items():
        add_sae(store, name, sae)
    print(
        f"{args.out}: {store.seconds / 60:.1f} minutes in {len(store.windows)} windows,"
        f" taps {', '.join(store.taps)}, SAEs {', '.join(store.saes) or 'none'}"
    )
    return 0


def named(source: str) -> tuple[str, Path]:
    """``NAME=PATH``, or a path whose last part is the name."""
    name, equals, path = source.partition("=")
    return (name, Path(path)) if equals else (Path(source).name, Path(source))
