"""The command `bench peers`, for the package's command line and `benchmarks/peers/compare.py`."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...audio.clips import KINDS, NONSPEECH_KINDS, Clip, read_clips, select
from ...commands.common import add_compute_type, add_model, add_pack, add_threads, check_compute_type
from ...commands.recordings import add_both_kinds, language_of_files
from ...commands.values import device_or_auto
from ...errors import ManifestError
from ...files import write_atomically
from ..command import machine
from . import catalogue as peers
from .report import DEFINITIONS, write_html, write_table
from .run import Models, collect, run
from .summary import RULE, compare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments that :func:`main` reads."""
    add = parser.add_argument
    add_both_kinds(parser, "audio without speech", "speech (transcripts beside it as .txt)")
    add("--manifest", nargs="+", type=Path, default=[], help="tab-separated lists of clips of both kinds")
    add("--peers", nargs="+", metavar="NAME", help="only these; what they are compared with is added")
    add("--list", action="store_true", help="say what the peers are, and do nothing else")
    add("--out", type=Path, default=Path("peers"), help="folder for the rows and the reports")
    add_model(parser)
    add_compute_type(parser, "CTranslate2's, for the faster back end")
    add("--device", type=device_or_auto, default="auto", help="auto, cpu or cuda")
    add_threads(parser)
    add_pack(parser, may_be_none=False)
    add("--packs", type=Path, help="folder of the packs that `python -m benchmarks.peers.packs` makes")
    add("--language", help="language of every clip; 'own' takes the manifest's; default: detect")


def main(args: argparse.Namespace) -> int:
    """Run the peers and write rows and reports; the exit status is 130 after Ctrl-C."""
    chosen, lacking = peers.choose(args.peers, args.packs)
    if args.list:
        _list(chosen, lacking)
        return 0
    check_compute_type(args.compute_type, args.device)
    clips = _clips(args)
    for name, reason in lacking.items():
        print(f"left out: {name} {reason}", file=sys.stderr)
    models = Models(args.model, args.compute_type, args.device, args.threads, args.pack, args.packs)
    stopped = False
    try:
        run(chosen, clips, models, args.out, args.language)
    except KeyboardInterrupt:
        stopped = True
    _write(args.out, chosen, clips, _conditions(args, clips))
    if stopped:
        print(f"stopped; the same command goes on from {args.out}", file=sys.stderr)
        return 130
    print((args.out / "table.md").read_text(encoding="utf-8"))
    return 0


def _list(chosen: Sequence[peers.Peer], lacking: dict[str, str]) -> None:
    for peer in chosen:
        print(f"{peer.name:24}{peer.method}: {peer.setting}")
    for name, reason in lacking.items():
        print(f"{name:24}{reason}")


def _clips(args: argparse.Namespace) -> list[Clip]:
    known = language_of_files(args.language)
    clips = read_clips(args.manifest, args.split, KINDS, source=args.source)
    clips += read_clips(args.nonspeech, args.split, NONSPEECH_KINDS, source=args.source)
    clips += read_clips(args.speech, args.split, ("speech",), source=args.source, language=known)
    if not clips:
        raise ManifestError("give --manifest, or --nonspeech and --speech folders")
    return clips if args.per_class is None else select(clips, args.per_class)


def _write(
    out: Path, chosen: Sequence[peers.Peer], clips: Sequence[Clip], conditions: dict[str, str]
) -> None:
    """Summary, table and page of what has been measured so far."""
    rows = collect(chosen, clips, out)
    entries = compare(chosen, rows)
    if not entries:
        return
    summary: dict[str, Any] = {
        "conditions": conditions,
        "definitions": DEFINITIONS,
        "rule": RULE,
        "peers": entries,
    }
    with write_atomically(out / "summary.json") as part:
        text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)
        part.write_text(text + "\n", encoding="utf-8")
    write_table(out / "table.md", entries, conditions)
    write_html(out / "report.html", entries, rows, clips, conditions)


def _conditions(args: argparse.Namespace, clips: Sequence[Clip]) -> dict[str, str]:
    libraries = ("whisper-sae-steer", "faster-whisper", "ctranslate2", "openai-whisper", "torch")
    speech = sum(clip.kind == "speech" for clip in clips)
    return {
        "model": f"{args.model}; CTranslate2 in {args.compute_type}, openai-whisper in its own type",
        "device": f"{args.device}, {args.threads or 'default'} threads, on {machine()}",
        "language": args.language or "detected",
        "libraries": ", ".join(f"{name} {version(name)}" for name in libraries),
        "clips": f"{len(clips) - speech} without speech, {speech} with",
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
