"""A server under load: requests of all kinds at once, what became of them, how long it took, and its memory.

python -m benchmarks.serving.load --requests 1000 --out OUT
python -m benchmarks.serving.load --requests 1000 --room 1000 --out OUT

Kinds and outcomes are those of `traffic.py`. With --room so many may wait for a worker and be received at the
same time; without, the server's own limits refuse most. The same load comes twice to the same server: what
that takes more memory after the second than after the first, it would take again after each.
"""

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import httpx
import numpy as np

from ..arguments import script_parser
from ..results import as_json, write_results
from . import traffic
from .server import ServerProcess, started

SETTLE_SECONDS = 20.0
"""after the last answer, for what clients that left have begun"""

LOADS = 2
"""one after the other"""

WATCH_SECONDS = 0.5
"""between two looks at the server's memory"""


class Answer(NamedTuple):
    """Of one request."""

    kind: str
    outcome: str
    seconds: float


def main() -> None:
    """Start a server, load it, and write one object."""
    parser = script_parser(__doc__, "--out", model="tiny.en", compute_type="int8", threads=1)
    parser.add_argument("--requests", type=int, default=1000, help="at once (default: %(default)s)")
    parser.add_argument("--room", type=int, help="of the server's queue and uploads; left out: its own")
    args = parser.parse_args()
    options = ["--model", args.model, "--compute_type", args.compute_type, "--cpu_threads", str(args.threads)]
    if args.room:
        options += ["--max_queue", str(args.room), "--max_uploads", str(args.room)]
    with started(*options) as server:
        figures = {
            "room": args.room,
            "loads": [asyncio.run(load(server, args.requests)) for _ in range(LOADS)],
        }
    write_results(args.out, figures)
    print(as_json(figures))


async def load(server: ServerProcess, requests: int) -> dict[str, Any]:
    """Send ``requests``, always the same, at once; outcomes, latencies in seconds, memory in MiB."""
    random.seed(0)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=server.url, timeout=traffic.PATIENCE_SECONDS, limits=limits
    ) as client:
        cases = await traffic.known_cases(client)
        for kind in traffic.KINDS:  # what is loaded at its first use isn't the load's
            await traffic.ask(client, kind, cases[0])
        await asyncio.sleep(SETTLE_SECONDS)
        before, highest, late = server.resident, [server.resident], [0.0]
        watch = asyncio.create_task(_watch(server, highest, late))
        began = time.perf_counter()
        asked = ((traffic.choose_kind(), traffic.choose_case(cases)) for _ in range(requests))
        answers = await asyncio.gather(*(_ask(client, kind, case) for kind, case in asked))
        seconds = time.perf_counter() - began
        watch.cancel()
        await asyncio.sleep(SETTLE_SECONDS)
        again = Counter([await traffic.ask(client, "upload", case) for case in cases])
        await asyncio.sleep(SETTLE_SECONDS)
        after = server.resident
    return {
        "requests": requests,
        "seconds": round(seconds, 1),
        "outcomes": outcomes([(answer.kind, answer.outcome) for answer in answers]),
        "faults": sum(traffic.is_fault(answer.outcome) for answer in answers),
        "done": percentiles([answer.seconds for answer in answers if answer.outcome == "200"]),
        "refused": percentiles([answer.seconds for answer in answers if answer.outcome == "429"]),
        "client's event loop late": percentiles(late),
        "asked again afterwards": dict(again),
        "memory": {"before": before, "highest": max(highest), "after": after},
    }


def outcomes(found: Sequence[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """How often each kind of client got each outcome."""
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for kind, outcome in found:
        counted[kind][outcome] += 1
    return {kind: dict(sorted(counts.items())) for kind, counts in sorted(counted.items())}


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Of latencies, in seconds."""
    if not seconds:
        return {}
    return {f"p{p}": round(float(np.percentile(seconds, p)), 3) for p in (50, 90, 99, 100)}


async def _ask(client: httpx.AsyncClient, kind: str, case: traffic.Case) -> Answer:
    began = time.perf_counter()
    outcome = await traffic.ask(client, kind, case)
    return Answer(kind, outcome, time.perf_counter() - began)


async def _watch(server: ServerProcess, memory: list[float], late: list[float]) -> None:
    """Append twice a second to ``memory``, and to ``late`` the seconds by which this process was late."""
    while True:
        due = time.perf_counter() + WATCH_SECONDS
        await asyncio.sleep(WATCH_SECONDS)
        late.append(time.perf_counter() - due)
        memory.append(server.resident)


if __name__ == "__main__":
    main()
