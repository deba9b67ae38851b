"""Workers for the engines' tests: they need no model, and die when they are told to."""

import os
import signal
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from whisper_sae_steer.batch.engine import Worker
from whisper_sae_steer.errors import PackError


def doubler() -> Worker:
    """Doubles numbers. A path: kills its process, the first time only if its name says `once`."""

    def work(item: Any) -> Any:
        if isinstance(item, Path):
            if "once" not in item.name or not item.exists():
                item.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return "survived"
        return 2 * item

    return work


def with_a_lock() -> Worker:
    """Holds a semaphore of the system's, which its process must release."""
    lock = get_context("spawn").RLock()

    def work(item: Any) -> Any:
        with lock:
            return item

    return work


def broken() -> Worker:
    raise PackError("no such pack")


def dead_on_arrival() -> Worker:
    os._exit(3)


def dead_on_arrival_but(alive: int, order: Path) -> Worker:
    """Of all that are made only number ``alive`` doesn't die at once; they are counted in a folder."""
    for number in range(100):
        try:
            (order / str(number)).touch(exist_ok=False)
        except FileExistsError:
            continue
        return doubler() if number == alive else dead_on_arrival()
    raise AssertionError("workers are made without end")
