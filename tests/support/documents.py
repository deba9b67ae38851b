"""The blocks of the project's texts: found, parsed as commands, and run.

Each block in a fence has a marker above it, which readers don't see:

    <!-- run -->             run by the tests; a block of kind ``text`` under it is what it prints
    <!-- run: slow -->       run by ``pytest -m slow``
    <!-- run: server -->     started, for the next kind
    <!-- run: client -->     run against the server
    <!-- run: browser -->    opened in a browser (tests/serving/test_browser_client.py)
    <!-- not run: why -->    neither

The blocks of a page are run in order, in one folder and, if they are Python, with one set of names.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.paths import ROOT
from whisper_sae_steer import cli

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(r"(?:^<!-- (not run|run)(?:: (.+?))? -->\n)?^```(\S*)[^\n]*\n(.*?)^```$", re.M | re.S)
INLINE = re.compile(r"`(whisper-sae-steer [^`…]+)`")
REDIRECTION = re.compile(r"\s\d?>\s*\S+")
SHELL = ("bash", "sh", "console", "")
PROGRAM = "whisper-sae-steer"


class Block(NamedTuple):
    line: int
    """of its fence on the page, from 1"""
    marker: str
    """``run``, ``not run``, or empty"""
    role: str
    """what the marker says beside that: slow, server, client, or why it isn't run"""
    language: str
    code: str
    printed: str | None
    """what stands under it as its output"""


def blocks(page: Path) -> list[Block]:
    """All blocks of a page but those that are the output of another."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0
    for match in FENCE.finditer(text):
        marker, role, language, code = (group or "" for group in match.groups())
        if language == "text" and not marker and found and not text[end : match.start()].strip():
            found[-1] = found[-1]._replace(printed=code)
        else:
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(line, marker, role, language, code, None))
        end = match.end()
    return found


def commands(text: str) -> Iterator[list[str]]:
    """Arguments of each ``whisper-sae-steer`` in lines of a shell."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(REDIRECTION.sub("", line), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        command: list[str] = []
        for word in [*lexer, "&&"]:
            if set(word) <= set("&|;<>()"):
                yield from _arguments(command)
                command = []
            else:
                command.append(word)


def _arguments(words: list[str]) -> Iterator[list[str]]:
    for i, word in enumerate(words):
        if Path(word).name == PROGRAM:
            yield words[i + 1 :]
            return
        if word == "whisper_sae_steer" and words[i - 1] == "-m":
            yield words[i + 1 :]
            return


def commands_of(page: Path) -> list[list[str]]:
    """Arguments of every command on a page, in blocks and in the text."""
    shell = [block.code for block in blocks(page) if block.language in SHELL]
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    inline = [" ".join(found.split()) for found in INLINE.findall(prose)]
    return [arguments for text in (*shell, *inline) for arguments in commands(text) if arguments]


def run(block: Block, names: dict[str, Any]) -> None:
    """Run a block in the current folder; a command of this package in this process."""
    if block.language == "python":
        exec(compile(block.code, f"line {block.line}", "exec"), names)
    elif (own := list(commands(block.code))) and len(own) == len(_lines(block.code)):
        for arguments in own:
            assert cli.main(arguments) == 0, arguments
    else:
        print(run_apart(block), end="")


def run_apart(block: Block) -> str:
    """What a block prints in a process of its own."""
    shell = ["bash", "-ec"] if block.language in SHELL else [sys.executable, "-c"]
    done = subprocess.run(
        [*shell, block.code], env=environment(), stdout=subprocess.PIPE, text=True, check=True, timeout=900
    )
    return done.stdout


def environment() -> dict[str, str]:
    """With the commands of this interpreter's environment in the path."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def _lines(code: str) -> list[str]:
    lines = code.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def assert_printed(printed: str, block: Block) -> None:
    """Line by line; another number of threads may change a word of what is said, no more."""
    if block.printed is None:
        return
    lines, expected = printed.splitlines(), block.printed.splitlines()
    assert len(lines) == len(expected), printed
    for line, other in zip(lines, expected, strict=True):
        assert SequenceMatcher(None, line, other, autojunk=False).ratio() > 0.95, line
