"""Connections on which no request comes, and those that are answered before all of it is there."""

import gc
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
    until,
    wav,
)
from whisper_sae_steer.serving import connections
from whisper_sae_steer.serving.config import ServeConfig

KEY = "secret"
MB = 2**20
UNREAD = 8 * MB
"""more than sockets hold by themselves"""


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with pytest.MonkeyPatch.context() as patch, serving(ServeConfig(), ModelAsTold(blocks=True)) as started:
        patch.setattr(connections, "HEAD_SECONDS", 0.3)
        patch.setattr(connections, "LINGER_SECONDS", 1.5)
        yield started


@pytest.fixture(scope="module")
def strict() -> Iterator[Serving]:
    """One that wants a key, takes one upload and nothing large."""
    config = ServeConfig(api_key=KEY, max_upload_bytes=2 * UNREAD, max_uploads=1)
    with serving(config, ModelAsTold()) as started:
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


# ---- answers before the end of a request


FORM = "Content-Type: multipart/form-data; boundary=x\r\n"
LET_IN = f"Authorization: Bearer {KEY}\r\n"


@pytest.mark.parametrize("kept", [True, False], ids=["kept alive", "closed"])
@pytest.mark.parametrize(
    ("head", "length", "status"),
    [
        (FORM, UNREAD, 401),
        (LET_IN + FORM, 10 * UNREAD, 413),
        (LET_IN + "Content-Type: audio/wav\r\n", UNREAD, 415),
        (LET_IN + FORM, UNREAD, 429),
    ],
)
def test_a_refusal_reaches_clients_that_send_on(
    strict: Serving, head: str, length: int, status: int, kept: bool
) -> None:
    head += f"Content-Length: {length}\r\n" + ("" if kept else "Connection: close\r\n")
    until(lambda: strict.app.state.fleet.uploads.has_free)  # the test before has let go of it
    with open_request(strict, LET_IN + FORM + f"Content-Length: {UNREAD}\r\n"):  # takes the only place
        until(lambda: not strict.app.state.fleet.uploads.has_free)
        with open_request(strict, head) as connection:
            for _ in range(UNREAD // MB):
                connection.sendall(bytes(MB))
                time.sleep(0.01)
            answer = whole_answer(connection)
            assert answer.startswith(f"HTTP/1.1 {status} ".encode())
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]


def whole_answer(connection: socket.socket) -> bytes:
    """Up to the end of its JSON."""
    answer = b""
    while not answer.endswith(b"}}"):
        received = connection.recv(4096)
        assert received, f"closed after {answer}"
        answer += received
    return answer


@pytest.mark.parametrize("kept", [True, False], ids=["kept alive", "closed"])
def test_a_refusal_reaches_clients_that_send_slowly(server: Serving, kept: bool) -> None:
    head = "Content-Length: 1000\r\n" + ("" if kept else "Connection: close\r\n")
    with open_request(server, head) as connection:
        for _ in range(5):
            time.sleep(0.2)
            connection.sendall(b"x")
        assert status_of(connection) == 415


def test_a_refusal_of_too_large_a_head_reaches_its_client(server: Serving) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX-A: ")
        for _ in range(UNREAD // MB):
            connection.sendall(b"x" * MB)
        assert status_of(connection) == 400


def test_a_connection_goes_on_once_a_refused_request_is_over(server: Serving) -> None:
    with open_request(server, "Content-Length: 1000\r\n") as connection:
        assert whole_answer(connection).startswith(b"HTTP/1.1 415 ")
        connection.sendall(bytes(1000) + b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert status_of(connection) == 200


@pytest.mark.parametrize("kept", [True, False], ids=["kept alive", "closed"])
def test_the_rest_of_a_request_may_come_for_some_time_only(server: Serving, kept: bool) -> None:
    head = "Content-Length: 1000\r\n" + ("" if kept else "Connection: close\r\n")
    began = time.monotonic()
    with open_request(server, head) as connection:
        assert sends_until_closed(connection, b"x", 0.05) < 1000
    assert 1 < time.monotonic() - began < 5


@pytest.mark.parametrize("kept", [True, False], ids=["kept alive", "closed"])
def test_the_rest_of_a_request_may_have_some_bytes_only(
    server: Serving, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LINGER_BYTES", MB)
    head = f"Content-Length: {100 * MB}\r\n" + ("" if kept else "Connection: close\r\n")
    with open_request(server, head) as connection:
        assert status_of(connection) == 415
        assert sends_until_closed(connection, bytes(MB), 0.01) < 20 * MB


def sends_until_closed(connection: socket.socket, piece: bytes, pause: float) -> int:
    """Bytes that the server took before it closed the connection."""
    sent = 0
    deadline = time.monotonic() + 10
    try:
        while time.monotonic() < deadline:
            connection.sendall(piece)
            sent += len(piece)
            time.sleep(pause)
    except (ConnectionResetError, BrokenPipeError):
        return sent
    raise AssertionError("it goes on and on")


def test_a_connection_that_is_over_leaves_nothing_behind(server: Serving) -> None:
    def there() -> int:
        return sum(isinstance(thing, connections.PunctualProtocol) for thing in gc.get_objects())

    gc.collect()
    before = there()
    gc.disable()
    try:
        for kept in ("", "Connection: close\r\n"):
            with open_request(server, f"Content-Length: 1000\r\n{kept}", bytes(10)) as connection:
                assert status_of(connection) == 415
        until(lambda: there() <= before)
    finally:
        gc.enable()
