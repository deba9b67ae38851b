"""Work for a client that may hang up."""

import asyncio
from collections.abc import Awaitable
from typing import NoReturn, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

T = TypeVar("T")


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """What ``work`` gives; ends it, with ClientDisconnect, if the client hangs up first.

    To be used once the request has been read to its end.
    """
    return await unless(_hang_up(request), work)


async def unless(ends: Awaitable[NoReturn], work: Awaitable[T]) -> T:
    """What ``work`` gives; ends it with what ``ends`` raises, if that is first."""
    ending, task = asyncio.ensure_future(ends), asyncio.ensure_future(work)
    try:
        await asyncio.wait({ending, task}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else ending.result()
    finally:
        ending.cancel()
        task.cancel()
        await asyncio.gather(ending, task, return_exceptions=True)


async def _hang_up(request: Request) -> NoReturn:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    raise ClientDisconnect
