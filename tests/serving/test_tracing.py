"""Traces: what a collector gets of a request, and that nothing is imported without one."""

import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.serving_parts import TRANSCRIBE, ModelAsTold, http, post, serving, tiny, until, wav
from tests.support.wyoming_parts import listening, said
from whisper_sae_steer.errors import MissingExtraError
from whisper_sae_steer.serving import tracing
from whisper_sae_steer.serving.config import ServeConfig

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Spans that have ended."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    return exporter


def tree(exporter: InMemorySpanExporter) -> dict[str, str | None]:
    """Each span's name with its parent's."""
    spans: Any = exporter.get_finished_spans()
    names = {span.context.span_id: span.name for span in spans}
    return {span.name: names.get(span.parent.span_id) if span.parent else None for span in spans}


def test_a_request_is_one_trace(finished: InMemorySpanExporter):
    with serving(ServeConfig(), tiny()) as server:
        assert post(server, wav(1)).status_code == 200
    assert tree(finished) == {
        "request": None,
        "queue": "request",
        "transcribe": "request",
        "decode": "transcribe",
    }
    spans: Any = finished.get_finished_spans()
    assert len({span.context.trace_id for span in spans}) == 1
    (request,) = (span for span in spans if span.name == "request")
    assert dict(request.attributes) == {"http.route": TRANSCRIBE, "http.response.status_code": 200}
    assert all(request.start_time <= span.start_time <= span.end_time <= request.end_time for span in spans)


def test_it_belongs_to_the_trace_that_the_client_names(finished: InMemorySpanExporter):
    with serving(ServeConfig(), ModelAsTold()) as server:
        http.get(server.url + "/health", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
        until(finished.get_finished_spans)
    (request,) = finished.get_finished_spans()
    assert request.parent is not None
    assert f"{request.parent.trace_id:032x}-{request.parent.span_id:016x}" == f"{TRACE}-{PARENT}"


def test_so_is_an_utterance(finished: InMemorySpanExporter):
    with listening(ModelAsTold()) as server:
        said(server.address, bytes(32_000))
    assert tree(finished) == {"utterance": None, "queue": "utterance", "transcribe": "utterance"}


@contextmanager
def collector() -> Generator[tuple[str, list[tuple[str, bytes]]]]:
    """The address of something that takes spans, and what it got."""
    got: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(tracing, "_tracer", None)
    return monkeypatch


def test_spans_go_to_the_collector_of_the_environment(environment: pytest.MonkeyPatch):
    with collector() as (address, got):
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        tracing.start()
        with tracing.span("request") as attributes:
            attributes["http.route"] = "/health"
        until(lambda: got)
    (path, body), *_ = got
    assert path == "/v1/traces"
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert {a.key: a.value.string_value for a in resource.resource.attributes}[
        "service.name"
    ] == "whisper-sae-steer"
    assert [span.name for span in resource.scope_spans[0].spans] == ["request"]


def test_a_missing_extra_is_one_line(environment: pytest.MonkeyPatch):
    environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:1")
    environment.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(MissingExtraError, match=r'pip install "whisper-sae-steer\[otel\]"'):
        tracing.start()


def test_without_a_collector_nothing_is_imported():
    code = (
        "import sys; from whisper_sae_steer.serving import app, tracing; tracing.start()\n"
        "with tracing.span('request'): tracing.waited('queue', 0)\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
