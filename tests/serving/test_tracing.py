"""Traces: what a collector gets of a request, and that nothing sends without one."""

import os
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.serving_parts import TRANSCRIBE, ModelAsTold, http, post, serving, tiny, until, wav
from tests.support.wyoming_parts import listening, said
from whisper_sae_steer.serving.config import ServeConfig

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
REQUEST = f"POST {TRANSCRIBE}"


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Spans that have ended."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)  # setting it is for once in a process
    return exporter


def tree(exporter: InMemorySpanExporter) -> dict[str, str | None]:
    """Each span's name with its parent's."""
    spans: Any = exporter.get_finished_spans()
    names = {span.context.span_id: span.name for span in spans}
    return {span.name: names.get(span.parent.span_id) if span.parent else None for span in spans}


def test_a_request_is_one_trace(finished: InMemorySpanExporter):
    with serving(ServeConfig(), tiny()) as server:
        http.get(server.url + "/health")
        http.get(server.url + "/metrics")
        assert post(server, wav(1), name="my-private-name.wav", prompt="my-private-prompt").status_code == 200
        until(lambda: REQUEST in tree(finished))
    assert tree(finished) == {REQUEST: None, "queue": REQUEST, "transcribe": REQUEST, "decode": "transcribe"}
    spans: Any = finished.get_finished_spans()
    assert len({span.context.trace_id for span in spans}) == 1
    (request,) = (span for span in spans if span.name == REQUEST)
    assert request.attributes["http.response.status_code"] == 200
    assert all(request.start_time <= span.start_time <= span.end_time <= request.end_time for span in spans)
    assert "my-private" not in "".join(span.to_json() for span in spans)


def test_it_belongs_to_the_trace_that_the_client_names(finished: InMemorySpanExporter):
    with serving(ServeConfig(), ModelAsTold()) as server:
        http.get(server.url + "/v1/models", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
        until(finished.get_finished_spans)
    (request,) = finished.get_finished_spans()
    assert request.parent is not None
    assert f"{request.parent.trace_id:032x}-{request.parent.span_id:016x}" == f"{TRACE}-{PARENT}"


def test_so_is_an_utterance(finished: InMemorySpanExporter):
    with listening(ModelAsTold()) as server:
        said(server.address, bytes(32_000))
        until(lambda: "utterance" in tree(finished))
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


SERVER = """
import sys
from tests.support.serving_parts import ModelAsTold, http, serving
from whisper_sae_steer.serving.config import ServeConfig

with serving(ServeConfig(), ModelAsTold()) as server:
    http.get(server.url + "/v1/models")
print([name for name in sys.modules if name.startswith("opentelemetry.sdk.")])
"""


def modules_of_a_server(**variables: str) -> str:
    """Names of OpenTelemetry's SDK that a server with those variables has imported, after a request."""
    environment = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, "-c", SERVER], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


def test_spans_go_to_the_collector_of_the_environment():
    with collector() as (address, got):
        modules_of_a_server(OTEL_EXPORTER_OTLP_ENDPOINT=address, OTEL_SERVICE_NAME="at-home")
    ((path, body),) = got
    assert path == "/v1/traces"
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    facts = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert facts["service.name"] == "at-home"
    assert [span.name for scope in resource.scope_spans for span in scope.spans] == ["GET /v1/models"]


def test_without_a_collector_nothing_that_sends_is_imported():
    assert modules_of_a_server() == "[]"
