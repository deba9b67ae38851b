"""What every protocol for live audio shares: audio waits in front of a session, whose steps are jobs."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable

import numpy as np
from numpy.typing import NDArray

from ..audio.units import SAMPLE_RATE
from ..streaming import StreamingTranscriber, Update
from .engine import ServingEngine
from .errors import ApiError, Busy

BACKLOG_SECONDS = 10.0
"""of audio that may wait; then nothing is read, and the client's connection fills up"""
BUSY_SECONDS = 30.0
"""to wait for a free worker"""


class TooLong(ApiError):
    """A session that brings more audio than the server takes."""

    def __init__(self, longest_seconds: float):
        super().__init__(413, f"the session is longer than {longest_seconds:g} s", "audio_too_long")


class Backlog:
    """Audio between the client and the worker: at most a few seconds wait."""

    def __init__(self, enough_seconds: float):
        self._enough_samples = enough_seconds * SAMPLE_RATE
        self._chunks: deque[NDArray[np.float32]] = deque()
        self._samples = 0
        self._ended = False
        self._changed = asyncio.Condition()

    async def put(self, samples: NDArray[np.float32]) -> None:
        """Append samples [n] as soon as there is room."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._samples < BACKLOG_SECONDS * SAMPLE_RATE)
            self._chunks.append(samples)
            self._samples += len(samples)
            self._changed.notify_all()

    async def end(self) -> None:
        """No more will come."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def take(self) -> NDArray[np.float32] | None:
        """All that waits, once it is enough for a step or the last; None at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._ended or self._samples >= self._enough_samples)
            if not self._chunks:
                return None
            samples = np.concatenate(self._chunks)
            self._chunks.clear()
            self._samples = 0
            self._changed.notify_all()
            return samples


class LiveSession:
    """Audio of one client in, text out: one task puts, another draws :meth:`updates`.

    ``min_chunk``: seconds of new audio that are enough for a step, as the transcriber's.
    """

    def __init__(self, engine: ServingEngine, transcriber: StreamingTranscriber, min_chunk: float):
        self.transcriber = transcriber
        self._engine, self._backlog = engine, Backlog(min_chunk)
        self._seconds = 0.0
        self.is_over = False
        """whether the last update is there"""

    async def put(self, samples: NDArray[np.float32]) -> None:
        """Append samples [n], 16 kHz mono, as soon as there is room. Raises TooLong."""
        self._seconds += len(samples) / SAMPLE_RATE
        if self._seconds > self._engine.config.max_audio_seconds:
            raise TooLong(self._engine.config.max_audio_seconds)
        await self._backlog.put(samples)

    async def end(self) -> None:
        """No more audio will come."""
        await self._backlog.end()

    async def updates(self) -> AsyncGenerator[Update]:
        """An update whenever audio was listened to, the session's last one after the end. Raises Busy.

        All that waits is fed in one go: a session that fell behind catches up, as that costs less.
        """
        with self._engine.session():
            while (samples := await self._backlog.take()) is not None:
                yield await self._step(self.transcriber.feed, samples)
            self._engine.metrics.audio.inc(self.transcriber.seconds)
            update = await self._step(self.transcriber.finish)
            self.is_over = True
            yield update

    async def _step(self, job: Callable[..., Update], *samples: NDArray[np.float32]) -> Update:
        """One step by a worker; waits for room in the queue."""
        deadline = asyncio.get_running_loop().time() + BUSY_SECONDS
        while True:
            try:
                update = await self._engine.run(job, *samples)
            except Busy:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.1)
            else:
                self._engine.metrics.segments.inc(len(update.final))
                return update
