"""A server under load: many requests at once, what became of them, how long they took, and its memory.

whisper-sae-steer serve --model tiny.en --compute_type int8 &
python -m benchmarks.speed.serving samples/speech.ogg --requests 2000 --at_once 2000
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np

from ..arguments import script_parser

MB = 2**20


class Answer(NamedTuple):
    """Of one request."""

    status: str
    seconds: float


def main() -> None:
    """Load the server and print one JSON line."""
    parser = script_parser(__doc__)
    parser.add_argument("audio", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--at_once", type=int, default=100)
    args = parser.parse_args()
    print(json.dumps(asyncio.run(load(args.url, args.audio, args.requests, args.at_once))))


async def load(url: str, audio: Path, requests: int, at_once: int) -> dict[str, Any]:
    """Send ``requests`` with at most ``at_once`` open; their figures, and the server's memory in MiB."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        turn, file = asyncio.Semaphore(at_once), audio.read_bytes()
        memory = [await resident(client)]
        watch = asyncio.create_task(watch_memory(client, memory))
        started = time.perf_counter()
        answers = await asyncio.gather(*(ask(client, turn, file) for _ in range(requests)))
        seconds = time.perf_counter() - started
        watch.cancel()
        memory.append(await resident(client))
    return {
        "requests": requests,
        "at_once": at_once,
        "seconds": round(seconds, 2),
        "answers": dict(Counter(answer.status for answer in answers)),
        "done": percentiles([answer.seconds for answer in answers if answer.status == "200"]),
        "refused": percentiles([answer.seconds for answer in answers if answer.status == "429"]),
        "memory": {"before": memory[0], "highest": max(memory), "after": memory[-1]},
    }


async def ask(client: httpx.AsyncClient, turn: asyncio.Semaphore, file: bytes) -> Answer:
    """One transcript; what went wrong with the connection in the place of a status."""
    async with turn:
        started = time.perf_counter()
        try:
            answer = await client.post("/v1/audio/transcriptions", files={"file": ("audio", file)})
            status = str(answer.status_code)
        except httpx.HTTPError as error:
            status = type(error).__name__
        return Answer(status, time.perf_counter() - started)


async def watch_memory(client: httpx.AsyncClient, memory: list[float]) -> None:
    """Append to ``memory`` twice a second."""
    while True:
        await asyncio.sleep(0.5)
        memory.append(await resident(client))


async def resident(client: httpx.AsyncClient) -> float:
    """The server's resident memory, as it tells Prometheus, MiB."""
    name = "process_resident_memory_bytes "
    lines = (await client.get("/metrics")).text.splitlines()
    return round(next(float(line.removeprefix(name)) for line in lines if line.startswith(name)) / MB, 1)


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Of latencies, in seconds."""
    if not seconds:
        return {}
    return {f"p{p}": round(float(np.percentile(seconds, p)), 3) for p in (50, 90, 99, 100)}


if __name__ == "__main__":
    main()
