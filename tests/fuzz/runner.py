"""Tries cases in a child process and watches it: errors nobody meant, crashes, hangs and memory.

Cases are numbered; the kinds take turns. The child writes a line of JSON before and after each case, so that
the case that kills it, or that it hangs in, is known by kind and seed.
"""

import faulthandler
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, TextIO

import psutil

from whisper_sae_steer.errors import SteerError
from whisper_sae_steer.serving.memory import give_back_memory, share_one_arena

KINDS = tuple(sorted(module.name for module in iter_modules([str(Path(__file__).with_name("kinds"))])))
CASE_SECONDS = 10.0
START_SECONDS = 120.0
"""for the first case of each kind, which loads what the kind needs"""
ROOT = Path(__file__).parents[2]
OFFLINE = {**os.environ, "HF_HUB_OFFLINE": "1"}
"""or the hub is asked for five times, where a command line names a model that nobody has"""
Attempt = Callable[[random.Random, Path], str]
"""Makes an input in a folder and gives it to the package: a word for what it ends in, or SteerError"""


@dataclass
class Found:
    """What became of the cases."""

    outcomes: Counter[str] = field(default_factory=Counter[str])
    """by kind and outcome, as ``audio: read``"""
    faults: list[str] = field(default_factory=list[str])
    """kind and seed of each bad case, with the command that tries it again and what went wrong"""
    seconds: list[float] = field(default_factory=list[float])
    resident: dict[int, float] = field(default_factory=dict[int, float])
    """the child's memory in MiB after the case of that number; empty after a restart"""


def attempt_of(kind: str) -> Attempt:
    return import_module(f"tests.fuzz.kinds.{kind}").attempt


def fuzz(cases: int, kinds: Sequence[str] = KINDS) -> Found:
    """Try cases 0 to ``cases`` of these kinds in turn; a child that dies is replaced by another."""
    found, following = Found(), 0
    while following < cases:
        following = _watch(following, cases, kinds, found)
    return found


def _watch(first: int, cases: int, kinds: Sequence[str], found: Found) -> int:
    """Let one child try cases from the first on; the number of the one after the last that was tried."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "tests.fuzz.runner", str(first), str(cases), str(writing), *kinds]
    with tempfile.TemporaryFile("w+") as errors, os.fdopen(reading) as lines:
        child = subprocess.Popen(
            command, cwd=ROOT, env=OFFLINE, stdout=subprocess.DEVNULL, stderr=errors, pass_fds=[writing]
        )
        os.close(writing)
        number, started = first, set[str]()
        try:
            for number in range(first, cases):
                kind = kinds[number % len(kinds)]
                patience = CASE_SECONDS if kind in started else START_SECONDS
                started.add(kind)
                if problem := _case(child, lines, number, kind, patience, found):
                    found.faults.append(f"{_again(kind, number)}: {problem}\n{_tail(errors)}")
                    found.resident.clear()
                    return number + 1
            return cases
        finally:
            child.kill()
            child.wait()


def _case(
    child: subprocess.Popen[bytes], lines: TextIO, number: int, kind: str, patience: float, found: Found
) -> str | None:
    """Wait for one case; what was wrong with the child, if anything."""
    if not select.select([lines], [], [], patience)[0]:
        child.send_signal(signal.SIGABRT)  # faulthandler tells where it was
        child.wait()
        return f"not over after {patience:g} s"
    line = lines.readline()
    if not line:
        return f"the process ended with {child.wait()}"
    told: dict[str, Any] = json.loads(line)
    found.seconds.append(told["seconds"])
    found.resident[number] = told["resident"]
    if "error" in told:
        found.faults.append(f"{_again(kind, number)}:\n{told['error']}")
    else:
        found.outcomes[f"{kind}: {told['outcome']}"] += 1
    return None


def _again(kind: str, seed: int) -> str:
    return f"python -m tests.fuzz {kind} {seed}"


def _tail(errors: TextIO) -> str:
    errors.seek(0)
    return errors.read()[-3000:]


def _child(first: int, cases: int, writing: int, kinds: Sequence[str]) -> None:
    faulthandler.enable()
    share_one_arena()
    process = psutil.Process()
    with os.fdopen(writing, "w", buffering=1) as out:
        for number, told in enumerate(_told(first, cases, kinds), first):
            if (number + 1) % 1000 == 0:
                give_back_memory()  # as the server does; what is left is held
            resident = round(process.memory_info().rss / 2**20, 1)
            out.write(json.dumps({**told, "resident": resident}) + "\n")


def _told(first: int, cases: int, kinds: Sequence[str]) -> Iterator[dict[str, Any]]:
    for number in range(first, cases):
        kind = kinds[number % len(kinds)]
        attempt, dice = attempt_of(kind), random.Random(f"{kind} {number}")
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcome = {"outcome": attempt(dice, Path(folder))}
            except SteerError as error:
                outcome = (
                    {"outcome": "refused"}
                    if "\n" not in str(error)
                    else {"error": f"an error of several lines: {error}"}
                )
            except Exception:
                outcome = {"error": traceback.format_exc()}
        yield {**outcome, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    _child(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
