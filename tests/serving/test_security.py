"""Who is let in, and what is told to those who aren't."""

import secrets
import socket
from collections.abc import Iterator

import httpx
import pytest
from fastapi import Depends, WebSocket, WebSocketDisconnect
from fastapi.testclient import TestClient

from tests.support.serving_parts import (
    TRANSCRIBE,
    ModelAsTold,
    Serving,
    http,
    refusal,
    serving,
    status_of,
    wav,
)
from whisper_sae_steer.errors import SteerError
from whisper_sae_steer.serving.app import create_app
from whisper_sae_steer.serving.config import ServeConfig
from whisper_sae_steer.serving.security import require_key

KEY = "correct horse é"


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving(ServeConfig(model="some-model", api_key=KEY), ModelAsTold()) as started:
        yield started


def ask(server: Serving, authorization: str | None) -> httpx.Response:
    headers = [] if authorization is None else [(b"authorization", authorization.encode())]
    return http.post(server.url + TRANSCRIBE, files={"file": ("a.wav", wav())}, headers=headers)


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x"])
def test_without_the_key_nobody_gets_in(server: Serving, given: str | None) -> None:
    response = ask(server, given)
    assert refusal(response) == (401, "invalid_api_key", None)
    assert response.headers["www-authenticate"] == "Bearer"
    assert KEY not in response.text


def test_with_the_key_one_does(server: Serving) -> None:
    assert ask(server, f"Bearer {KEY}").status_code == 200
    assert ask(server, f"bearer {KEY}").status_code == 200


def test_the_key_is_asked_for_before_the_upload_is_read(server: Serving) -> None:
    response = http.post(server.url + TRANSCRIBE, content=b"no form at all")
    assert response.status_code == 401


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/openapi.json"])
def test_what_tells_of_the_server_needs_the_key(server: Serving, path: str) -> None:
    assert refusal(http.get(server.url + path)) == (401, "invalid_api_key", None)
    known = http.get(server.url + path, headers=[(b"authorization", f"Bearer {KEY}".encode())])
    assert known.status_code == 200


@pytest.mark.parametrize("path", ["/", "/health", "/health/ready"])
def test_the_page_and_health_do_not(server: Serving, path: str) -> None:
    assert http.get(server.url + path).status_code == 200


def test_without_a_key_the_schema_is_open_and_no_page_loads_anything_from_elsewhere() -> None:
    client = TestClient(create_app(ServeConfig(model="some-model"), ModelAsTold()))  # type: ignore[arg-type]
    assert TRANSCRIBE in client.get("/openapi.json").json()["paths"]
    for path in ("/docs", "/redoc"):
        assert client.get(path).status_code == 404


def test_web_sockets_need_it_too() -> None:
    app = create_app(ServeConfig(model="some-model", api_key="key"), ModelAsTold())  # type: ignore[arg-type]

    @app.websocket("/socket", dependencies=[Depends(require_key)])
    async def _(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("in")

    client = TestClient(app)
    for headers in (
        {"Authorization": "Bearer key"},
        {"Sec-WebSocket-Protocol": "a, openai-insecure-api-key.key"},
    ):
        with client.websocket_connect("/socket", headers=headers) as socket:
            assert socket.receive_text() == "in"
    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/socket"):
        pass
    assert refused.value.code == 1008


def test_an_empty_key_is_a_mistake() -> None:
    with pytest.raises(SteerError, match="empty api_key"):
        ServeConfig(api_key=" ")


def test_the_key_is_compared_in_constant_time(server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(given: bytes, right: bytes) -> bool:
        compared.append(given)
        return given == right

    monkeypatch.setattr(secrets, "compare_digest", compare)
    assert ask(server, "Bearer wrong").status_code == 401
    assert ask(server, f"Bearer {KEY}").status_code == 200
    assert compared == [b"wrong", KEY.encode()]


@pytest.mark.parametrize(
    "path",
    [
        *("/page/page.js", "/page.py", "/../app.py", "/page.js/../../config.py", "/%2e%2e/app.py"),
        *("//etc/passwd", "/v1/models/../../etc/passwd", "/v1/models/%2e%2e%2fapp.py"),
    ],
)
def test_no_path_leads_to_a_file(server: Serving, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer "
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request.encode() + KEY.encode() + b"\r\n\r\n")
        assert status_of(connection) == 404


def test_pages_of_other_sites_can_read_no_answer(server: Serving) -> None:
    headers = {"Origin": "http://elsewhere.example", "Access-Control-Request-Method": "POST"}
    asked = http.options(server.url + TRANSCRIBE, headers=headers)
    assert asked.status_code >= 400
    for answer in (asked, http.get(server.url + "/health", headers=headers), ask(server, None)):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_the_page_can_be_neither_framed_nor_sniffed(server: Serving) -> None:
    for path in ("/", "/page/page.css", "/page/main.js"):
        headers = http.get(server.url + path).headers
        policy = headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "base-uri 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
