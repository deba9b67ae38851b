"""What every WebSocket has: who is let in, a slot, messages in time, and how it ends."""

import asyncio
import json
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog
from fastapi import WebSocket, WebSocketDisconnect, WebSocketException, status

from .fleet import Fleet
from .security import KEY_PROTOCOL, is_page_elsewhere

MESSAGE_BYTES = 8 * 2**20
"""largest message that the server reads at all; a protocol may take less"""
IDLE_SECONDS = 30.0
"""without a message, after which a connection ends; also how long an answer may stay unread"""
REASON_BYTES = 123
"""of the reason for closing, by RFC 6455"""

log = structlog.get_logger()


class Closing(WebSocketException):
    """Ends the connection with a status code of RFC 6455 and a message for the client."""

    def __init__(self, code: int, message: str):
        super().__init__(code, message)


class Socket:
    """A client that was let in. ``last_message`` is what its protocol says before it closes for a reason."""

    def __init__(self, websocket: WebSocket, last_message: Callable[[Closing], dict[str, Any]]):
        self._websocket, self._last_message = websocket, last_message

    async def receive(self) -> str | bytes:
        """The next message that holds anything; Closing 1008 if none comes in time, WebSocketDisconnect."""
        try:
            return await asyncio.wait_for(self._filled(), IDLE_SECONDS)
        except asyncio.TimeoutError:
            raise Closing(status.WS_1008_POLICY_VIOLATION, f"nothing came for {IDLE_SECONDS:g} s") from None

    async def send(self, message: dict[str, Any]) -> None:
        """Send it as JSON; Closing 1008 if the client doesn't read."""
        try:
            await asyncio.wait_for(self._websocket.send_text(json.dumps(message)), IDLE_SECONDS)
        except asyncio.TimeoutError:
            raise Closing(status.WS_1008_POLICY_VIOLATION, "the answers are not read") from None

    async def close(self, closing: Closing) -> None:
        """Say why, and close."""
        reason = closing.reason.encode(errors="replace")[:REASON_BYTES].decode(errors="ignore")
        try:
            await self.send(self._last_message(closing))
            await self._websocket.close(closing.code, reason)
        except (WebSocketDisconnect, WebSocketException, RuntimeError):
            pass  # it is gone already

    async def _filled(self) -> str | bytes:
        """The next message that isn't empty: an empty one is no audio, and keeps no session alive."""
        while True:
            message: dict[str, Any] = dict(await self._websocket.receive())
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", status.WS_1006_ABNORMAL_CLOSURE))
            if content := message.get("bytes") or message.get("text"):
                return content


async def serve(
    websocket: WebSocket,
    fleet: Fleet,
    session: Callable[[Socket], Awaitable[None]],
    last_message: Callable[[Closing], dict[str, Any]],
) -> None:
    """Let a client in, if it may and there is room, and run its session to whatever end."""
    # a browser that offers protocols, one of them the key, wants one of the others chosen
    offered = [name for name in websocket.scope["subprotocols"] if not name.startswith(KEY_PROTOCOL)]
    await websocket.accept(offered[0] if offered else None)
    socket = Socket(websocket, last_message)
    if is_page_elsewhere(websocket):
        message = "without an API key, the pages of other sites are not let in"
        await socket.close(Closing(status.WS_1008_POLICY_VIOLATION, message))
        return
    if not fleet.has_room or not fleet.uploads.take():
        await socket.close(Closing(status.WS_1013_TRY_AGAIN_LATER, str(fleet.busy())))
        return
    try:
        await session(socket)
        await websocket.close()
    except WebSocketDisconnect:
        fleet.metrics.hangups.inc()
    except Closing as closing:
        await socket.close(closing)
    except Exception:
        log.exception("unforeseen")
        message = "the server failed; its log says why"
        await socket.close(Closing(status.WS_1011_INTERNAL_ERROR, message))
    finally:
        fleet.uploads.give_back()


async def together(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run them until all are done or one of them fails."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        await _end(tasks)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """End tasks, and empty the list and the frames in which they ended.

    Both are in the traceback of what one of them raised, and hold it (`wait_for` does): a session would stay,
    audio and windows and all, until some garbage collection.
    """
    for task in tasks:
        task.cancel()
    for raised in await asyncio.gather(*tasks, return_exceptions=True):
        if raised is not None:
            traceback.clear_frames(raised.__traceback__)
    tasks.clear()
