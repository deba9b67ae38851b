"""Audio that waits in front of a session."""

import asyncio

import numpy as np
import pytest

from whisper_sae_steer.serving.sessions import BACKLOG_SECONDS, Backlog, TooLong

SECOND = np.ones(16_000, np.float32)


def test_audio_and_marks_come_in_the_order_in_which_they_were_put():
    async def taken() -> list[object]:
        backlog = Backlog[str](enough_seconds=0.5, longest_seconds=60)
        await backlog.mark("first")
        for _ in range(2):
            await backlog.put(SECOND[:100])
        await backlog.mark("second")
        await backlog.put(SECOND)
        found = [await backlog.take() for _ in range(4)]
        return [item if isinstance(item, str) else len(item) for item in found]

    assert asyncio.run(taken()) == ["first", 200, "second", 16_000]


def test_little_audio_waits_for_more():
    async def waits() -> None:
        backlog = Backlog[str](enough_seconds=0.5, longest_seconds=60)
        await backlog.put(SECOND[:7999])
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(backlog.take(), 0.02)
        await backlog.put(SECOND[:1])
        assert len(np.asarray(await backlog.take())) == 8000

    asyncio.run(waits())


def test_only_so_much_waits_of_whatever_is_put_at_once():
    async def waits() -> None:
        backlog = Backlog[str](enough_seconds=0.5, longest_seconds=200)
        putting = asyncio.create_task(backlog.put(np.tile(SECOND, 180)))
        await asyncio.sleep(0.02)
        assert not putting.done()
        lengths = [len(np.asarray(await backlog.take())) / 16_000]
        while sum(lengths) < 180:
            lengths.append(len(np.asarray(await backlog.take())) / 16_000)
        await putting
        assert max(lengths) <= BACKLOG_SECONDS

    asyncio.run(waits())


def test_a_session_has_an_end():
    with pytest.raises(TooLong, match="longer than 1 s"):
        asyncio.run(Backlog[str](0.5, 1).put(np.tile(SECOND, 2)))
