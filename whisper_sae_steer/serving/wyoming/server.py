"""Listens for Wyoming clients beside the HTTP server, in its event loop."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from wyoming.server import AsyncServer

from ...errors import ConfigError
from ..fleet import Fleet
from .connection import Connection


@asynccontextmanager
async def listening(address: str, fleet: Fleet) -> AsyncGenerator[None]:
    """Serve Wyoming at ``address``; at the end, utterances that have begun are finished.

    ConfigError if nobody may listen there.
    """
    server = AsyncServer.from_uri(address)
    try:
        await server.start(partial(Connection, fleet))
    except OSError as error:
        raise ConfigError(f"can't listen at {address}: {error.strerror or error}") from None
    try:
        yield
    finally:
        await server.stop()
