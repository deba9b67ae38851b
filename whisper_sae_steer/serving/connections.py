"""Connections of clients that send nothing, or never the end of a request's head, are closed."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 20.0
"""in which the head of a request must have come: of the first since the connection is there, of further ones
since the last answer"""


class PunctualProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with that limit; its own limit of idle time ends with the first byte of a head."""

    _closing: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._closing = self.loop.call_later(HEAD_SECONDS, self._close_unless_asked)

    def on_response_complete(self) -> None:
        self._closing.cancel()
        self._closing = self.loop.call_later(HEAD_SECONDS, self._close_unless_asked)
        super().on_response_complete()

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._closing.cancel()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing.cancel()
        super().connection_lost(exc)

    def _close_unless_asked(self) -> None:
        if not self.cycle or self.cycle.response_complete:
            self.transport.close()
