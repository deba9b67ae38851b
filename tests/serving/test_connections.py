"""Connections on which no request comes."""

import json
import select
import socket
import time
from collections.abc import Iterator

import pytest
from websockets.sync.client import connect

from tests.support.serving_parts import (
    ModelAsTold,
    Serving,
    http,
    multipart,
    open_request,
    serving,
    status_of,
    wav,
)
from whisper_sae_steer.serving import connections
from whisper_sae_steer.serving.config import ServeConfig


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with pytest.MonkeyPatch.context() as patch, serving(ServeConfig(), ModelAsTold(blocks=True)) as started:
        patch.setattr(connections, "HEAD_SECONDS", 0.3)
        yield started


def is_closed(connection: socket.socket) -> bool:
    """Whether the server closes it, after what is left of an answer."""
    connection.settimeout(3)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:  # there was something that it hadn't read
        pass
    return True


def test_a_connection_on_which_nothing_comes_is_closed(server: Serving) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        assert is_closed(connection)


def test_a_head_that_does_not_end_is_closed_however_it_comes(server: Serving) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX-A: ")
        deadline = time.monotonic() + 3
        while not select.select([connection], [], [], 0.05)[0]:
            assert time.monotonic() < deadline
            connection.sendall(b"x")
        assert is_closed(connection)


def test_so_is_one_after_an_answer(server: Serving) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        for _ in range(2):
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            assert status_of(connection) == 200
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        assert is_closed(connection)


def test_an_answer_may_take_longer(server: Serving) -> None:
    with open_request(server, *multipart(wav(1))) as connection:
        time.sleep(0.6)
        server.app.state.engine.model.go.release()
        assert status_of(connection) == 200


def test_a_web_socket_may_last_longer(server: Serving) -> None:
    with connect(server.url.replace("http", "ws", 1) + "/v1/audio/stream") as session:
        time.sleep(0.6)
        session.send("[]")
        assert json.loads(session.recv(timeout=3))["type"] == "error"
    assert http.get(server.url + "/health").status_code == 200
