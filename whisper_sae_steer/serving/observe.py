"""Around every request: an id, one line in the log, its counts; and an answer for errors nobody foresaw."""

import time
import uuid
from typing import Any

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import CLIENT_CLOSED_REQUEST, ApiError, error_response
from .metrics import Metrics

log = structlog.get_logger()


class Observe:
    """ASGI middleware. Routes add what they know of a request to ``request.state.log``."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        facts: dict[str, Any] = scope.setdefault("state", {}).setdefault("log", {})
        request_id, started = uuid.uuid4().hex, time.perf_counter()
        status, complete = 0, False

        async def observed(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self.app(scope, receive, observed)
        except Exception:
            log.exception("unforeseen")
            if not status:
                await error_response(ApiError(500, "the server failed; its log says why"))(
                    scope, receive, observed
                )
        finally:
            seconds = time.perf_counter() - started
            if not complete:
                status = CLIENT_CLOSED_REQUEST
            self._count(scope, status, seconds)
            path, method = scope["path"], scope["method"]
            log.info("request", method=method, path=path, status=status, seconds=round(seconds, 4), **facts)
            structlog.contextvars.unbind_contextvars("request_id")

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        # the route's pattern, as anybody can ask for any number of paths
        endpoint = getattr(scope.get("route"), "path", "other")
        self.metrics.requests.labels(endpoint, str(status)).inc()
        self.metrics.seconds.labels(endpoint).observe(seconds)
        if status == CLIENT_CLOSED_REQUEST:
            self.metrics.hangups.inc()
