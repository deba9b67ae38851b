"""A request on its way to another process, and the answer on its way back."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Message

from .errors import ApiError

RETRY_SECONDS = 5
"""after which to come back when there is no room, or no replica has answered"""


class Forwarded(NamedTuple):
    """A request that can be pickled."""

    scope: Mapping[str, Any]
    """what ASGI says of it"""
    body: bytes


class Lost(Exception):
    """The replica that was to answer is gone."""


class Unavailable(ApiError):
    """No replica answers."""

    def __init__(self, message: str):
        super().__init__(503, message, "no_replica", headers={"Retry-After": str(RETRY_SECONDS)})


Ask = Callable[[Forwarded], AsyncGenerator[Message]]
"""What a replica's application sends, as ASGI messages; raises Lost or Unavailable."""


async def answer_of(app: ASGIApp, request: Forwarded) -> AsyncGenerator[Message]:
    """What an application sends for a request; ends its work when closed."""
    sent = asyncio.Queue[Message | None]()
    received = iter([{"type": "http.request", "body": request.body}])

    async def receive() -> Message:
        if message := next(received, None):
            return message
        return await asyncio.Future()  # a hang-up ends the task itself

    task = asyncio.ensure_future(app(dict(request.scope), receive, sent.put))
    task.add_done_callback(lambda _: sent.put_nowait(None))
    try:
        while (message := await sent.get()) is not None:
            yield message
        await task
    finally:
        task.cancel()
