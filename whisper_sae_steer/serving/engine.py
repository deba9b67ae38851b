"""One model and a bounded queue in front of it: worker threads run the blocking jobs of async requests."""

import asyncio
import math
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, ParamSpec, TypeVar

from ..errors import SteerError
from ..faster import WhisperModel
from . import tracing
from .config import ServeConfig
from .errors import Busy
from .memory import Tidier
from .metrics import Metrics

P = ParamSpec("P")
T = TypeVar("T")

LONGEST_RETRY_SECONDS = 60
"""seconds; OpenAI's client heeds no longer Retry-After"""

_cancelled: ContextVar[threading.Event] = ContextVar("cancelled")


class Cancelled(Exception):
    """Ends a job that nobody waits for any more."""


def checkpoint() -> None:
    """Called by a job where it may stop: raises Cancelled if its client is gone. Elsewhere does nothing."""
    cancelled = _cancelled.get(None)
    if cancelled is not None and cancelled.is_set():
        raise Cancelled


class Slots:
    """At most ``size`` holders at a time; nobody is kept waiting. Thread-safe."""

    def __init__(self, size: int):
        self.size, self.taken = size, 0
        self._lock = threading.Lock()

    @property
    def has_free(self) -> bool:
        return self.taken < self.size

    def take(self) -> bool:
        """Whether there was one."""
        with self._lock:
            free = self.has_free
            self.taken += free
            return free

    def give_back(self) -> None:
        with self._lock:
            self.taken -= 1


class ServingEngine:
    """A model and the threads that work on it. ``uploads`` may be shared with others."""

    def __init__(
        self,
        config: ServeConfig,
        name: str,
        model: WhisperModel,
        metrics: Metrics,
        uploads: Slots | None = None,
    ):
        self.config, self.name, self.model, self.metrics = config, name, model, metrics.of(name)
        self.uploads = uploads or Slots(config.max_uploads)
        """held by uploads that come in, and by live sessions"""
        self._workers = config.workers_of_a_model
        self._jobs = Slots(config.jobs_of_a_model)
        self._pool = ThreadPoolExecutor(self._workers, "transcribe")
        self._job_seconds = 1.0
        """how long a job takes, as a running mean"""
        self._sessions = 0
        self.last_used = time.monotonic()
        self._tidier = Tidier()
        self.closing = False

    @property
    def is_multilingual(self) -> bool:
        return len(self.model.supported_languages) > 1

    @property
    def queued(self) -> int:
        """Jobs that wait for a worker."""
        return max(0, self._jobs.taken - self._workers)

    @property
    def running(self) -> int:
        """Jobs that a worker is at."""
        return self._jobs.taken - self.queued

    @property
    def idle_seconds(self) -> float:
        """Since the last job or session ended, or the model was asked for; 0 during one."""
        return 0.0 if self._sessions or self._jobs.taken else time.monotonic() - self.last_used

    @contextmanager
    def session(self) -> Generator[None]:
        """Something that brings jobs now and then: while it lasts the engine is not idle."""
        self._sessions += 1
        try:
            yield
        finally:
            self._sessions -= 1
            self.last_used = time.monotonic()

    @property
    def has_room(self) -> bool:
        """Whether a request now would be taken: received, and then transcribed."""
        return self.uploads.has_free and self._jobs.has_free and not self.closing

    def busy(self) -> Busy:
        """The refusal for now, with a guess of when to come back."""
        ahead = (self._jobs.taken or 1) / self._workers
        wait = min(LONGEST_RETRY_SECONDS, math.ceil(self._job_seconds * ahead))
        return Busy("the server is busy; try again later", max(1, wait))

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a blocking function, run by a worker; Busy if the queue is full.

        When the caller is cancelled the job is dropped, or ended at its next :func:`checkpoint`.
        """
        if not self._jobs.take():
            raise self.busy()
        cancelled, asked = threading.Event(), time.time_ns()

        def work() -> T:
            _cancelled.set(cancelled)
            tracing.waited("queue", asked)
            started = time.monotonic()
            try:
                with tracing.span("transcribe"):
                    return job(*args, **kwargs)
            except (Cancelled, SteerError) as error:
                error.__context__ = None  # frames would keep the recording until some garbage collection
                raise error.with_traceback(None) from None
            except (SystemExit, KeyboardInterrupt) as error:  # which would end the event loop
                raise RuntimeError("the job ended its thread") from error
            finally:
                seconds = time.monotonic() - started
                self.metrics.processing.inc(seconds)
                self._job_seconds += 0.1 * (seconds - self._job_seconds)

        future: Future[T] = self._pool.submit(copy_context().run, work)
        future.add_done_callback(self._ended)
        try:
            return await asyncio.wrap_future(future)
        finally:
            cancelled.set()

    def _ended(self, _: Future[Any]) -> None:
        """A job is over, or was dropped."""
        self.last_used = time.monotonic()
        self._jobs.give_back()
        self._tidier.used()

    async def draw(
        self, job: Callable[P, Iterable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncGenerator[T]:
        """What a blocking function yields, as it comes; as :meth:`run`, and cancelled when it is closed.

        The worker never waits for whoever draws, so a client that reads slowly holds up nobody.
        """
        loop, items = asyncio.get_running_loop(), asyncio.Queue[tuple[T] | None]()

        def work() -> None:
            for item in job(*args, **kwargs):
                checkpoint()
                loop.call_soon_threadsafe(items.put_nowait, (item,))

        task = asyncio.ensure_future(self.run(work))
        task.add_done_callback(lambda _: items.put_nowait(None))
        try:
            while (item := await items.get()) is not None:
                yield item[0]
            await task
        finally:
            task.cancel()

    def close(self) -> None:
        """Take no more jobs; those that run end at their next checkpoint if their caller is gone."""
        self.closing = True
        self._pool.shutdown(wait=False, cancel_futures=True)
