"""OpenTelemetry's spans of what a request goes through: the queue, transcribing, and in that decoding.

FastAPI makes the span of the request itself, and sends all of them to the collector that the environment
names in OTEL_EXPORTER_OTLP_ENDPOINT. Without one nothing is recorded. No text, key or file name is in them.
"""

import time
from contextlib import AbstractContextManager
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace

TELEMETRY: TelemetryConfig = {
    "auto_configure": True,
    "metrics": False,  # Prometheus has them
    "logs": False,
    "operation_spans": False,
    "exclude": lambda scope: scope["path"].startswith(("/health", "/metrics")),
}


def span(name: str) -> AbstractContextManager[Any]:
    """Around what it is of, within the one at hand."""
    return trace.get_tracer(__name__).start_as_current_span(name)


def waited(name: str, since: int) -> None:
    """A span of what ends now; ``since`` is :func:`time.time_ns` of its beginning."""
    trace.get_tracer(__name__).start_span(name, start_time=since).end(time.time_ns())
