"""Command lines: any options with any values. Exit code 2 comes with one line that says why.

The model never exists, so that no command line works for minutes; files are small or missing.
"""

import argparse
import io
import os
import random
import re
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

from tests.fuzz.damage import NASTY
from tests.support.serving_parts import wav
from whisper_sae_steer.cli import COMMANDS, PROGRAM, Command, main

os.environ["HF_HUB_OFFLINE"] = "1"

FILES = ("a.wav", "list.tsv", "empty", "folder", "none", ".", "", "/proc/below", "a.json", "a.safetensors")
WORDS = (
    "auto",
    "none",
    "base",
    "cpu",
    "cuda",
    "True",
    "False",
    "None",
    "0.5",
    "3",
    "speech=a.wav",
    "hub:a/b",
    "own",
)
MODEL = "no-such-model"
LOADED_BY_COMMANDS = ("transformers.models.whisper.modeling_whisper", "ray", "onnxruntime")
"""at their first use; takes seconds, and memory that is no case's"""


def attempt(dice: random.Random, folder: Path) -> str:
    """Run it in this process, in a folder with a few files."""
    (folder / "a.wav").write_bytes(wav(0.1))
    (folder / "list.tsv").write_text("path\tkind\na.wav\tspeech\n")
    (folder / "a.json").write_text("{}")
    (folder / "a.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (folder / "empty").touch()
    (folder / "folder").mkdir()
    out, said = io.StringIO(), io.StringIO()
    # freezing garbage each time would keep it
    with _working_in(folder), redirect_stdout(out), redirect_stderr(said), patch("gc.freeze"):
        try:
            code = main(_arguments(dice))
        except SystemExit as stop:
            code = stop.code
    last = [line for line in re.split(r"[\r\n]", said.getvalue()) if line.strip()][-1:]
    assert code in (0, 1, 2), code
    assert "Traceback" not in said.getvalue(), said.getvalue()
    assert code != 2 or (last and last[0].startswith(PROGRAM)), said.getvalue()[-1000:]
    return f"exit code {code}"


@contextmanager
def _working_in(folder: Path) -> Generator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@cache
def _parsers() -> dict[tuple[str, ...], argparse.ArgumentParser]:
    """Of all commands, to know their options."""
    for name in LOADED_BY_COMMANDS:
        with suppress(ImportError):  # of an extra
            import_module(name)
    found: dict[tuple[str, ...], argparse.ArgumentParser] = {}
    for name, entry in COMMANDS.items():
        below = (
            {(name,): entry}
            if isinstance(entry, Command)
            else {(name, n): c for n, c in entry.commands.items()}
        )
        for words, command in below.items():
            parser = argparse.ArgumentParser()
            import_module(command.module, "whisper_sae_steer").add_arguments(parser, *command.given)
            found[words] = parser
    return found


def _arguments(dice: random.Random) -> list[str]:
    words = dice.choice(list(_parsers()))
    actions = _parsers()[words]._actions
    given = list(words)
    for action in actions:
        is_asked = action.required or (not action.option_strings and action.nargs not in ("*", "?"))
        if dice.random() < (0.95 if is_asked else 3 / len(actions)):
            given += action.option_strings[-1:]
            if action.nargs != 0:
                given += [
                    _value(action, dice) for _ in range(dice.choice((1, 1, 1, 2)) if action.nargs else 1)
                ]
    if any("--model" in action.option_strings for action in actions):
        given += ["--model", MODEL]
    if dice.random() < 0.1:
        given.insert(dice.randrange(len(given) + 1), str(dice.choice(NASTY)))
    return [word.replace("\ud800", "?") for word in given]


def _value(action: argparse.Action, dice: random.Random) -> str:
    if action.choices and dice.random() < 0.8:
        return str(dice.choice(list(action.choices)))
    if dice.random() < 0.5 and action.default not in (None, argparse.SUPPRESS):
        return str(action.default)
    return dice.choice((*FILES, *FILES, *WORDS, str(dice.choice(NASTY))))
