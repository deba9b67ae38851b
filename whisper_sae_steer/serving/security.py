"""Who may use the server: whoever has the key; where there is none, all but the pages of other sites."""

import secrets

from fastapi import WebSocketException, status
from starlette.requests import HTTPConnection

from .config import ServeConfig
from .errors import ApiError

KEY_PROTOCOL = "openai-insecure-api-key."
"""how browsers, which give a WebSocket no headers, send OpenAI's servers a key: as a sub-protocol"""


def require_key(connection: HTTPConnection) -> None:
    """A dependency of routes and WebSockets: refuses those without the key."""
    config: ServeConfig = connection.app.state.config
    if config.api_key is None or secrets.compare_digest(_given(connection), config.api_key.encode()):
        return
    if connection.scope["type"] == "websocket":
        raise WebSocketException(status.WS_1008_POLICY_VIOLATION, "wrong or missing API key")
    raise ApiError(
        *(401, "wrong or missing API key; send it as Authorization: Bearer KEY", "invalid_api_key"),
        headers={"WWW-Authenticate": "Bearer"},
    )


def is_page_elsewhere(connection: HTTPConnection) -> bool:
    """Whether the page of another site asks: browsers let any page open WebSockets, but say whose it is.

    Never where there is a key, as no page has it by chance.
    """
    config: ServeConfig = connection.app.state.config
    origin = connection.headers.get("origin")
    if config.api_key is not None or origin is None:  # only browsers name an origin
        return False
    return origin.partition("://")[2].lower() != connection.headers.get("host", "").lower()


def _given(connection: HTTPConnection) -> bytes:
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip().encode("latin-1")  # the bytes as they came
    for protocol in connection.headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(KEY_PROTOCOL):
            return protocol.strip().removeprefix(KEY_PROTOCOL).encode("latin-1")
    return b""
