"""Wyoming events in any order and form, and bytes that are none: an answer, an error event, or the end."""

import json
import random
import socket
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from tests.fuzz.damage import as_json, spoiled, spoiled_json
from tests.support.serving_parts import http, until
from tests.support.wyoming_parts import Listening, listening
from whisper_sae_steer.serving.wyoming import connection

FORM = {"rate": 16_000, "width": 2, "channels": 1}
EVENTS: tuple[dict[str, Any], ...] = (
    {"type": "describe"},
    {"type": "transcribe", "data": {"name": "tiny.en", "language": "en"}},
    {"type": "select-program", "data": {"name": "whisper-sae-steer-live"}},
    {"type": "audio-start", "data": FORM},
    {"type": "audio-chunk", "data": FORM, "payload_length": 3200},
    {"type": "audio-stop"},
)
TYPES = {"info", "transcript", "transcript-start", "transcript-chunk", "transcript-stop", "error"}
QUIET_SECONDS = 2.0
"""without a byte of an answer, after which the client leaves"""


def attempt(dice: random.Random, folder: Path) -> str:
    """Send it all and hang up; whatever comes back is an event of the server."""
    listener = _listener()
    answer = b""
    with socket.create_connection(("127.0.0.1", listener.port), timeout=QUIET_SECONDS) as client:
        try:
            client.sendall(_bytes(dice))
            client.shutdown(socket.SHUT_WR)
            while received := client.recv(2**16):
                answer += received
        except OSError:  # it has closed
            pass
    until(lambda: listener.server.app.state.fleet.uploads.taken == 0, seconds=9)
    assert http.get(listener.server.url + "/health").json()["ready"]
    return _kinds(answer)


@cache
def _listener() -> Listening:
    """One server for all cases, with tiny.en, until the process ends."""
    connection.IDLE_SECONDS = 1.0
    return _STACK.enter_context(listening(max_audio_seconds=20))


_STACK = ExitStack()


def _bytes(dice: random.Random) -> bytes:
    if dice.random() < 0.3:  # an utterance as it should be
        wanted = [EVENTS[3], EVENTS[4], EVENTS[4], EVENTS[5]]
    else:
        wanted = [dice.choice(EVENTS) for _ in range(dice.choice((1, 2, 5)))]
    sent = b"".join(_event(event, dice) for event in wanted)
    return spoiled(sent, dice) if dice.random() < 0.4 else sent


def _event(event: dict[str, Any], dice: random.Random) -> bytes:
    """Its line and payload; often with a wrong value, a length that lies among them."""
    line = as_json(spoiled_json(event, dice) if dice.random() < 0.5 else event)
    return line.encode() + b"\n" + dice.randbytes(event.get("payload_length", 0))


def _kinds(answer: bytes) -> str:
    """The kinds of events in an answer."""
    kinds = set[str]()
    while answer:
        line, _, answer = answer.partition(b"\n")
        event = json.loads(line)
        assert event["type"] in TYPES, event
        kinds.add(event["type"])
        answer = answer[event.get("data_length") or 0 :][event.get("payload_length") or 0 :]
    return " ".join(sorted(kinds)) or "nothing"
