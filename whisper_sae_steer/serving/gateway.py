"""In front of replicas that may die: holds each request until one of them has answered it.

Ray Serve's own proxy answers 500 when a replica dies that had taken the request. Transcribing changes
nothing, so here another replica is asked; and what a client gets is a whole answer, or 503.
"""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import structlog
from fastapi import Depends, FastAPI, Request, Response, WebSocket, status
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import Message, Receive, Scope, Send

from .config import ServeConfig
from .disconnect import unless_gone
from .engine import Slots
from .errors import Busy, add_handlers, error_body
from .forwarding import RETRY_SECONDS, Ask, Forwarded, Lost, Unavailable
from .metrics import Metrics
from .observe import Observe
from .responses import event
from .security import require_key
from .uploads import check_length, within_limits

TRIES = 3
"""replicas that a request may lose before it is given up: it may be what kills them"""
FORWARDED = (
    "method",
    "path",
    "raw_path",
    "query_string",
    "headers",
    "http_version",
    "scheme",
    "client",
    "server",
)

log = structlog.get_logger()


def create_gateway(config: ServeConfig, ask: Ask, replicas: Callable[[], Awaitable[int]]) -> FastAPI:
    """The server as clients see it; ``replicas`` tells how many are there."""
    metrics = Metrics()
    app = FastAPI(title="whisper-sae-steer", openapi_url=None)
    app.state.config = config
    app.add_middleware(Observe, metrics=metrics)
    add_handlers(app)
    gateway = Gateway(config, ask)

    @app.get("/health")
    async def health() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        there = await replicas()
        return {"status": "ok", "ready": bool(there) and gateway.held.has_free, "replicas": there}

    @app.get("/health/ready")
    async def ready(response: Response) -> dict[str, bool]:  # pyright: ignore[reportUnusedFunction]
        is_ready = bool(await replicas()) and gateway.held.has_free
        response.status_code = 200 if is_ready else 503
        return {"ready": is_ready}

    @app.get("/metrics", dependencies=[Depends(require_key)])
    def _() -> Response:
        """Requests; what models do is counted by the replicas."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    app.mount("/", gateway)
    return app


class Gateway:
    """ASGI application that passes requests on."""

    def __init__(self, config: ServeConfig, ask: Ask):
        self.config, self._ask = config, ask
        self.held = Slots(config.max_uploads)
        """by requests with a body, until they are answered"""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await _refuse(WebSocket(scope, receive, send))
            return
        request = Request(scope, receive)
        if request.method != "POST":
            await self._pass_on(request, b"", send)
            return
        require_key(request)
        check_length(request, self.config)
        if not self.held.take():
            raise Busy("the server is busy; try again later", RETRY_SECONDS)
        try:
            await self._pass_on(request, await within_limits(request, self.config, Request.body), send)
        finally:
            self.held.give_back()

    async def _pass_on(self, request: Request, body: bytes, send: Send) -> None:
        scope = {name: request.scope[name] for name in FORWARDED if name in request.scope}
        forwarded = Forwarded({"type": "http", "root_path": "", "asgi": {"version": "3.0"}, **scope}, body)
        await unless_gone(request, self._answer(forwarded, send))

    async def _answer(self, forwarded: Forwarded, send: Send) -> None:
        """Send what the first replica answers that isn't lost meanwhile."""
        for _ in range(TRIES):
            head: Message | None = None
            has_begun = False
            try:
                async with aclosing(self._ask(forwarded)) as messages:
                    async for message in messages:
                        if message["type"] == "http.response.start":
                            head = message  # not sent before there is something to follow it
                            continue
                        if head is not None:
                            await send(head)
                            head, has_begun = None, True
                        await send(message)
                return
            except Lost as lost:
                log.warning("a replica is lost", reason=str(lost), has_begun=has_begun)
                if has_begun:  # only streams come in parts
                    error = Unavailable("the replica that wrote this stream is lost; ask again")
                    await send({"type": "http.response.body", "body": event(error_body(error)).encode()})
                    return
        raise Unavailable(f"{TRIES} replicas were lost one after the other; try again later")


async def _refuse(websocket: WebSocket) -> None:
    await websocket.accept()
    message = "there is no live audio with --engine ray; serve it with --engine local"
    await websocket.send_json({"type": "error", "message": message})
    await websocket.close(status.WS_1003_UNSUPPORTED_DATA, message)
