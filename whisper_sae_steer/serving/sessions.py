"""What every protocol for live audio shares: audio waits in front of a session, whose steps are jobs."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..audio.units import SAMPLE_RATE
from ..streaming import StreamingTranscriber, Update
from .engine import ServingEngine
from .errors import ApiError, Busy

Mark = TypeVar("Mark")

BACKLOG_SECONDS = 60.0
"""of audio that may wait, longer than sessions wait for a worker; then nothing is read, the client's pings
aren't answered, and its connection fills up"""
BUSY_SECONDS = 30.0
"""to wait for a free worker"""


class TooLong(ApiError):
    """A session that brings more audio than the server takes."""

    def __init__(self, longest_seconds: float):
        super().__init__(413, f"the session is longer than {longest_seconds:g} s", "audio_too_long")


class Backlog(Generic[Mark]):
    """Audio between the client and the worker: at most a minute of it waits, and marks between them."""

    def __init__(self, enough_seconds: float, longest_seconds: float):
        self._enough_samples, self._longest_seconds = enough_seconds * SAMPLE_RATE, longest_seconds
        self._items: deque[NDArray[np.float32] | Mark] = deque()
        self._marks = 0
        """how many of the items are marks"""
        self._waiting = self._total = 0
        """samples that wait, and all that came"""
        self._changed = asyncio.Condition()

    async def put(self, samples: NDArray[np.float32]) -> None:
        """Append samples [n], 16 kHz mono, a second at a time as soon as there is room. Raises TooLong."""
        self._total += len(samples)
        if self._total > self._longest_seconds * SAMPLE_RATE:
            raise TooLong(self._longest_seconds)
        for start in range(0, len(samples), SAMPLE_RATE):
            async with self._changed:
                await self._changed.wait_for(lambda: self._waiting < BACKLOG_SECONDS * SAMPLE_RATE)
                piece = samples[start : start + SAMPLE_RATE]
                self._items.append(piece)
                self._waiting += len(piece)
                self._changed.notify_all()

    async def mark(self, mark: Mark) -> None:
        """Append a mark."""
        async with self._changed:
            self._items.append(mark)
            self._marks += 1
            self._changed.notify_all()

    async def take(self) -> NDArray[np.float32] | Mark:
        """All audio before the next mark, once it is enough for a step or a mark is there; then the mark."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._marks or self._waiting >= self._enough_samples)
            first = self._items.popleft()
            if not isinstance(first, np.ndarray):
                self._marks -= 1
                return first
            chunks = [first]
            while self._items and isinstance(following := self._items[0], np.ndarray):
                chunks.append(following)
                self._items.popleft()
            samples = np.concatenate(chunks)
            self._waiting -= len(samples)
            self._changed.notify_all()
            return samples


async def run_step(
    engine: ServingEngine, job: Callable[..., Update], *samples: NDArray[np.float32]
) -> Update:
    """One step of a session by a worker; waits for room in the queue, at last raises Busy."""
    deadline = asyncio.get_running_loop().time() + BUSY_SECONDS
    while True:
        try:
            update = await engine.run(job, *samples)
        except Busy:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            for segment in update.final:
                engine.metrics.wrote(segment.hallucination_risk)
            return update


class LiveSession:
    """Audio of one client in, text out: one task puts, another draws :meth:`updates`.

    ``min_chunk``: seconds of new audio that are enough for a step.
    """

    def __init__(self, engine: ServingEngine, transcriber: StreamingTranscriber, min_chunk: float):
        self.transcriber = transcriber
        self._engine = engine
        self._backlog = Backlog[None](min_chunk, engine.config.max_audio_seconds)
        """its only mark is the end"""
        self.is_over = False
        """whether the last update is there"""

    async def put(self, samples: NDArray[np.float32]) -> None:
        """Append samples [n], 16 kHz mono, as soon as there is room. Raises TooLong."""
        await self._backlog.put(samples)

    async def end(self) -> None:
        """No more audio will come."""
        await self._backlog.mark(None)

    async def updates(self) -> AsyncGenerator[Update]:
        """An update whenever audio was listened to, the session's last one after the end. Raises Busy.

        All that waits is fed in one go: a session that fell behind catches up, as that costs less.
        """
        with self._engine.session():
            while (samples := await self._backlog.take()) is not None:
                yield await run_step(self._engine, self.transcriber.feed, samples)
            self._engine.metrics.audio.inc(self.transcriber.seconds)
            update = await run_step(self._engine, self.transcriber.finish)
            self.is_over = True
            yield update
