"""Options that several commands have: one name, one default and one help each."""

import argparse
from argparse import _ArgumentGroup as ArgumentGroup  # pyright: ignore[reportPrivateUsage]

Parser = argparse.ArgumentParser | ArgumentGroup


def add_model(parser: Parser) -> None:
    """``--model``: which Whisper."""
    parser.add_argument("--model", default="base", help="name or path of a Whisper model")


def add_pack(parser: Parser, may_be_none: bool = True) -> None:
    """``--pack``: what steers it; read by :func:`pack_named` where it may be none."""
    none = " or none" if may_be_none else ""
    parser.add_argument(
        "--pack",
        default="auto",
        help=f"steering pack: a path, hub:owner/name, auto (installed or shipped){none}",
    )


def pack_named(word: str) -> str | None:
    """The pack that a word on the command line asks for, as ``load_model`` takes it: None for ``none``."""
    return None if word == "none" else word


def add_sae(parser: Parser, auto: str) -> None:
    """``--sae`` and ``--layer``: which sparse autoencoder; ``auto`` says what that word stands for."""
    add = parser.add_argument
    add("--sae", default="auto", metavar="DIR", help=f"SAE: a folder, or owner/name on the hub; {auto}")
    add("--layer", type=layer, metavar="N",
        help="which of several SAEs, as their folders count blocks: AudioSAE's from 1, saes/ from 0;"
        " packs inside the encoder need the torch back end")  # fmt: skip


def layer(text: str) -> int | str:
    """A layer's number, or the name of its folder."""
    return int(text) if text.isdecimal() else text


def add_threads(parser: Parser) -> None:
    """``--threads`` of this process."""
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves them to the libraries")
