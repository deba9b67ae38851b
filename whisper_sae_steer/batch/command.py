"""`whisper-sae-steer batch`: many recordings to one parquet file, on this machine or a Ray cluster."""

import argparse
import os
import sys
import time
from pathlib import Path

from ..audio.clips import NONSPEECH_KINDS
from ..commands.common import add_threads, check_compute_type
from ..commands.extras import require
from ..commands.fields import add_fields, from_fields
from ..commands.recordings import add_recordings, read_recordings
from . import choosing
from .config import BatchConfig

BATCH_KINDS = ("speech", *NONSPEECH_KINDS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments that `main` reads."""
    add = parser.add_argument
    add_recordings(parser, "any audio")
    add("--out", type=Path, required=True, help="parquet file to write")
    add_fields(parser.add_argument_group("transcription"), BatchConfig)
    group = parser.add_argument_group("workers")
    choosing.add_arguments(group, "local")
    add_threads(group, "CPU threads of a worker; 0: local its share, ray 1")


def main(args: argparse.Namespace) -> int:
    """Transcribe what is left to do; 1 if rows have errors, 130 after Ctrl-C."""
    require("batch", "batch")
    from .job import transcribe_clips

    options = from_fields(args, BatchConfig)
    chosen = choosing.choose(args)
    if args.engine == "local":  # a cluster's machines may have what this one lacks
        check_compute_type(options.compute_type, options.device)
    clips = read_recordings(args, BATCH_KINDS, args.language)
    started = time.monotonic()
    try:
        outcome = transcribe_clips(clips, args.out, options, chosen, _threads(args))
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from {args.out}.parts", file=sys.stderr)
        return 130
    wall = time.monotonic() - started
    print(
        f"{args.out}: {outcome.clips} clips, {outcome.new} of them now, {outcome.failed} failed;"
        f" {outcome.audio_seconds / 60:.1f} minutes of audio in {wall / 60:.1f},"
        f" {outcome.audio_seconds / wall:.2f} times real time"
    )
    if outcome.failed:
        print("the column error says why; the same command tries these again", file=sys.stderr)
    return 1 if outcome.failed else 0


def _threads(args: argparse.Namespace) -> int:
    """CPU threads of a worker: workers on one machine share its cores."""
    share = 1 if args.engine == "ray" else (os.cpu_count() or 1) // max(args.workers, 1)
    return args.threads or max(share, 1)
