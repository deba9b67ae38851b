"""The command ``export``: a steered model that unmodified runtimes load, checked, with a model card."""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import get_args

from ..audio.clips import spread
from ..commands.common import add_compute_type, add_model, add_pack, check_compute_type
from ..commands.extras import require
from ..commands.recordings import add_both_kinds, read_both_kinds
from ..commands.values import alpha
from ..errors import ExportError
from ..models.convert import load_torch
from ..models.weights import resolve
from ..steering.pack import load_pack
from .card import Checked, loading_code, model_card
from .check import (
    QUICK_CLIPS,
    SYNTHETIC_SOUNDS,
    CheckClip,
    CheckExtent,
    check,
    clips_to_check,
    encoder_time,
    packaged_clips,
)
from .fold import fold
from .writers import WRITERS, Format


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments that :func:`main` reads."""
    add = parser.add_argument
    add_model(parser)
    add_pack(parser, may_be_none=False)
    add("--steer_alpha", "--alpha", type=alpha, default=1.0, help="strength that is built in")
    add("--format", choices=get_args(Format), required=True,
        help="openai: a checkpoint for whisper.load_model; hf: transformers; ct2: CTranslate2, for"
        " faster-whisper, whisperX, wyoming")  # fmt: skip
    add("--out", type=Path, required=True, help="folder to make")
    add_compute_type(parser, "format ct2 is checked in it", default="int8")
    add("--check", choices=get_args(CheckExtent), default="full",
        help=f"transcribe with the exported model and two others: all audio, at most {QUICK_CLIPS} sounds and"
        f" {QUICK_CLIPS} of speech, or nothing")  # fmt: skip
    group = parser.add_argument_group("audio to check with; none: sounds and a sentence that come with us")
    add_both_kinds(group, "audio without speech", "speech with transcripts")


def main(args: argparse.Namespace) -> int:
    """Write the folder; 1 if the exported model does worse than the hooked one."""
    form: Format = args.format
    if args.out.exists():
        raise ExportError(f"{args.out} exists: choose another --out, or remove it")
    if form == "hf":
        require("format hf", "hf")
    if form == "ct2" and args.check != "none":
        check_compute_type(args.compute_type, "auto")
    weights = resolve(args.model)
    pack = load_pack(args.pack, weights)
    assert pack.path is not None
    sounds = None if args.check == "none" else sounds_to_check(args)
    print(f"loading {weights.name}", file=sys.stderr)
    plain = load_torch(weights)
    folded = fold(plain, pack, args.steer_alpha)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=f".{args.out.name}.") as temporary:
        folder = Path(temporary) / "model"
        folder.mkdir()
        print(f"writing format {form}", file=sys.stderr)
        WRITERS[form](folded, folder)
        checked = None
        if sounds is not None:
            print("loading the models to check", file=sys.stderr)
            result = check(weights, pack.path, args.steer_alpha, folder, form, args.compute_type, sounds)
            checked = Checked(result, encoder_time(folded, plain))
        card = model_card(weights, pack, args.steer_alpha, form, args.compute_type, checked)
        (folder / "README.md").write_text(card, encoding="utf-8")
        os.replace(folder, args.out)
    print(card)
    print(
        f"Written to {args.out}, this card as README.md there. To use it:\n\n{loading_code(form, args.out)}"
    )
    if checked is None or checked.result.passed:
        return 0
    print("worse than the hooked model by more than 1 pp FPR_text or 0.1 pp WER", file=sys.stderr)
    return 1


def sounds_to_check(args: argparse.Namespace) -> list[CheckClip]:
    """What to check with: recordings that are named, or what comes with us."""
    nonspeech, speech = read_both_kinds(args)
    if args.check == "quick":
        nonspeech, speech = spread(nonspeech)[:QUICK_CLIPS], spread(speech)[:QUICK_CLIPS]
    count = QUICK_CLIPS if args.check == "quick" else SYNTHETIC_SOUNDS
    return clips_to_check(nonspeech + speech) or packaged_clips(count)
