"""OpenTelemetry traces, if the environment names a collector: request → queue, transcribe → decode.

Off, nothing of OpenTelemetry is imported. No text, key or file name is in a span.
"""

import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import MissingExtraError

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""variables of OpenTelemetry's standard; the exporter and its resource heed all the others, too"""

_tracer: Any = None
"""OpenTelemetry's, once traces are on"""


def start() -> None:
    """Send spans to the collector that the environment names, if it names one. MissingExtraError."""
    global _tracer
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingExtraError(f'traces need {error.name}: pip install "whisper-sae-steer[otel]"') from None
    service = os.environ.get("OTEL_SERVICE_NAME", "whisper-sae-steer")
    provider = TracerProvider(
        resource=Resource.create({"service.name": service})
    )  # flushed when Python exits
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer(__name__)


@contextmanager
def span(name: str, parent: Mapping[str, str] | None = None) -> Generator[dict[str, Any]]:
    """Around what a span is of, within the one at hand or that of a request's headers ``parent``.

    What is put into the dictionary are its attributes.
    """
    attributes: dict[str, Any] = {}
    if _tracer is None:
        yield attributes
        return
    from opentelemetry.propagate import extract

    context = None if parent is None else extract(parent)
    with _tracer.start_as_current_span(name, context) as current:
        try:
            yield attributes
        finally:
            current.set_attributes(attributes)


def waited(name: str, since: int) -> None:
    """A span of what ends now; ``since`` is :func:`time.time_ns` of its beginning."""
    if _tracer is not None:
        _tracer.start_span(name, start_time=since).end(time.time_ns())
