"""The Realtime WebSocket as OpenAI's own client sees it, and what a client may get wrong."""

import asyncio
import base64
import json
from collections.abc import Generator
from typing import Any

import numpy as np
import openai
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.real_models import sample
from tests.support.realtime_parts import (
    PATH,
    TRANSCRIPTION,
    Event,
    Session,
    no_turns,
    pcm,
    session,
    spoken,
    words,
)
from tests.support.serving_parts import Serving, serving, until
from whisper_sae_steer.serving import sockets
from whisper_sae_steer.serving.config import ServeConfig
from whisper_sae_steer.serving.engine import ServingEngine
from whisper_sae_steer.serving.realtime.events import EVENT_BYTES

FIRST, TEXT = spoken("speech")
AUDIO = pcm(np.concatenate([sample("speech"), np.zeros(8000, np.float32)]))
SECOND = 48_000
"""bytes of 16-bit samples"""


@pytest.fixture(scope="module")
def server() -> Generator[Serving]:
    with serving(ServeConfig(max_audio_seconds=60, api_key="sesame")) as running:
        yield running


KEY: Any = {"additional_headers": {"Authorization": "Bearer sesame"}}


def closed(client: Session) -> tuple[int, str]:
    """The code that the server closes with, and what it said before."""
    error = client.refusal()
    with pytest.raises(ConnectionClosed) as ended:
        client.connection.recv(timeout=10)
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code, error["message"]


# --- OpenAI's client -----------------------------------------------------------------------------


def test_with_openais_client(server: Serving):
    async def heard() -> list[Any]:
        client = openai.AsyncOpenAI(api_key="sesame", base_url=f"{server.url}/v1")
        events: list[Any] = []
        async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
            given: Any = {"input": {"transcription": {"model": "whisper-1", "language": "en"}}}
            await connection.session.update(session={"type": "transcription", "audio": given})
            for start in range(0, len(AUDIO), 9600):
                piece = base64.b64encode(AUDIO[start : start + 9600]).decode()
                await connection.input_audio_buffer.append(audio=piece)
            async for event in connection:
                events.append(event)
                if event.type == TRANSCRIPTION + "completed":
                    return events
        return events

    created, updated, *_, completed = asyncio.run(heard())
    assert (created.type, updated.type) == ("session.created", "session.updated")
    assert updated.session.type == "transcription"
    assert updated.session.audio.input.transcription.model == "whisper-1"
    assert updated.session.audio.input.transcription.language == "en"
    assert words(completed.transcript) == words(TEXT)
    assert completed.usage.type == "duration"


def test_with_the_client_of_the_beta(server: Serving):
    address = f"ws://127.0.0.1:{server.port}/v1"
    client = openai.OpenAI(api_key="sesame", websocket_base_url=address)
    turns: Any = {"input_audio_format": "pcm16", "turn_detection": None, "modalities": ["text"]}
    intent = {"intent": "transcription"}
    events: list[Any] = []
    with client.beta.realtime.connect(model="whisper-1", extra_query=intent) as connection:
        connection.transcription_session.update(session=turns)
        connection.input_audio_buffer.append(audio=base64.b64encode(AUDIO).decode())
        connection.input_audio_buffer.commit()
        for event in connection:
            events.append(event)
            if event.type == TRANSCRIPTION + "completed":
                break
    kinds = [event.type for event in events if event.type != TRANSCRIPTION + "delta"]
    assert kinds == [
        "transcription_session.created",
        "transcription_session.updated",
        "input_audio_buffer.committed",
        "conversation.item.created",
        TRANSCRIPTION + "completed",
    ]
    assert events[1].session.input_audio_format == "pcm16"
    assert events[1].session.turn_detection is None
    assert words(events[-1].transcript) == words(TEXT)


# --- settings ------------------------------------------------------------------------------------


def test_an_update_changes_what_it_names(server: Serving):
    with session(server, **KEY) as client:
        created = client.receive()["session"]
        client.update(audio={"input": {"transcription": {"prompt": "coast"}}})
        shown = client.update(steer_alpha=0.5, audio={"input": {"noise_reduction": {"type": "near_field"}}})
    expected: Event = json.loads(json.dumps(created))
    expected["steer_alpha"] = 0.5
    expected["audio"]["input"]["transcription"]["prompt"] = "coast"
    assert shown == expected
    assert created["audio"]["input"]["turn_detection"] == {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
    }
    assert created["object"] == "realtime.transcription_session"


def to(**given: Any) -> Event:
    """An update of the session."""
    return {"type": "session.update", "session": {"type": "transcription", **given}}


def inputs(**given: Any) -> Event:
    return to(audio={"input": given})


APPEND, COMMIT = {"type": "input_audio_buffer.append"}, {"type": "input_audio_buffer.commit"}
LOGPROBS, IN = ["item.input_audio_transcription.logprobs"], "session.audio.input"
NO_NUMBER = {"type": "server_vad", "silence_duration_ms": "x"}
FLAT = {"type": "transcription_session.update", "session": {"input_audio_format": "mp3"}}
TOO_LARGE = json.dumps({**APPEND, "audio": "A" * EVENT_BYTES})
REFUSED: list[tuple[Any, str, str | None, str]] = [
    ("hello", "invalid_json", None, "JSON"),
    ("[" * 100_000, "invalid_json", None, "JSON"),
    (b"\xff\xfe", "invalid_json", None, "JSON"),
    (TOO_LARGE, "event_too_large", None, "shorter"),
    ("[]", "invalid_type", None, "dictionary"),
    ({}, "missing_required_parameter", "type", "type"),
    ({"type": "response.create"}, "invalid_value", "type", "input_audio_buffer.append"),
    ({"type": "\ud800"}, "invalid_value", "type", "input_audio_buffer.append"),
    ({"type": 5}, "invalid_value", "type", "5"),
    (APPEND, "missing_required_parameter", "audio", "required"),
    ({**APPEND, "audio": 5}, "invalid_type", "audio", "string"),
    ({**APPEND, "audio": "é"}, "invalid_value", "audio", "base64"),
    ({**APPEND, "audio": "AAA"}, "invalid_value", "audio", "base64"),
    ({**APPEND, "audio": "AAAA"}, "invalid_value", "audio", "3 bytes"),
    ({**COMMIT, "now": 1}, "unknown_parameter", "now", "not permitted"),
    (COMMIT, "input_audio_buffer_commit_empty", None, "0 ms"),
    ({"type": "session.update", "session": 5}, "invalid_type", "session", "dictionary"),
    (to(type="realtime"), "invalid_value", "session.type", "transcription"),
    (to(voice="alloy"), "unknown_parameter", "session.voice", "not permitted"),
    (to(include=LOGPROBS), "invalid_value", "session.include", "hallucination_risk"),
    (to(steer_alpha=-1), "invalid_value", "session.steer_alpha", "0"),
    (to(steer_alpha=0), "invalid_value", "session", "gate"),
    (
        inputs(turn_detection={"type": "semantic_vad"}),
        "invalid_value",
        f"{IN}.turn_detection.type",
        "server_",
    ),
    (
        inputs(turn_detection=NO_NUMBER),
        "invalid_value",
        f"{IN}.turn_detection.silence_duration_ms",
        "integer",
    ),
    (inputs(format={"type": "audio/mp3"}), "invalid_value", f"{IN}.format.type", "audio/pcm"),
    (inputs(format={"rate": 16000}), "invalid_value", f"{IN}.format.rate", "24000"),
    (inputs(transcription={"model": "gpt-4o"}), "model_not_found", f"{IN}.transcription.model", "gpt-4o"),
    (inputs(transcription={"language": "de"}), "invalid_value", "session", "'de'"),
    (
        inputs(transcription={"keywords": []}),
        "unknown_parameter",
        f"{IN}.transcription.keywords",
        "permitted",
    ),
    (inputs(transcription=None), "invalid_type", f"{IN}.transcription", "Transcription"),
    ({**FLAT, "session": {"input_audio_format": []}}, "invalid_value", f"{IN}.format.type", "audio/pcm"),
    (FLAT, "invalid_value", f"{IN}.format.type", "audio/pcm"),
]


def test_what_is_wrong_is_said_and_the_session_goes_on(server: Serving):
    with session(server, **KEY) as client:
        created = client.receive()["session"]
        for number, (message, code, param, said) in enumerate(REFUSED):
            named = isinstance(message, dict)
            sent = json.dumps({**message, "event_id": f"mine_{number}"}) if named else message
            client.connection.send(sent)
            error = client.refusal()
            assert (error["code"], error["param"]) == (code, param), error
            assert said in error["message"], error
            assert error["type"] == "invalid_request_error"
            assert error["event_id"] == (f"mine_{number}" if named else None)
        shown = client.update()
        assert shown == created
        client.append(AUDIO)
        assert words(client.until(TRANSCRIPTION + "completed")["transcript"]) == words(TEXT)


# --- who is let in, and for how long -------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "said"),
    [("intent=conversation", "transcribes"), ("intent=transcription&model=gpt-4o", "gpt-4o")],
)
def test_other_intents_and_models_are_refused(server: Serving, query: str, said: str):
    with session(server, f"/v1/realtime?{query}", **KEY) as client:
        code, why = closed(client)
    assert code == 1008
    assert said in why


def test_the_key_is_asked_for(server: Serving):
    with pytest.raises(InvalidStatus, match="403"), session(server):
        pass
    # as a browser, which gives no headers
    protocols: Any = ["realtime", "openai-insecure-api-key.sesame"]
    with session(server, subprotocols=protocols) as client:
        assert client.connection.subprotocol == "realtime"
        assert client.receive()["type"] == "session.created"
    with session(server, subprotocols=[*protocols, "openai-beta.realtime-v1"]) as client:
        assert client.receive()["type"] == "transcription_session.created"


def test_pages_of_other_sites_are_refused_and_a_full_server_says_so():
    elsewhere: Any = "http://a-page.example"
    with serving(ServeConfig(max_uploads=1)) as open_server:
        with session(open_server, origin=elsewhere) as client:
            code, why = closed(client)
        assert code == 1008
        assert "other sites" in why
        with session(open_server) as first, session(open_server) as client:
            assert first.receive()["type"] == "session.created"
            error = client.refusal()
        assert error["type"] == "rate_limit_error"


def test_a_session_has_an_end(server: Serving):
    with session(server, **KEY) as client:
        client.receive()
        client.update(audio=no_turns())
        client.append(bytes(61 * SECOND), SECOND)
        assert closed(client) == (1008, "the session is longer than 60 s")


def test_a_client_that_says_nothing_is_let_go(server: Serving, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sockets, "IDLE_SECONDS", 0.2)
    with session(server, **KEY) as client:
        client.receive()
        assert closed(client) == (1008, "nothing came for 0.2 s")


def test_a_client_that_hangs_up_leaves_nothing_behind(server: Serving):
    engine: ServingEngine = server.app.state.engine
    until(lambda: engine.uploads.taken == 0)
    with session(server, **KEY) as client:
        client.append(AUDIO)
        client.receive()
        assert engine.uploads.taken == 1
    until(lambda: engine.uploads.taken == 0)


def test_without_a_gate_the_client_says_what_is_an_item():
    with serving(ServeConfig(steer_alpha=0)) as plain, session(plain, PATH) as client:
        assert client.receive()["session"]["audio"]["input"]["turn_detection"] is None
        client.append(AUDIO)
        client.send("input_audio_buffer.commit")
        completed = client.until(TRANSCRIPTION + "completed")
    assert words(completed["transcript"]) == words(TEXT)
    assert {segment["speech_prob"] for segment in completed["segments"]} == {None}
