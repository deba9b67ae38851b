"""Options that several commands have: one name, one default and one help each."""

import argparse
import shlex
from argparse import _ArgumentGroup as ArgumentGroup  # pyright: ignore[reportPrivateUsage]
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ..errors import SteerError
from .values import COMPUTE_TYPES, ComputeType, device, threads

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


def add_threads(parser: Parser, help: str = "CPU threads; 0 leaves them to the libraries") -> None:
    """``--threads`` of this process, or of whatever ``help`` says."""
    parser.add_argument("--threads", type=threads, default=0, help=help)


def add_device(parser: Parser) -> None:
    """``--device`` of commands that compute with torch."""
    import torch  # which their modules import as well

    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=device, default=default, help="cpu, cuda or cuda:N")


def add_compute_type(parser: Parser, what_for: str, default: ComputeType = "default") -> None:
    """``--compute_type`` of CTranslate2; ``what_for`` says where it counts."""
    help = f"{what_for}: %(choices)s"
    parser.add_argument("--compute_type", choices=COMPUTE_TYPES, default=default, metavar="TYPE", help=help)


def check_compute_type(compute_type: str, device: str) -> None:
    """SteerError for a compute type of CTranslate2 that a device of this machine lacks."""
    import ctranslate2  # not for --help

    kind = device.partition(":")[0]
    if kind == "auto":
        kind = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
    try:
        known = sorted(ctranslate2.get_supported_compute_types(kind))
    except (RuntimeError, ValueError) as error:
        raise SteerError(f"--device {device}: {error}") from error
    if compute_type not in ("default", "auto", *known):
        raise SteerError(f"--compute_type {compute_type}: {kind} here takes default, {', '.join(known)}")


@contextmanager
def loading(model: str, device: str) -> Generator[None]:
    """Turn what a library says of a device or compute type that this machine lacks into a SteerError."""
    try:
        yield
    except SteerError:
        raise
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise SteerError(f"can't load {model} on {device}: {reason}") from error


def how_to_use(model: str, tap: str, pack: Path | None = None) -> str:
    """Lines of Python and of the command line that steer a model; ``pack`` where it isn't installed."""
    python, option = ("", "") if pack is None else (f', pack="{pack}"', f" --pack {shlex.quote(str(pack))}")
    command = f"  whisper-sae-steer transcribe AUDIO --model {shlex.quote(model)}{option} --backend"
    lines = [f'  whisper_sae_steer.load_model("{model}"{python}).transcribe("AUDIO")', f"{command} openai"]
    if tap == "encoder_output":  # CTranslate2 gives out nothing else
        lines += [
            f'  whisper_sae_steer.faster.WhisperModel("{model}"{python}).transcribe("AUDIO")',
            f"{command} faster",
        ]
    return "\n".join(lines)
