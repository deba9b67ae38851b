"""How commands name recordings, and choose among them.

Recordings are named by ``[KIND=]PATH``. The path is that of a manifest (.tsv), of a folder or of an audio
file; the kind (speech, music or sound) says what a folder or file holds, and keeps only such lines of a
manifest. Where it is left out, the command says what it takes. ``--split`` and ``--source`` choose lines of
manifests, ``--per_class`` thins out whatever was named.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..audio.clips import NONSPEECH_KINDS, Clip, read_clips
from ..errors import ManifestError
from .common import Parser
from .values import whole

FORM = "[KIND=]PATH"
PATHS = "manifests (.tsv), folders or files"
OWN_LANGUAGE = "own"
"""As ``--language``: each clip's own, from the manifest."""


def add_recordings(parser: Parser, what: str, required: bool = True) -> None:
    """The positional arguments of a command that takes one list of recordings."""
    parser.add_argument("recordings", nargs="+" if required else "*", metavar=FORM, help=f"{PATHS} of {what}")
    add_selection(parser)


def add_both_kinds(parser: Parser, nonspeech: str, speech: str) -> None:
    """``--nonspeech`` and ``--speech``, for a command that does different things with them."""
    add = parser.add_argument
    add("--nonspeech", nargs="+", default=[], metavar=FORM, help=f"{PATHS} of {nonspeech}")
    add("--speech", nargs="+", default=[], metavar=FORM, help=f"{PATHS} of {speech}")
    add_selection(parser)


def add_selection(parser: Parser) -> None:
    """The options that choose among the recordings named."""
    add = parser.add_argument
    add("--split", help="only clips of this split of the manifests")
    add("--source", nargs="+", help="only clips of these sources of the manifests")
    add("--per_class", type=whole(1), metavar="N", help="at most N clips a source and class")


def read_recordings(
    args: argparse.Namespace, kinds: Sequence[str], language: str | None = None
) -> list[Clip]:
    """The clips that :func:`add_recordings` names. Those of no kind named are ``kinds[0]``.

    ``language``, a ``--language``, is that of folders and files: manifests tell their own. Raises
    ManifestError and AudioError.
    """
    _check_selection(args, args.recordings)
    known = language_of_files(language)
    return read_clips(args.recordings, args.split, kinds, args.per_class, args.source, known)


def read_both_kinds(args: argparse.Namespace) -> tuple[list[Clip], list[Clip]]:
    """The clips without speech and those with speech that :func:`add_both_kinds` names; errors as above."""
    _check_selection(args, [*args.nonspeech, *args.speech])
    return (
        read_clips(args.nonspeech, args.split, NONSPEECH_KINDS, args.per_class, args.source),
        read_clips(args.speech, args.split, ("speech",), args.per_class, args.source),
    )


def language_of_files(language: str | None) -> str:
    """What ``--language`` says of recordings that no manifest lists; "" for nothing."""
    return "" if language is None or language == OWN_LANGUAGE else language


def language_of_clip(known: str, language: str | None) -> str | None:
    """What ``--language`` has a clip transcribed in whose own language is ``known``; None: detect it."""
    return (known or None) if language == OWN_LANGUAGE else language


def _check_selection(args: argparse.Namespace, sources: Sequence[str]) -> None:
    if (args.split or args.source) and not any(Path(source).suffix == ".tsv" for source in sources):
        raise ManifestError("--split and --source choose lines of a manifest, and none is given")
