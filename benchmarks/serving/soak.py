"""A server that is used for hours: what became of its requests, and whether its memory grows.

nice python -m benchmarks.serving.soak --minutes 60 --out OUT

A few clients, of all kinds of `traffic.py`, ask one request after the other and wait so long in between that
the server takes a share of one core.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import numpy as np

from ..arguments import script_parser
from ..results import as_json, write_results
from . import traffic
from .load import outcomes
from .server import ServerProcess, started

CLIENTS = 3
SAMPLE_SECONDS = 1.0
"""between two looks at the memory"""
WARM_MINUTES = 10.0
"""left out of the slope"""


def main() -> None:
    """Start a server, use it, and write one object."""
    parser = script_parser(__doc__, "--out", model="tiny.en", compute_type="int8", threads=1)
    parser.add_argument("--minutes", type=float, default=60, help="(default: %(default)s)")
    parser.add_argument("--share", type=float, default=0.33, help="of a core (default: %(default)s)")
    args = parser.parse_args()
    random.seed(0)
    options = ["--model", args.model, "--compute_type", args.compute_type, "--cpu_threads", str(args.threads)]
    with started(*options) as server:
        figures = asyncio.run(soak(server, args.minutes, args.share))
    write_results(args.out, figures)
    print(as_json(figures))


async def soak(server: ServerProcess, minutes: float, share: float) -> dict[str, Any]:
    """Use the server; outcomes, and MiB of memory: median and least of each minute, and their growth.

    The least is what is held: the rest is work in progress.
    """
    async with httpx.AsyncClient(base_url=server.url, timeout=traffic.PATIENCE_SECONDS) as client:
        cases = await traffic.known_cases(client)
        began, used = time.monotonic(), server.cpu_seconds
        found: list[tuple[str, str]] = []
        memory: list[tuple[float, float]] = []

        def elapsed() -> float:
            return time.monotonic() - began

        async def use() -> None:
            while elapsed() < minutes * 60:
                kind = traffic.choose_kind()
                found.append((kind, await traffic.ask(client, kind, traffic.choose_case(cases))))
                await asyncio.sleep(0.1)
                while server.cpu_seconds - used > share * elapsed():
                    await asyncio.sleep(0.5)

        async def watch() -> None:
            while True:
                memory.append((elapsed() / 60, server.resident))
                await asyncio.sleep(SAMPLE_SECONDS)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(use() for _ in range(CLIENTS)))
        watching.cancel()
        taken = server.cpu_seconds - used
    least = by_minute(memory, np.min)
    return {
        "minutes": minutes,
        "share of a core": round(taken / elapsed(), 2),
        "requests": len(found),
        "outcomes": outcomes(found),
        "faults": sum(traffic.is_fault(outcome) for _, outcome in found),
        "memory by minute": by_minute(memory, np.median),
        "slope": slope(memory),
        "least memory by minute": least,
        "slope of the least": slope(list(enumerate(least))),
    }


def by_minute(memory: Sequence[tuple[float, float]], of: Callable[[list[float]], Any]) -> list[float]:
    """Of the (minute, MiB) of each minute."""
    minutes = sorted({int(minute) for minute, _ in memory})
    return [round(float(of([mib for when, mib in memory if int(when) == minute])), 1) for minute in minutes]


def slope(memory: Sequence[tuple[float, float]]) -> float | None:
    """Least-squares growth of (minute, MiB) once it is warm, MiB in 10 minutes; None of less than two."""
    warm = [point for point in memory if point[0] >= WARM_MINUTES]
    if len(warm) < 2:
        return None
    minutes, mib = np.array(warm).T
    return round(float(np.polyfit(minutes, mib, 1)[0]) * 10, 2)


if __name__ == "__main__":
    main()
