"""Tasks of a session."""

import asyncio
import gc
import weakref

import pytest

from whisper_sae_steer.serving.sockets import together


class Audio:
    """Of a session."""


@pytest.mark.parametrize("failing", [0, 1])
def test_what_tasks_held_goes_with_them(failing: int) -> None:
    async def work(audio: Audio, number: int) -> None:
        async def client_goes() -> None:
            if number == failing:
                raise ConnectionError(f"with {audio}")
            await asyncio.sleep(60)

        await asyncio.wait_for(client_goes(), 60)

    async def session() -> weakref.ref[Audio]:
        audio = Audio()
        held = weakref.ref(audio)
        works = [work(audio, number) for number in range(2)]
        del audio
        with pytest.raises(ConnectionError):
            await together(*works)
        return held

    gc.disable()
    try:
        assert asyncio.run(session())() is None
    finally:
        gc.enable()
