"""Events of OpenAI's Realtime API in any order and form: the connection goes on, or says why it does not."""

import base64
import json
import random
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.frames import Close
from websockets.sync.client import connect

from tests.fuzz.damage import as_json, spoiled_json
from tests.support.serving_parts import Serving, http, serving, until
from whisper_sae_steer.serving import sockets
from whisper_sae_steer.serving.config import ServeConfig

CODES = (1002, 1007, 1008, 1009, 1013)
"""that tell the client what it did"""
INPUT = {
    "format": {"type": "audio/pcm", "rate": 24_000},
    "transcription": {"model": "whisper-1", "language": "en", "prompt": "boxes"},
    "turn_detection": {"type": "server_vad", "silence_duration_ms": 500, "prefix_padding_ms": 300},
}
UPDATE = {"type": "session.update", "session": {"type": "transcription", "audio": {"input": INPUT}}}
FLAT = {
    "type": "transcription_session.update",
    "session": {"input_audio_format": "g711_ulaw", "turn_detection": None},
}
COMMIT, CLEAR = {"type": "input_audio_buffer.commit"}, {"type": "input_audio_buffer.clear"}


def attempt(dice: random.Random, folder: Path) -> str:
    """Send it all, and then what is surely wrong: its error shows that all before it was taken."""
    server = _server()
    try:
        with connect(_url(server, dice), max_size=None, close_timeout=5) as connection:
            for message in _messages(dice):
                connection.send(message)
            connection.send('{"type": "last", "event_id": "last"}')
            while json.loads(connection.recv(timeout=9)).get("error", {}).get("event_id") != "last":
                pass
        closed = None
    except ConnectionClosed as ended:
        closed = ended.rcvd or Close(1006, "closed without a code")
    until(lambda: server.app.state.fleet.uploads.taken == 0, seconds=9)
    assert http.get(server.url + "/health").json()["ready"]
    if closed is None:
        return "went on"
    assert closed.code in CODES, closed
    return f"closed with {closed.code}"


@cache
def _server() -> Serving:
    """One for all cases, with tiny.en, until the process ends."""
    sockets.IDLE_SECONDS = 5.0
    return _STACK.enter_context(serving(ServeConfig(max_audio_seconds=20)))


_STACK = ExitStack()


def _url(server: Serving, dice: random.Random) -> str:
    query = dice.choice(
        ("?intent=transcription", "", "?model=tiny.en", "?model=none", "?intent=conversation", "?intent=%00")
    )
    return server.url.replace("http", "ws", 1) + "/v1/realtime" + query


def _messages(dice: random.Random) -> list[str | bytes]:
    return [_message(dice) for _ in range(dice.choice((1, 2, 5, 10)))]


def _message(dice: random.Random) -> str | bytes:
    wanted: dict[str, Any] = dice.choice(
        (
            UPDATE,
            FLAT,
            {"type": "input_audio_buffer.commit"},
            {"type": "input_audio_buffer.clear"},
            _append(dice),
        )
    )
    match dice.randrange(4):
        case 0:
            return as_json(wanted)
        case 1 | 2:
            return as_json(spoiled_json({"event_id": "x", **wanted}, dice))
        case _:
            return dice.choice((dice.randbytes(100), "[" * 100_000, "{}", "null", '"', "9" * 5000))


def _append(dice: random.Random) -> dict[str, Any]:
    audio = dice.choice((bytes(2400), dice.randbytes(9600), bytes(3), b"", bytes(24_000 * 2 * 5)))
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()}
