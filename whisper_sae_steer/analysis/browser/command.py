"""`whisper-sae-steer analyze report`: a folder to browse features in, with no server."""

import argparse
from pathlib import Path

from ..store.arguments import add_store_arguments, chosen_sae
from .results import read_results
from .writing import BrowserConfig, write_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_store_arguments(parser)
    add("--results", type=Path, metavar="DIR", help="--out of other analyses, which are shown too")
    add("--out", type=Path, required=True, help="folder to write; open its index.html in a browser")
    add(
        "--most",
        type=int,
        default=BrowserConfig.features,
        metavar="N",
        help="features with excerpts, the most informative ones; 0 for those of --features alone",
    )
    add("--features", type=int, nargs="+", default=[], metavar="ID", help="further features with excerpts")
    add("--excerpts", type=int, default=BrowserConfig.excerpts, metavar="N", help="excerpts of each feature")
    add("--seconds", type=float, default=BrowserConfig.seconds, help="length of an excerpt")


def main(args: argparse.Namespace) -> int:
    """Write what the folder lacks; the same command goes on where it was stopped."""
    store, name = chosen_sae(args)
    config = BrowserConfig(args.most, tuple(args.features), args.excerpts, args.seconds)
    results = read_results(args.results, store.path.resolve().name, name)
    written = write_folder(store, name, results, args.out, config)
    silent = f", {written.silent} without sound" if written.silent else ""
    print(
        f"{written.page}: {written.features} features, {written.shown} with excerpts"
        f" ({written.sounds} sounds{silent}), {written.size / 1e6:.1f} MB"
    )
    return 0
