"""Live sessions over a WebSocket, and what a client may get wrong."""

import gc
import json
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, cast

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.real_models import sample, truth
from tests.support.serving_parts import Serving, serving, tiny, until
from whisper_sae_steer.reports import metrics
from whisper_sae_steer.serving import sessions, sockets
from whisper_sae_steer.serving.config import ServeConfig
from whisper_sae_steer.serving.connections import OPTIONS
from whisper_sae_steer.serving.engine import ServingEngine
from whisper_sae_steer.serving.timeline import timeline_of
from whisper_sae_steer.streaming import StreamingTranscriber

SPEECH = sample("speech")
PCM = (SPEECH * 32767).astype("<i2").tobytes()
WORDS = metrics.normalise(truth("speech")["speech"][0]["text"], "en").split()
SECOND = 32_000
"""bytes of 16-bit samples"""


@pytest.fixture(scope="module")
def server() -> Generator[Serving]:
    with serving(ServeConfig(max_audio_seconds=60)) as running:
        yield running


@contextmanager
def session(
    server: Serving, options: dict[str, Any] | None = None, **kwargs: Any
) -> Generator[ClientConnection]:
    """A connection that is past its first messages, unless ``options`` is None."""
    url = server.url.replace("http", "ws", 1) + "/v1/audio/stream"
    with connect(url, max_size=None, **kwargs) as connection:
        if options is not None:
            connection.send(json.dumps(options))
            assert received(connection)["type"] == "ready"
        yield connection


def received(connection: ClientConnection) -> dict[str, Any]:
    return json.loads(connection.recv(timeout=30))


def rest(connection: ClientConnection) -> list[dict[str, Any]]:
    """Messages up to the end."""
    messages = [received(connection)]
    while messages[-1]["type"] == "update":
        messages.append(received(connection))
    return messages


def refused(connection: ClientConnection) -> tuple[int, str]:
    """The code that the server closes with, and its error message."""
    message = rest(connection)[-1]
    assert message["type"] == "error"
    with pytest.raises(ConnectionClosed) as closed:
        connection.recv(timeout=10)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, message["message"]


def text_of(messages: list[dict[str, Any]]) -> list[str]:
    final = [segment for message in messages for segment in message["final"]]
    assert [segment["id"] for segment in final] == list(range(len(final)))
    return metrics.normalise("".join(segment["text"] for segment in final), "en").split()


# --- what it is for ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["pcm16", "float32"])
def test_speech_comes_back_as_final_text(server: Serving, form: str):
    audio = PCM if form == "pcm16" else SPEECH.astype("<f4").tobytes()
    size = len(audio) // 500  # 20 ms
    with session(server, {"format": form, "words": form == "float32", "min_chunk": 2}) as connection:
        for i in range(0, len(audio), size):
            connection.send(audio[i : i + size])
        connection.send('{"type": "end"}')
        messages = rest(connection)
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1000
    assert messages[-1]["type"] == "end"
    assert messages[-1]["partial"] == []
    assert messages[-1]["seconds"] == 10.0
    assert messages[-1]["language"] == "en"
    assert text_of(messages) == WORDS
    final = [segment for message in messages for segment in message["final"]]
    assert all(s["speech_prob"] > 0.9 and s["hallucination_risk"] < 0.1 for s in final)
    if form == "float32":
        assert [w["text"] for s in final for w in s["words"]] == [
            f" {w}" for w in "".join(s["text"] for s in final).split()
        ]
    else:
        assert not any("words" in segment for segment in final)


def test_updates_tell_how_likely_speech_is(server: Serving):
    """One value each 0.1 s, near to those of the timeline, which hears the whole recording at once."""
    silent = np.concatenate([np.zeros(4 * 16_000, np.float32), SPEECH])
    with session(server, {"min_chunk": 0.5}) as connection:
        for start in range(0, len(silent), 8000):
            connection.send((silent[start : start + 8000] * 32767).astype("<i2").tobytes())
        connection.send('{"type": "end"}')
        messages = rest(connection)
    heard = np.array([value for message in messages for value in message["speech_prob"]])
    at_once = np.array([label.speech_prob for label in timeline_of(tiny(), silent)])
    assert len(heard) == len(at_once) == 140
    (spoken,) = truth("speech")["speech"]
    inside = slice(40 + round(10 * spoken["start"]) + 5, 40 + round(10 * spoken["end"]) - 5)
    assert heard[:40].max() < 0.1
    assert heard[inside].mean() > 0.8
    assert np.abs(heard - at_once)[inside].mean() < 0.1


def test_noise_gives_no_text_and_alpha_zero_no_labels(server: Serving):
    noise = np.random.default_rng(0).normal(0, 600, 6 * 16_000).astype("<i2").tobytes()
    with session(server, {}) as connection:
        connection.send(noise)
        connection.send('{"type": "end"}')
        messages = rest(connection)
    assert text_of(messages) == []
    with session(server, {"steer_alpha": 0}) as connection:
        connection.send(PCM)
        connection.send('{"type": "end"}')
        messages = rest(connection)
    assert text_of(messages) == WORDS
    assert {segment["speech_prob"] for message in messages for segment in message["final"]} == {None}
    assert not any(message["speech_prob"] for message in messages)


def test_sessions_share_the_model(server: Serving):
    with session(server, {}) as one, session(server, {"steer_alpha": 0}) as other:
        for connection in (one, other):
            connection.send(PCM)
            connection.send('{"type": "end"}')
        assert text_of(rest(one)) == text_of(rest(other)) == WORDS


# --- what may go wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        (b"\0\0", 1003, "options as JSON"),
        ("hello", 1007, "JSON"),
        ("[" * 100_000, 1007, "JSON"),
        ("[]", 1007, "options"),
        ('{"steer_alpha": "NaN"}', 1007, "steer_alpha"),
        ('{"steer_alpha": -1}', 1007, "steer_alpha"),
        ('{"format": "mp3"}', 1007, "format"),
        ('{"language": "de"}', 1007, "'de'"),  # an English-only model
        ('{"task": "translate"}', 1007, "knows English only"),
        (json.dumps({"language": "é" * 200}), 1007, "é"),  # a reason has room for 123 bytes
        ('{"min_chunk": 0}', 1007, "min_chunk"),
        ('{"alpha": 1}', 1007, "alpha"),  # HTTP's name for it holds here, too
    ],
)
def test_bad_options_are_refused(server: Serving, message: str | bytes, code: int, said: str):
    with session(server) as connection:
        connection.send(message)
        found, why = refused(connection)
    assert found == code
    assert said in why


@pytest.mark.parametrize(
    ("options", "message", "code", "said"),
    [
        ({}, b"\0" * 3, 1007, "3 bytes"),
        ({"format": "float32"}, b"\0" * 6, 1007, "6 bytes"),
        ({"format": "float32"}, np.array([np.nan], "<f4").tobytes(), 1007, "NaN"),
        ({"format": "float32"}, np.array([32768], "<f4").tobytes(), 1007, "by 32768"),
        ({}, '{"type": "stop"}', 1003, "end"),
        ({}, "no json", 1007, "JSON"),
        ({}, b"\0" * (2**20 + 2), 1009, "1048576"),
    ],
)
def test_bad_messages_end_the_session(
    server: Serving, options: dict[str, Any], message: str | bytes, code: int, said: str
):
    with session(server, options) as connection:
        connection.send(message)
        found, why = refused(connection)
    assert found == code
    assert said in why


def test_a_session_has_an_end(server: Serving):
    with session(server, {"min_chunk": 5}) as connection:
        for _ in range(61):
            connection.send(bytes(SECOND))
        assert refused(connection) == (1008, "the session is longer than 60 s")


def test_a_client_that_says_nothing_is_let_go(server: Serving, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sockets, "IDLE_SECONDS", 0.2)
    with session(server, {}) as connection:
        assert refused(connection) == (1008, "nothing came for 0.2 s")


def test_empty_messages_keep_no_session_alive(server: Serving, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sockets, "IDLE_SECONDS", 0.3)
    with session(server, {}) as connection:
        answer, deadline = None, time.monotonic() + 3
        while answer is None and time.monotonic() < deadline:
            connection.send(b"")
            with suppress(TimeoutError):
                answer = connection.recv(timeout=0.05)
    assert answer == '{"type": "error", "message": "nothing came for 0.3 s"}'


def test_a_client_that_hangs_up_leaves_nothing_behind(server: Serving):
    engine: ServingEngine = server.app.state.engine
    with session(server, {}) as connection:
        connection.send(PCM)
        until(lambda: engine.uploads.taken == 1)
    until(lambda: engine.uploads.taken == 0)
    with session(server, {}) as connection:
        connection.send('{"type": "end"}')
        assert rest(connection)[-1]["type"] == "end"


def test_nor_does_its_session_wait_for_a_garbage_collection(server: Serving):
    def there() -> int:
        return sum(isinstance(thing, StreamingTranscriber) for thing in gc.get_objects())

    gc.collect()
    before = there()
    gc.disable()
    try:
        with session(server, {}) as connection:
            connection.send(PCM)
            until(lambda: there() > before)
            connection.close()
        until(lambda: there() == before)
    finally:
        gc.enable()


def test_more_sessions_than_allowed_are_sent_away():
    with serving(ServeConfig(max_uploads=1)) as server, session(server, {}), session(server) as second:
        code, why = refused(second)
    assert code == 1013
    assert "busy" in why


def test_a_session_waits_for_a_worker_but_not_for_ever(server: Serving, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sessions, "BUSY_SECONDS", 0.2)
    with session(server, {}) as connection, busy(server):
        connection.send(bytes(SECOND))
        assert refused(connection)[0] == 1013


@contextmanager
def busy(server: Serving) -> Generator[None]:
    """A server whose workers have no place for anybody's step."""
    engine: ServingEngine = server.app.state.engine
    while engine._jobs.take():
        pass
    try:
        yield
    finally:
        engine._jobs.taken = 0


def test_pings_are_answered_while_a_session_waits_for_a_worker(server: Serving):
    with session(server, {"min_chunk": 5}) as connection:
        with busy(server):
            for start in range(0, 50, 10):
                connection.send(bytes(10 * SECOND))
                assert connection.ping().wait(3), f"not after {start + 10} s of audio"
            connection.send('{"type": "end"}')
            assert connection.ping().wait(3), "not after the end"
        assert rest(connection)[-1]["seconds"] == 50


@pytest.mark.slow
def test_a_client_that_is_too_far_ahead_to_be_read_is_not_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(cast(dict[str, Any], OPTIONS), "ws_ping_interval", 0.1)
    with (
        serving(ServeConfig()) as server,
        session(server, {"min_chunk": 5}, ping_interval=None) as connection,
    ):
        with busy(server):
            for _ in range(8):
                connection.send(bytes(10 * SECOND))
            time.sleep(25)  # longer than uvicorn would wait for the answer
        connection.send('{"type": "end"}')
        assert rest(connection)[-1]["seconds"] == 80


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1", "https://127.0.0.1:1", "null"])
def test_pages_of_other_sites_are_refused(server: Serving, origin: Any):
    with session(server, origin=origin) as connection:
        code, why = refused(connection)
    assert code == 1008
    assert "other sites" in why


def test_pages_of_the_server_itself_are_not(server: Serving):
    origin: Any = server.url
    with session(server, {}, origin=origin):
        pass


def test_the_key_is_asked_for():
    with serving(ServeConfig(api_key="sesame")) as server:
        elsewhere: Any = "http://a-page.example"
        with session(server, {}, origin=elsewhere, additional_headers={"Authorization": "Bearer sesame"}):
            pass
        with pytest.raises(InvalidStatus, match="403"), session(server, {}):
            pass
        with session(server, {}, additional_headers={"Authorization": "Bearer sesame"}):
            pass
        # as a browser, which gives no headers
        protocols: Any = ["audio", "openai-insecure-api-key.sesame"]
        with session(server, {}, subprotocols=protocols) as connection:
            assert connection.subprotocol == "audio"
