"""Recordings as Realtime clients send them, and connections that speak its events."""

import base64
import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
from av import CodecContext
from av.audio.frame import AudioFrame
from numpy.typing import NDArray
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from scipy.signal import resample_poly
from websockets.sync.client import ClientConnection, connect

from tests.support.real_models import sample, truth
from tests.support.serving_parts import Serving
from whisper_sae_steer.reports import metrics

PATH = "/v1/realtime?intent=transcription"
SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
"""OpenAI's own types"""
TRANSCRIPTION = "conversation.item.input_audio_transcription."
Event = dict[str, Any]


def pcm(audio: NDArray[np.float32]) -> bytes:
    """Samples [n] at 16 kHz as 16-bit ones at 24 kHz."""
    return _int16(resample_poly(audio, 3, 2)).tobytes()


def g711(audio: NDArray[np.float32], codec: str) -> bytes:
    """Samples [n] at 16 kHz as bytes at 8 kHz, of FFmpeg's pcm_mulaw or pcm_alaw."""
    encoder: Any = CodecContext.create(codec, "w")
    encoder.sample_rate, encoder.layout, encoder.format = 8000, "mono", "s16"
    frame = AudioFrame.from_ndarray(_int16(resample_poly(audio, 1, 2))[None], "s16", "mono")
    frame.sample_rate = 8000
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def _int16(audio: NDArray[np.float32]) -> NDArray[np.int16]:
    return (np.clip(audio, -1, 1) * 32767).astype("<i2")


def spoken(name: str, number: int = 0) -> tuple[NDArray[np.float32], str]:
    """The sound of one sentence of a sample recording, and its text."""
    part = truth(name)["speech"][number]
    audio = sample(name)
    return audio[round(part["start"] * 16_000) : round(part["end"] * 16_000)], part["text"]


def words(text: str) -> list[str]:
    return metrics.normalise(text, "en").split()


class Session:
    """A connection that sends events and keeps all that it receives, each in OpenAI's shape."""

    def __init__(self, connection: ClientConnection):
        self.connection = connection
        self.events: list[Event] = []

    def send(self, kind: str, **fields: Any) -> None:
        self.connection.send(json.dumps({"type": kind, **fields}))

    def append(self, data: bytes, piece: int = 4800) -> None:
        for start in range(0, len(data), piece):
            audio = base64.b64encode(data[start : start + piece]).decode()
            self.send("input_audio_buffer.append", audio=audio)

    def update(self, **session: Any) -> Event:
        """Change settings; what the session is then."""
        self.send("session.update", session={"type": "transcription", **session})
        return self.until("session.updated")["session"]

    def receive(self) -> Event:
        event = json.loads(self.connection.recv(timeout=60))
        if not event["type"].startswith("transcription_session."):  # the beta's
            SERVER_EVENT.validate_python(event)
        self.events.append(event)
        return event

    def until(self, kind: str, count: int = 1) -> Event:
        """The event of a type that comes next, or one of several; an error is another one."""
        while (event := self.receive())["type"] != kind or (count := count - 1):
            assert event["type"] != "error", event
        return event

    def refusal(self) -> Event:
        """The next event, an error."""
        event = self.receive()
        assert event["type"] == "error"
        return event["error"]

    def kinds(self) -> list[str]:
        """Types of all events so far, each once for some in a row."""
        kinds = [event["type"] for event in self.events]
        return [kind for i, kind in enumerate(kinds) if i == 0 or kinds[i - 1] != kind]

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["type"] == kind]


@contextmanager
def session(server: Serving, path: str = PATH, **options: Any) -> Generator[Session]:
    """A session that has been created."""
    url = server.url.replace("http", "ws", 1) + path
    with connect(url, max_size=None, **options) as connection:
        yield Session(connection)


def no_turns(**given: Any) -> Event:
    """``audio`` of an update: the client says itself what is an item."""
    return {"input": {"turn_detection": None, **given}}
