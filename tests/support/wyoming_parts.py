"""A client of Wyoming as Home Assistant is one, and raw bytes for clients that are none."""

import asyncio
import contextlib
import io
import json
import socket
import wave
from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.event import Event
from wyoming.info import SelectProgram

from tests.support.serving_parts import Serving, serving
from whisper_sae_steer.serving.config import ServeConfig

T = TypeVar("T")
CHUNK_BYTES = 2048
"""as Home Assistant's"""


class Listening(NamedTuple):
    """A server, and where it listens for Wyoming."""

    server: Serving
    port: int

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"


class Heard(NamedTuple):
    """What came back of an utterance."""

    events: list[Event]

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    @property
    def chunks(self) -> str:
        return "".join(
            TranscriptChunk.from_event(e).text for e in self.events if TranscriptChunk.is_type(e.type)
        )

    @property
    def text(self) -> str:
        (transcript,) = (Transcript.from_event(e) for e in self.events if Transcript.is_type(e.type))
        return transcript.text

    @property
    def error(self) -> tuple[str | None, str]:
        """Code and message."""
        assert self.events[-1].type == "error"
        data = self.events[-1].data
        return data.get("code"), data["text"]


@contextlib.contextmanager
def listening(stand_in: Any = None, address: str | None = None, **options: Any) -> Generator[Listening]:
    """The server with a Wyoming address of its own, and tiny.en or what stands in for it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    wyoming = address or f"tcp://127.0.0.1:{port}"
    with serving(ServeConfig(wyoming=wyoming, **options), stand_in) as server:
        yield Listening(server, port)


def pcm(samples: NDArray[np.float32]) -> bytes:
    """16-bit."""
    return (samples * 32767).astype("<i2").tobytes()


def with_client(address: str, use: Callable[[AsyncClient], Awaitable[T]]) -> T:
    """What a connected client comes back with, within a minute."""

    async def run() -> T:
        async with AsyncClient.from_uri(address) as client:
            return await asyncio.wait_for(use(client), 60)

    return asyncio.run(run())


async def send(
    client: AsyncClient,
    audio: bytes,
    rate: int = 16_000,
    width: int = 2,
    channels: int = 1,
    stop: bool = True,
) -> None:
    """Audio from its start to its stop."""
    await client.write_event(AudioStart(rate, width, channels).event())
    size = CHUNK_BYTES * width * channels // 2
    for i in range(0, len(audio), size):
        await client.write_event(AudioChunk(rate, width, channels, audio[i : i + size]).event())
    if stop:
        await client.write_event(AudioStop().event())


async def answer(client: AsyncClient, last: str = "transcript-stop") -> Heard:
    """Events up to the last one of an utterance, an error, or the end of the connection."""
    events: list[Event] = []
    while not events or events[-1].type not in (last, "error"):
        event = await client.read_event()
        if event is None:
            break
        events.append(event)
    return Heard(events)


def said(
    address: str,
    audio: bytes,
    program: str | None = None,
    language: str | None = None,
    rate: int = 16_000,
    width: int = 2,
    channels: int = 1,
) -> Heard:
    """The answer to one utterance."""

    async def use(client: AsyncClient) -> Heard:
        if program is not None:
            await client.write_event(SelectProgram(program).event())
        await client.write_event(Transcribe(language=language).event())
        sending = asyncio.create_task(send(client, audio, rate, width, channels))
        heard = await answer(client)
        with contextlib.suppress(ConnectionError):
            await sending
        return heard

    return with_client(address, use)


def event(type: Any, payload: bytes = b"", /, **data: Any) -> bytes:
    """One as it is on the wire."""
    header = {"type": type, "data": data, "payload_length": len(payload)}
    return json.dumps(header).encode() + b"\n" + payload


def raw(port: int, parts: Iterable[bytes], seconds: float = 10.0) -> list[dict[str, Any]]:
    """Headers of what the server says to raw bytes, up to where it hangs up; TimeoutError if it doesn't."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        with contextlib.suppress(ConnectionError):  # refused before it was all sent
            for part in parts:
                connection.sendall(part)
        with connection.makefile("rb") as file:
            return list(_headers(file))


def _headers(file: io.BufferedReader) -> Generator[dict[str, Any]]:
    while line := file.readline():
        header = json.loads(line)
        data = file.read(header.get("data_length", 0))
        yield {"type": header["type"], **(json.loads(data) if data else {})}


def wav(audio: bytes, rate: int, width: int, channels: int) -> bytes:
    """The same samples as an upload."""
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(audio)
    return written.getvalue()
