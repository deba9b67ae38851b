"""Events of clients that may send anything, read within limits of size and time."""

import asyncio
from typing import NoReturn, cast

from wyoming.event import Event, async_read_event

from ..errors import ApiError

MESSAGE_BYTES = 2**20
"""largest data and largest payload of an event: half a minute of 16-bit samples at 16 kHz"""


class BadEvent(ApiError):
    """What a client sends is no event, or none that may come now."""

    def __init__(self, message: str):
        super().__init__(400, message, "invalid_event")


class Gone(Exception):
    """The client hung up, or doesn't read what it is sent."""


class Events:
    """The events of a connection, read one ahead: so a client that hangs up is noticed at any time."""

    def __init__(self, reader: asyncio.StreamReader):
        self._reader = _LimitedReader(reader)
        self._ahead: asyncio.Task[Event] | None = None

    async def next(self, seconds: float) -> Event:
        """The next one. Raises Gone, BadEvent, and ApiError 408 if it isn't there in time."""
        task = self._read_ahead()
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            raise ApiError(408, "nothing came for too long", "idle")
        self._ahead = None
        return task.result()

    async def until_gone(self) -> NoReturn:
        """Raises Gone when the client hangs up, BadEvent when it sends what is none."""
        await asyncio.shield(self._read_ahead())
        while True:  # with an event ahead, nobody sees what comes after it
            await asyncio.sleep(3600)

    async def close(self) -> None:
        """Read no more."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)

    def _read_ahead(self) -> asyncio.Task[Event]:
        if self._ahead is None:
            self._ahead = asyncio.create_task(self._reader.event())
        return self._ahead


class _LimitedReader:
    """Stands before the reader that the package takes events from."""

    def __init__(self, reader: asyncio.StreamReader):
        self._reader = reader

    async def event(self) -> Event:
        try:
            event = await async_read_event(cast(asyncio.StreamReader, self))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Gone from None
        except (AttributeError, KeyError, RecursionError, TypeError):
            raise BadEvent("an event is a JSON object with a type") from None
        if event is None:
            raise BadEvent("that is no JSON")
        if not isinstance(event.type, str) or not isinstance(event.data, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise BadEvent("an event's type is a string, its data an object")
        return event

    async def readline(self) -> bytes:
        try:
            line = await self._reader.readline()
        except ValueError:
            raise BadEvent("the first line of an event is too long") from None
        if not line.endswith(b"\n"):
            raise Gone
        return line

    async def readexactly(self, n: object) -> bytes:
        if not isinstance(n, int) or n > MESSAGE_BYTES:
            raise BadEvent(f"data and payload may have {MESSAGE_BYTES} bytes, not {n}")
        return await self._reader.readexactly(n)
