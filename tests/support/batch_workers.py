"""Workers for the engines' tests: they need no model, and die when they are told to."""

import os
import signal
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


def broken() -> Worker:
    raise PackError("no such pack")


def dead_on_arrival() -> Worker:
    os._exit(3)
