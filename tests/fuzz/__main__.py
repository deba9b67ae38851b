"""One case again, in this process; or cases of all kinds from 0 on, and their figures as JSON."""

import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.runner import KINDS, attempt_of, fuzz


def again(kind: str, seed: str) -> None:
    """Print what a case ends in, or the traceback of what it shouldn't have raised."""
    assert kind in KINDS, f"the kinds are {', '.join(KINDS)}"
    with tempfile.TemporaryDirectory() as folder:
        print(attempt_of(kind)(random.Random(f"{kind} {seed}"), Path(folder)))


def figures(cases: int) -> None:
    """Print outcomes, time in seconds, and the process's memory in MiB at every tenth of the way."""
    began, found = time.monotonic(), fuzz(cases)
    tenths = (cases * part // 10 for part in range(1, 11))
    told = {
        "cases": cases,
        "faults": found.faults,
        "outcomes": dict(sorted(found.outcomes.items())),
        "seconds": round(time.monotonic() - began),
        "longest case": round(max(found.seconds), 1),
        "memory": {str(number): found.resident.get(number - 1) for number in tenths},
    }
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    if len(sys.argv) == 2:
        figures(int(sys.argv[1]))
    else:
        again(*sys.argv[1:])
