"""Clients that send what is no Wyoming, too much or nothing, or vanish: an error event, and the end."""

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from wyoming.asr import Transcribe
from wyoming.client import AsyncClient
from wyoming.info import Describe

from tests.support.serving_parts import ModelAsTold, until
from tests.support.wyoming_parts import Listening, answer, event, listening, raw, said, send, with_client
from whisper_sae_steer.errors import ConfigError
from whisper_sae_steer.serving.config import ServeConfig
from whisper_sae_steer.serving.engine import ServingEngine
from whisper_sae_steer.serving.wyoming import connection
from whisper_sae_steer.serving.wyoming import server as wyoming_server

FORM = {"rate": 16_000, "width": 2, "channels": 1}
START, STOP = event("audio-start", **FORM), event("audio-stop")
SECOND = event("audio-chunk", bytes(32_000), **FORM)


@pytest.fixture(scope="module")
def server() -> Generator[Listening]:
    with listening(ModelAsTold(), max_audio_seconds=5, max_upload_bytes=200_000, max_uploads=4) as running:
        yield running
        until(lambda: engine(running).uploads.taken == 0)


def engine(server: Listening) -> ServingEngine:
    return server.server.app.state.engine


def errors(server: Listening, *parts: bytes) -> tuple[str, str]:
    """Code and message of the error that raw bytes end in, as the only answer."""
    (said,) = raw(server.port, parts)
    assert said["type"] == "error"
    return said["code"], said["text"]


def header(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "no JSON"),
        (b"\xff\xfe\n", "no JSON"),
        (b"\n", "no JSON"),
        (b"[]\n", "JSON object"),
        (b"5\n", "JSON object"),
        (b"null\n", "JSON object"),
        (b"{}\n", "JSON object"),
        (b"[" * 60_000 + b"\n", "JSON object"),
        (b"x" * 200_000, "too long"),
        (header(type=5), "string"),
        (header(type="describe", data=[]), "object"),
        (header(type="describe", data=None), "object"),
        (header(type="describe", data_length=3) + b"[1]", "JSON object"),
        (header(type="describe", data_length=3) + b"{{{", "no JSON"),
        (header(type="describe", data_length="3"), "JSON object"),
        (header(type="describe", data_length=2**40), "1048576"),
        (header(type="audio-chunk", payload_length=2**60), "1048576"),
        (header(type="audio-chunk", payload_length=1.5), "1048576"),
        (b'{"type": "x", "payload_length": 1e999}\n', "1048576"),
        (SECOND, "before audio-start"),
        (STOP, "before audio-start"),
        (event("audio-start"), "rate"),
        (event("audio-start", rate=0, width=2, channels=1), "rate"),
        (event("audio-start", rate="16000", width=2, channels=1), "rate"),
        (event("audio-start", rate=10**9, width=2, channels=1), "rate"),
        (event("audio-start", rate=16_000, width=5, channels=1), "width"),
        (event("audio-start", rate=16_000, width=2, channels=9), "channels"),
        (START + START, "before audio-stop"),
        (START + event("audio-chunk", bytes(3), **FORM), "3 bytes"),
        (START + event("audio-chunk", bytes(4), **{**FORM, "rate": 8_000}), "not that of audio-start"),
        (event("select-program", name="piper"), "'piper'"),
        (event("select-program", name=[]), "name"),
        (event("transcribe", language=["de"]), "language"),
    ],
)
def test_what_is_no_event_is_told_and_ends_the_connection(server: Listening, sent: bytes, said: str):
    code, message = errors(server, sent)
    assert code == "invalid_event"
    assert said in message


def test_audio_has_an_end(server: Listening):
    parts = [START, *[event("audio-chunk", bytes(16_000), **FORM)] * 11]
    assert errors(server, *parts) == ("audio_too_long", "the session is longer than 5 s")


def test_so_have_its_bytes(server: Listening):
    form = {"rate": 96_000, "width": 4, "channels": 2}
    chunk = event("audio-chunk", bytes(96_000), **form)
    code, message = errors(server, event("audio-start", **form), chunk, chunk, chunk)
    assert code == "file_too_large"
    assert "MiB" in message


@pytest.mark.parametrize(
    ("asked", "code"),
    [({"language": "tlh"}, "invalid_value"), ({"name": "large-v9"}, "model_not_found")],
)
def test_models_and_languages_that_are_not_there(server: Listening, asked: dict[str, str], code: str):
    assert errors(server, event("transcribe", **asked))[0] == code


def test_a_lying_header_takes_no_memory(server: Listening):
    process = psutil.Process()
    before = process.memory_info().rss
    line = header(type="audio-chunk", data=FORM, payload_length=2**31 - 1)
    assert errors(server, START + line, *[bytes(2**20)] * 64)[0] == "invalid_event"
    assert process.memory_info().rss - before < 32 * 2**20


def test_events_of_other_domains_are_let_pass(server: Listening):
    parts = [event("detect", names=["alexa"]), START, SECOND, event("played"), event("describe"), STOP]

    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"".join(parts))
        lines = connection.makefile("rb")
        kinds: list[str] = []
        while not kinds or kinds[-1] != "transcript-stop":
            found = json.loads(lines.readline())
            kinds.append(found["type"])
            lines.read(found.get("data_length", 0))
    assert kinds == ["info", "transcript-start", "transcript-chunk", "transcript", "transcript-stop"]


@pytest.mark.parametrize("sent", [b"", b'{"type": ', START, START + event("audio-chunk", b"", **FORM)])
def test_a_client_that_says_nothing_is_let_go(
    server: Listening, sent: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connection, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.1)
    assert errors(server, sent)[0] == "idle"


def test_more_connections_than_slots_are_sent_away(server: Listening):
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(4)]
    try:
        until(lambda: engine(server).uploads.taken == 4)
        assert errors(server)[0] == "server_busy"
    finally:
        for connected in held:
            connected.close()
    until(lambda: engine(server).uploads.taken == 0)
    assert said(f"tcp://127.0.0.1:{server.port}", bytes(32_000)).text == "word0"


@pytest.fixture
def blocked() -> Iterator[tuple[Listening, ModelAsTold]]:
    """A server whose model waits for the test."""
    model = ModelAsTold(blocks=True)
    with listening(model, max_queue=0, shutdown_timeout=5) as running:
        yield running, model
        model.go.release(1000)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_vanishes_ends_its_job(blocked: tuple[Listening, ModelAsTold], how: str):
    server, model = blocked
    with socket.create_connection(("127.0.0.1", server.port)) as connected:
        connected.sendall(START + SECOND * 3 + STOP)
        until(lambda: model.calls)
        if how == "reset":
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: engine(server).uploads.taken == 0)
    model.go.release()
    until(lambda: model.ended == 1)
    assert engine(server).metrics.registry.get_sample_value("whisper_hangups_total") == 1


def test_a_queue_that_is_full_is_an_error(blocked: tuple[Listening, ModelAsTold]):
    server, model = blocked
    with socket.create_connection(("127.0.0.1", server.port)) as first:
        first.sendall(START + SECOND + STOP)
        until(lambda: model.calls)
        assert errors(server, START + SECOND + STOP)[0] == "server_busy"


def test_utterances_are_counted(server: Listening):
    def count(status: str) -> float:
        labels = {"endpoint": "wyoming", "status": status}
        return engine(server).metrics.registry.get_sample_value("whisper_requests_total", labels) or 0

    good, bad = count("200"), count("400")
    said(server.address, bytes(32_000))
    errors(server, START + START)
    until(lambda: (count("200"), count("400")) == (good + 1, bad + 1))


def test_what_is_said_at_the_end_is_finished():
    """The server stops while one client talks and another is idle."""
    model = ModelAsTold(blocks=True)
    heard: list[Any] = []

    def talk(address: str) -> None:
        async def use(client: AsyncClient) -> Any:
            await client.write_event(Transcribe().event())
            await send(client, bytes(96_000))
            return await answer(client)

        heard.append(with_client(address, use))

    with listening(model, shutdown_timeout=10) as server:
        idle = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        talking = threading.Thread(target=talk, args=(server.address,))
        talking.start()
        until(lambda: model.calls)
        threading.Timer(0.5, model.go.release, (1000,)).start()
    talking.join()
    assert heard[0].text == "word0 word1 word2"
    assert idle.recv(1) == b""
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)


def test_a_unix_socket_does_as_well(tmp_path: Path):
    path = tmp_path / "wyoming.sock"
    with listening(ModelAsTold(), address=f"unix://{path}"):

        async def describe(client: AsyncClient) -> Any:
            await client.write_event(Describe().event())
            return await client.read_event()

        assert with_client(f"unix://{path}", describe).type == "info"
    assert not path.exists()


@pytest.mark.parametrize(
    "address",
    ["", "10300", "tcp://", "tcp://0.0.0.0", "tcp://a:99999", "http://a:1", "unix://a/b", "stdio://"],
)
def test_addresses_are_checked(address: str):
    with pytest.raises(ConfigError, match="tcp://HOST:PORT"):
        ServeConfig(wyoming=address)


def test_a_socket_takes_no_files_place(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="no socket"):
        ServeConfig(wyoming=f"unix://{tmp_path / 'file'}")


def test_an_address_in_use_is_said():
    with socket.create_server(("127.0.0.1", 0)) as taken:

        async def start() -> None:
            async with wyoming_server.listening(f"tcp://127.0.0.1:{taken.getsockname()[1]}", None):  # type: ignore[arg-type]
                pass

        with pytest.raises(ConfigError, match="can't listen at tcp"):
            asyncio.run(start())
