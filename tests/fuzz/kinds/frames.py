"""What comes over the WebSocket for live audio: messages in any order and form, and frames that are none."""

import base64
import json
import random
import socket
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.fuzz.damage import as_json, spoiled, spoiled_json
from tests.support.serving_parts import Serving, http, serving, until
from whisper_sae_steer.serving import connections, sockets
from whisper_sae_steer.serving.config import ServeConfig

PATH = "/v1/audio/stream"
CODES = (1000, 1002, 1003, 1007, 1008, 1009, 1013)
"""that tell the client what it did, or that all is said"""
QUIET_SECONDS = 1.0
"""without a byte of an answer, after which the client leaves"""
OPTIONS = {
    "steer_alpha": 1.0,
    "language": "en",
    "task": "transcribe",
    "format": "pcm16",
    "words": True,
    "min_chunk": 1,
}


def attempt(dice: random.Random, folder: Path) -> str:
    """Send it all, read until the end; afterwards the server has all of its room again."""
    server = _server()
    ended = _raw(server, dice) if dice.random() < 0.3 else _session(server, dice)
    until(lambda: server.app.state.engine.uploads.taken == 0, seconds=9)
    assert http.get(server.url + "/health").json()["ready"]
    return ended


@cache
def _server() -> Serving:
    """One for all cases, with tiny.en, until the process ends."""
    sockets.IDLE_SECONDS = connections.HEAD_SECONDS = 0.5
    return _STACK.enter_context(serving(ServeConfig(max_audio_seconds=20)))


_STACK = ExitStack()


def _session(server: Serving, dice: random.Random) -> str:
    """The code that the server closes with."""
    url = server.url.replace("http", "ws", 1) + PATH
    try:
        with connect(url, max_size=None, close_timeout=5) as connection:
            for message in _messages(dice):
                connection.send(message)
            if dice.random() < 0.2:
                connection.close(dice.choice((1000, 1001, 3000, 4999)))
                return "left"
            while True:
                said = json.loads(connection.recv(timeout=9))
                assert said["type"] in ("ready", "update", "end", "error")
    except ConnectionClosed as ended:
        closed = ended.rcvd
    assert closed is not None, "closed without a code"
    assert closed.code in CODES, closed
    return f"closed with {closed.code}"


def _messages(dice: random.Random) -> list[str | bytes]:
    messages: list[str | bytes] = [as_json(OPTIONS if dice.random() < 0.4 else spoiled_json(OPTIONS, dice))]
    for _ in range(dice.choice((0, 1, 3, 8))):
        match dice.randrange(5):
            case 0:
                messages.append(dice.randbytes(dice.randrange(5000)))
            case 1:
                messages.append(np.zeros(dice.choice((0, 1, 16_000, 200_000)), "<i2").tobytes())
            case 2:
                floats = np.array([0.1, dice.choice((np.nan, np.inf, 1e30, 0.2))], "<f4")
                messages.append(floats.tobytes())
            case 3:
                messages.append(bytes(dice.choice((1, 3, 2**20, 2**20 + 2))))
            case _:
                messages.append(as_json(spoiled_json({"type": "end"}, dice)))
    if dice.random() < 0.7:
        messages.append('{"type": "end"}')
    if dice.random() < 0.1:
        dice.shuffle(messages)
    return messages


def _raw(server: Serving, dice: random.Random) -> str:
    """Bytes after the handshake, or a damaged handshake: nothing but a refusal comes back."""
    key = base64.b64encode(dice.randbytes(16)).decode()
    lines = [f"GET {PATH} HTTP/1.1", "Host: a", "Connection: Upgrade", "Upgrade: websocket"]
    lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
    head = "\r\n".join(lines).encode()
    head = spoiled(head, dice) if dice.random() < 0.3 else head
    frames = b"".join(_frame(dice) for _ in range(dice.randrange(5)))
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=QUIET_SECONDS) as connection:
        try:
            connection.sendall(head + frames)
            while received := connection.recv(2**16):
                answer += received
        except OSError:  # it has closed, or waits for a last word
            pass
    assert not answer or 100 <= int(answer.split(b" ", 2)[1]) < 500, answer[:200]
    return "raw"


def _frame(dice: random.Random) -> bytes:
    """Any first byte, a length that may lie, masked or not."""
    content = dice.choice((b"{}", b"", bytes(640), b'{"type": "end"}', b"\xff\xfe", dice.randbytes(200)))
    length = len(content) if dice.random() < 0.7 else dice.choice((126, 127, 0, 125))
    sizes = {126: dice.randbytes(2), 127: dice.randbytes(8)}
    size = bytes([0x80 * (dice.random() < 0.8) | min(length, 127)]) + sizes.get(length, b"")
    first = bytes([dice.choice((0x81, 0x82, 0x88, 0x89, 0x8A, 0x01, 0x00, dice.randrange(256)))])
    return first + size + bytes(4) + content
