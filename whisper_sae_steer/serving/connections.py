"""Connections end in good order: those on which no request comes, and those whose answer is there early.

A socket that is closed while its client still sends is reset, and the client loses the answer that it hasn't
read yet. So whoever is refused in the midst of an upload may go on with it for a while, and what comes is
thrown away.
"""

import asyncio
import weakref
from collections.abc import Mapping
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .sockets import MESSAGE_BYTES

HEAD_SECONDS = 20.0
"""in which the head of a request must have come: of the first since the connection is there, of further ones
since the last answer"""
LINGER_SECONDS = 60.0
"""after an answer, in which the rest of its request may come: as long as an upload may take"""
LINGER_BYTES = 64 * 2**20
"""of that rest"""


class PunctualProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with those limits; its own limit of idle time ends with the first byte of a head."""

    _closing: asyncio.TimerHandle
    _socket: asyncio.Transport
    _lingers = False
    """whether nothing is sent any more, and what comes is thrown away unread"""
    _left = LINGER_BYTES
    """bytes that may still come after the answer"""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._socket = transport
        super().connection_made(cast(asyncio.Transport, _GentlyClosed(transport, self)))
        self._closing = self.loop.call_later(HEAD_SECONDS, self._close_unless_asked)

    def data_received(self, data: bytes) -> None:
        if self._is_answered_early:
            self._left -= len(data)
            if self._left < 0:
                self._socket.close()
        if not self.is_closing():
            super().data_received(data)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._left = LINGER_BYTES
        if self._is_answered_early:
            self._unset_keepalive_if_required()
        self._close_in(LINGER_SECONDS if self._is_answered_early else HEAD_SECONDS)

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._closing.cancel()
        self.transport = self._socket
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing.cancel()
        super().connection_lost(exc)

    def close(self) -> None:
        """At once, or first let the client come to an end; at once in any case when called again."""
        if self.is_closing() or not self._is_answered_early:
            self._socket.close()
            return
        self._lingers = True
        self._socket.write_eof()
        self.flow.resume_reading()
        self._close_in(LINGER_SECONDS)

    def is_closing(self) -> bool:
        """Whether nothing is sent any more."""
        return self._lingers or self._socket.is_closing()

    @property
    def _is_answered_early(self) -> bool:
        """Whether there is an answer, and the request isn't over: its body still comes, or it is damaged."""
        answered = not self.cycle or self.cycle.response_complete
        return answered and self.conn.their_state in (h11.SEND_BODY, h11.ERROR)

    def _close_in(self, seconds: float) -> None:
        self._closing.cancel()
        self._closing = self.loop.call_later(seconds, self._close_unless_asked)

    def _close_unless_asked(self) -> None:
        if not self.cycle or self.cycle.response_complete:
            self._socket.close()


class _GentlyClosed:
    """A transport that uvicorn, which wants to close it as soon as an answer is written, closes gently."""

    def __init__(self, transport: asyncio.Transport, protocol: PunctualProtocol):
        self._transport = transport
        self._protocol = weakref.ref(protocol)  # a circle would be kept until it is collected

    def close(self) -> None:
        if protocol := self._protocol():
            protocol.close()

    def is_closing(self) -> bool:
        protocol = self._protocol()
        return not protocol or protocol.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


OPTIONS: Mapping[str, Any] = {
    "http": PunctualProtocol,
    "ws_max_size": MESSAGE_BYTES,
    "ws_max_queue": 2,
    "ws_ping_timeout": None,
    "log_config": None,
    "access_log": False,
    "server_header": False,
}
"""uvicorn's. It pings WebSockets, for proxies that close silent ones, but doesn't insist on the answer, which
lies behind audio that has to wait where a client is ahead of the workers; who is gone is told by silence."""
