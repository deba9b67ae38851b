"""Requests to the server, well formed or not, with wrong fields and files: 2xx or 4xx, and it goes on."""

import json
import random
import socket
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from tests.fuzz.damage import NASTY, spoiled
from tests.fuzz.kinds.audio import spoilt_file
from tests.support.serving_parts import TRANSCRIBE, ModelAsTold, Serving, http, serving, until
from whisper_sae_steer.serving import connections, uploads
from whisper_sae_steer.serving.config import ServeConfig

LIMITS = ServeConfig(model="some-model", max_upload_bytes=2**20, max_audio_seconds=60, upload_timeout=2)
PATHS = (
    *(TRANSCRIBE, TRANSCRIBE, TRANSCRIBE, "/v1/audio/translations", "/v1/audio/timeline"),
    *("/v1/models", "/v1/models/../../etc/passwd", "/v1/models/%00", "/metrics", "/health", "/", "/page.js"),
    *("/page/../../config.py", "//", "/v1/audio/stream", "/openapi.json", "/%2e%2e/%2e%2e/etc/passwd"),
)
FIELDS = (
    *("model", "language", "prompt", "response_format", "temperature", "timestamp_granularities[]"),
    *("stream", "steer_alpha", "skip_gaps", "filter_risk", "file", "unknown", "", "file\r\nX-A: b"),
)
VALUES = (
    *("json", "text", "srt", "vtt", "verbose_json", "word", "segment", "true", "false", "en", "English"),
    *("0", "1", "0.5", "1.5", "100", "some-model", "whisper-1"),
)
NAMES = ("a.wav", "", "../../a", "/etc/passwd", "a" * 5000, "\0", "é", "pipe:0", "http://127.0.0.1/a.m3u8")


def attempt(dice: random.Random, folder: Path) -> str:
    """Send it and read the answer, if there is one; afterwards the server has all of its room again."""
    server = _server()
    data = _request(dice)
    if dice.random() < 0.4:
        data = spoiled(data, dice)
    statuses = _statuses(_sent(server, data, dice))
    assert all(100 <= status < 500 for status in statuses), statuses
    engine = server.app.state.engine
    until(lambda: engine.uploads.taken == 0 and engine.queued == 0, seconds=9)
    assert http.get(server.url + "/health").json()["ready"]
    return f"{statuses[0] // 100}xx" if statuses else "closed"


@cache
def _server() -> Serving:
    """One for all cases, until the process ends."""
    uploads.STALL_SECONDS = connections.HEAD_SECONDS = 0.5
    return _STACK.enter_context(serving(LIMITS, ModelAsTold()))


_STACK = ExitStack()


def _request(dice: random.Random) -> bytes:
    boundary = dice.choice((b"b", b"b", b"x" * 70, b"", b'"b"'))
    body = b""
    for _ in range(dice.choice((0, 1, 3, 3, 3, 40))):
        value = str(dice.choice(NASTY)) if dice.random() < 0.3 else dice.choice(VALUES)
        body += _part(boundary, dice.choice(FIELDS), value.encode("utf-8", "replace"))
    if dice.random() < 0.9:
        name = dice.choice(NAMES)
        body += _part(boundary, "file", spoilt_file(dice), f'; filename="{name}"'.encode())
    body += b"--" + boundary + b"--\r\n" if dice.random() < 0.9 else b""
    kind = dice.choice(
        (b"multipart/form-data; boundary=" + boundary,) * 8 + (b"application/json", b"", b"\xff")
    )
    length = len(body) if dice.random() < 0.8 else dice.choice((0, 1, len(body) + 5, -1, 2**31, 10**30))
    method = dice.choice(("POST",) * 8 + ("GET", "PUT", "HEAD", "OPTIONS", "TRACE", "X" * 50))
    head = f"{method} {dice.choice(PATHS)} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n".encode()
    if dice.random() < 0.1:
        head += dice.choice(
            (b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"A: " + b"b" * 70_000)
        )
    return head + b"Connection: close\r\nContent-Type: " + kind + b"\r\n\r\n" + body


def _part(boundary: bytes, name: str, value: bytes, more: bytes = b"") -> bytes:
    disposition = b'Content-Disposition: form-data; name="' + name.encode() + b'"' + more
    return b"--" + boundary + b"\r\n" + disposition + b"\r\n\r\n" + value + b"\r\n"


def _sent(server: Serving, data: bytes, dice: random.Random) -> bytes:
    """All that comes back until the server closes; some clients say that they send no more."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=9) as connection:
        answer = b""
        try:
            connection.sendall(data)
            if dice.random() < 0.2:
                connection.shutdown(socket.SHUT_WR)
            while received := connection.recv(2**16):
                answer += received
        except OSError:  # it closes where it has read enough
            pass
        return answer


def _statuses(answer: bytes) -> list[int]:
    """Of the answers; a refusal has OpenAI's shape, unless uvicorn itself makes it."""
    if not answer:
        return []
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if body and status >= 400 and b"application/json" in head:  # HEAD has none
        refusal, _ = json.JSONDecoder().raw_decode(body.decode())  # another answer may follow
        assert set(refusal["error"]) == {"message", "type", "param", "code"}
    return [status]
