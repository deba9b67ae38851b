"""The queue in front of the model: bounded, cancellable, and never in the way of the event loop."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest

from tests.support.serving_parts import ModelAsTold
from whisper_sae_steer.serving import memory
from whisper_sae_steer.serving.config import ServeConfig
from whisper_sae_steer.serving.engine import Cancelled, ServingEngine, checkpoint
from whisper_sae_steer.serving.errors import ApiError, Busy
from whisper_sae_steer.serving.metrics import Metrics


def an_engine(**options: Any) -> ServingEngine:
    return ServingEngine(ServeConfig(**options), "some-model", cast(Any, ModelAsTold()), Metrics())


async def soon(condition: Any) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


def test_jobs_beyond_the_queue_are_refused_and_its_length_is_shown() -> None:
    engine, go = an_engine(workers=2, max_queue=1), threading.Event()

    async def ask() -> list[Any]:
        jobs = [asyncio.ensure_future(engine.run(go.wait)) for _ in range(3)]
        await soon(lambda: engine.queued == 1)
        assert not engine.has_room
        assert (engine.queued, engine.running) == (1, 2)
        with pytest.raises(Busy):
            await engine.run(go.wait)
        go.set()
        return await asyncio.gather(*jobs)

    assert asyncio.run(ask()) == [True] * 3
    assert engine.has_room
    assert (engine.queued, engine.running) == (0, 0)


def test_there_is_no_room_while_uploads_hold_all_slots() -> None:
    engine = an_engine(max_uploads=2)
    assert engine.uploads.take()
    assert engine.has_room
    assert engine.uploads.take()
    assert not engine.has_room
    engine.uploads.give_back()
    assert engine.has_room


def test_the_wait_that_is_named_grows_with_queue_and_work() -> None:
    engine, go = an_engine(workers=1, max_queue=9), threading.Event()

    async def ask(jobs: int) -> str:
        futures = [asyncio.ensure_future(engine.run(go.wait)) for _ in range(jobs)]
        await soon(lambda: engine.queued == jobs - 1)
        named = engine.busy().headers["Retry-After"]
        go.set()
        await asyncio.gather(*futures)
        go.clear()
        return named

    assert [asyncio.run(ask(jobs)) for jobs in (1, 4)] == ["1", "4"]
    engine._job_seconds = 1e6
    assert engine.busy().headers["Retry-After"] == "60"


def test_a_cancelled_job_ends_at_its_checkpoint_and_a_waiting_one_never_begins() -> None:
    engine = an_engine(workers=1, max_queue=1)
    ended, begun = threading.Event(), threading.Event()

    def long() -> None:
        begun.set()
        try:
            while True:
                checkpoint()
        except Cancelled:
            ended.set()
            raise

    async def ask() -> None:
        running = asyncio.ensure_future(engine.run(long))
        await soon(begun.is_set)
        never = threading.Event()
        waiting = asyncio.ensure_future(engine.run(never.set))
        await soon(lambda: engine.queued == 1)
        for job in (waiting, running):
            job.cancel()
        await asyncio.gather(waiting, running, return_exceptions=True)
        await soon(ended.is_set)
        await soon(lambda: engine._jobs.taken == 0)
        assert not never.is_set()

    asyncio.run(ask())
    checkpoint()  # outside of a job: nothing


def test_draw_gives_items_as_they_come_and_then_the_jobs_error() -> None:
    engine, go = an_engine(), threading.Event()

    def job(count: int) -> Iterator[int]:
        yield from range(count)
        go.wait()
        yield count
        raise ValueError("broken")

    async def ask() -> list[int]:
        items = engine.draw(job, 2)
        got = [await anext(items), await anext(items)]
        go.set()
        got.append(await anext(items))
        with pytest.raises(ValueError, match="broken"):
            await anext(items)
        return got

    assert asyncio.run(ask()) == [0, 1, 2]


def test_nothing_of_a_refused_job_stays_in_memory() -> None:
    engine, recordings = an_engine(), list[Any]()

    def job() -> Iterator[int]:
        recording = np.zeros(100_000)
        recordings.append(weakref.ref(recording))
        yield 0
        try:
            recording[0] = 1 / 0
        except ZeroDivisionError:
            raise ApiError(400, "damaged") from None

    async def ask() -> None:
        with pytest.raises(ApiError):
            async for _ in engine.draw(job):
                pass

    gc.disable()
    try:
        asyncio.run(ask())
        assert recordings[0]() is None
    finally:
        gc.enable()


def test_memory_is_given_back_a_while_after_jobs_also_while_others_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times: list[float] = []
    monkeypatch.setattr(memory, "give_back_memory", lambda: times.append(time.monotonic()))
    monkeypatch.setattr(memory, "TIDY_SECONDS", 0.3)
    engine, go = an_engine(workers=2), threading.Event()

    async def ask() -> None:
        longer = asyncio.ensure_future(engine.run(go.wait))
        await asyncio.sleep(0.5)
        assert not times
        for count in (1, 2):
            over = time.monotonic()
            for _ in range(3):
                await engine.run(int)
            await asyncio.sleep(1)
            assert len(times) == count  # once for all of them
            assert times[-1] - over > 0.25
        go.set()
        await longer

    asyncio.run(ask())


def test_a_slow_reader_does_not_hold_the_worker_and_one_that_stops_ends_the_job() -> None:
    engine, done = an_engine(), threading.Event()

    def short() -> Iterator[int]:
        yield from range(1000)
        done.set()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            done.set()

    async def ask() -> None:
        items = engine.draw(short)
        assert await anext(items) == 0
        await soon(done.is_set)  # though nobody reads on
        await items.aclose()
        done.clear()
        async for _ in (items := engine.draw(endless)):
            await items.aclose()
        await soon(done.is_set)
        await soon(lambda: engine._jobs.taken == 0)

    asyncio.run(ask())
