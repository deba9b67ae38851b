"""A real server on a local port, with a real model or one that does as told."""

import io
import socket
import threading
import time
import wave
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any, BinaryIO, NamedTuple, cast

import httpx
import numpy as np
import structlog
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray

from whisper_sae_steer.serving.app import create_app
from whisper_sae_steer.serving.config import ServeConfig
from whisper_sae_steer.serving.connections import OPTIONS
from whisper_sae_steer.serving.decoding import decode
from whisper_sae_steer.serving.model import ServedModel, load_model

# its default draws each local variable of a traceback, for seconds
structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()])

TRANSCRIBE = "/v1/audio/transcriptions"

http = httpx.Client(timeout=30)
"""making one takes a tenth of a second"""


class Serving(NamedTuple):
    url: str
    port: int
    app: FastAPI


@cache
def tiny() -> ServedModel:
    return load_model(ServeConfig(model="tiny.en", compute_type="int8", cpu_threads=1, workers=2))


@contextmanager
def serving(config: ServeConfig, model: Any = None) -> Generator[Serving]:
    """The server in a thread, with tiny.en or another model."""
    with running(create_app(config, cast(ServedModel, model) if model is not None else tiny())) as server:
        yield server


@contextmanager
def running(app: FastAPI) -> Generator[Serving]:
    """An application in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=3, **OPTIONS))
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    port: int = listener.getsockname()[1]
    try:
        until(lambda: server.started)
        yield Serving(f"http://127.0.0.1:{port}", port, app)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def until(condition: Any, seconds: float = 10.0) -> None:
    """Wait for something that happens soon."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


class ModelAsTold:
    """Stands in for a model: writes "word" for each second of audio; the test lets segments go."""

    config: ServeConfig

    def __init__(self, blocks: bool = False):
        self.go = threading.Semaphore(0 if blocks else 10**9)
        self.calls: list[dict[str, Any]] = []
        self.lengths: list[int] = []
        self.ended = 0
        self.steerer = None
        self.supported_languages = ["en", "de", "fr"]

    def transcribe(self, upload: BinaryIO, **options: Any) -> tuple[Iterator[Any], Any]:
        samples = decode(upload, self.config)
        self.calls.append(options)
        self.lengths.append(len(samples))
        seconds = len(samples) / 16_000
        return self._segments(int(seconds)), SimpleNamespace(duration=seconds, language="en")

    def _segments(self, count: int) -> Iterator[Any]:
        try:
            for n in range(count):
                self.go.acquire()
                yield SimpleNamespace(id=n, start=n, end=n + 1, text=f" word{n}", words=None)
        finally:
            self.ended += 1


def wav(seconds: float = 1.0, samples: NDArray[np.int16] | None = None) -> bytes:
    """16-bit mono at 16 kHz."""
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        quiet = np.zeros(int(16_000 * seconds), np.int16)
        file.writeframes((quiet if samples is None else samples).tobytes())
    return written.getvalue()


def post(server: Serving, file: bytes | None = None, name: str = "a.wav", **fields: Any) -> httpx.Response:
    """Ask for a transcript of a file, of a second of silence when left out."""
    files = {"file": (name, wav() if file is None else file)}
    return http.post(server.url + TRANSCRIBE, files=files, data=fields)


def refusal(response: httpx.Response) -> tuple[int, str | None, str | None]:
    """Status, code and field of an error in OpenAI's shape."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return response.status_code, error["code"], error["param"]


def open_request(server: Serving, head: str, body: bytes = b"") -> socket.socket:
    """A request as raw as a test wants it."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    lines = f"POST {TRANSCRIBE} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n"
    connection.sendall(lines.encode() + body)
    return connection


def status_of(connection: socket.socket) -> int:
    """Of the response that comes next."""
    start = b""
    while b"\r\n" not in start:
        received = connection.recv(4096)
        assert received, "closed without a response"
        start += received
    return int(start.split(b" ", 2)[1])


def multipart(file: bytes, **fields: str) -> tuple[str, bytes]:
    """Headers and body of a form."""
    request = httpx.Request("POST", "http://x", files={"file": ("a.wav", file)}, data=fields)
    body = request.read()
    return f"Content-Type: {request.headers['content-type']}\r\nContent-Length: {len(body)}\r\n", body
