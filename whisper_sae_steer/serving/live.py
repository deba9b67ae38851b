"""Live audio over a WebSocket: audio frames in, final and partial segments out.

The client sends JSON with its :class:`LiveOptions` (``{}`` will do), then binary messages of 16 kHz mono
samples, then ``{"type": "end"}``. The server answers ``{"type": "ready"}``, an ``update`` whenever it has
listened on, and an ``end`` with the last segments, and closes with 1000. Before it closes for another reason
it sends ``{"type": "error", "message": …}``. The ``speech_prob`` of updates, one after the other, are how
likely speech is at each 0.1 s (``step`` of the first answer) of the session; at α = 0 there are none.
"""

import json
from functools import partial
from http import HTTPStatus
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, WebSocket, status
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..audio.reading import check_samples
from ..errors import AudioError, SteerError
from ..steering.labels import STEP_SECONDS
from ..steering.operator import MAX_ALPHA
from ..streaming import StreamingTranscriber, StreamSegment, Update
from .engine import ServingEngine
from .errors import ApiError, Busy
from .fleet import Fleet
from .options import Task, check_task
from .security import require_key
from .sessions import LiveSession, TooLong
from .sockets import Closing, Socket, serve, together

MESSAGE_BYTES = 2**20
"""largest message: half a minute of 16-bit samples"""

router = APIRouter()


class LiveOptions(BaseModel):
    """What the first message may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    """name of a model, or an alias; the server's default when left out"""
    steer_alpha: float | None = Field(None, ge=0, le=MAX_ALPHA)
    """strength of the steering; the server's own when left out"""
    language: str | None = None
    """code; detected when left out"""
    task: Task = "transcribe"
    format: Literal["pcm16", "float32"] = "pcm16"
    """little-endian, of the binary messages"""
    words: bool = False
    """whether segments come with their words"""
    min_chunk: float = Field(1.0, ge=0.1, le=5.0)
    """seconds of new audio after which it is transcribed: shorter is sooner and takes more computing"""


@router.websocket("/v1/audio/stream")
async def stream(websocket: WebSocket, _: None = Depends(require_key)) -> None:
    """One live session. Sessions share the workers with uploads: each step is a job."""
    fleet: Fleet = websocket.app.state.fleet
    await serve(websocket, fleet, partial(_session, fleet), _last_message)


def _last_message(closing: Closing) -> dict[str, Any]:
    return {"type": "error", "message": closing.reason}


async def _session(fleet: Fleet, socket: Socket) -> None:
    options = _options(await _message(socket))
    engine = await _engine(fleet, options.model)
    alpha = engine.config.steer_alpha if options.steer_alpha is None else options.steer_alpha
    try:
        check_task(options.task, engine)
        transcriber = StreamingTranscriber(
            engine.model,
            steer_alpha=alpha,
            language=options.language,
            task=options.task,
            min_chunk=options.min_chunk,
        )
    except SteerError as error:
        raise Closing(status.WS_1007_INVALID_FRAME_PAYLOAD_DATA, str(error)) from None
    ready = {"type": "ready", "model": engine.name, "steer_alpha": alpha, "format": options.format}
    await socket.send({**ready, "step": STEP_SECONDS})
    session = LiveSession(engine, transcriber, options.min_chunk)
    await together(_receive(socket, options, session), _answer(socket, options, session))


async def _engine(fleet: Fleet, model: str | None) -> ServingEngine:
    try:
        return await fleet.engine(model)
    except ApiError as error:
        unknown = error.status == HTTPStatus.NOT_FOUND
        code = status.WS_1007_INVALID_FRAME_PAYLOAD_DATA if unknown else status.WS_1013_TRY_AGAIN_LATER
        raise Closing(code, str(error)) from None


async def _receive(socket: Socket, options: LiveOptions, session: LiveSession) -> None:
    """Bring the client's audio to the session until it says that it was all."""
    while isinstance(message := await _message(socket), bytes):
        samples = _samples(message, options)
        try:
            await session.put(samples)
        except TooLong as error:
            raise Closing(status.WS_1008_POLICY_VIOLATION, str(error)) from None
    if _json(message) != {"type": "end"}:
        raise Closing(
            status.WS_1003_UNSUPPORTED_DATA, 'send audio as binary messages, and {"type": "end"} last'
        )
    await session.end()


async def _answer(socket: Socket, options: LiveOptions, session: LiveSession) -> None:
    """Send every update; the last one, after the end, as such."""
    try:
        async for update in session.updates():
            kind = "end" if session.is_over else "update"
            await socket.send(_update(kind, update, session.transcriber, options.words))
    except Busy as busy:
        raise Closing(status.WS_1013_TRY_AGAIN_LATER, str(busy)) from None


async def _message(socket: Socket) -> str | bytes:
    """The next message that holds anything; as :meth:`Socket.receive`, and Closing 1009 (too large)."""
    content = await socket.receive()
    if len(content) > MESSAGE_BYTES:
        raise Closing(
            status.WS_1009_MESSAGE_TOO_BIG, f"a message may have {MESSAGE_BYTES} bytes, not {len(content)}"
        )
    return content


def _options(message: str | bytes) -> LiveOptions:
    if isinstance(message, bytes):
        raise Closing(
            status.WS_1003_UNSUPPORTED_DATA, "send the options as JSON before any audio; {} will do"
        )
    try:
        return LiveOptions.model_validate(_json(message))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "options"
        raise Closing(status.WS_1007_INVALID_FRAME_PAYLOAD_DATA, f"{field}: {first['msg']}") from None


def _json(message: str | bytes) -> Any:
    try:
        return json.loads(message)
    except (ValueError, RecursionError):
        raise Closing(status.WS_1007_INVALID_FRAME_PAYLOAD_DATA, "that is no JSON") from None


def _samples(message: bytes, options: LiveOptions) -> NDArray[np.float32]:
    """Float32 samples [n] of a binary message."""
    kind = np.dtype("<i2" if options.format == "pcm16" else "<f4")
    if len(message) % kind.itemsize:
        raise Closing(
            status.WS_1007_INVALID_FRAME_PAYLOAD_DATA,
            f"{len(message)} bytes are no whole number of {options.format} samples",
        )
    samples = np.frombuffer(message, kind).astype(np.float32)
    if options.format == "pcm16":
        samples /= 32768
    try:
        check_samples(samples, "the audio")
    except AudioError as error:
        raise Closing(status.WS_1007_INVALID_FRAME_PAYLOAD_DATA, str(error)) from None
    return samples


def _update(kind: str, update: Update, transcriber: StreamingTranscriber, words: bool) -> dict[str, Any]:
    return {
        "type": kind,
        "seconds": round(transcriber.seconds, 3),
        "language": transcriber.language,
        "speech_prob": [round(value, 4) for value in transcriber.speech_prob],
        "final": [_segment(segment, words) for segment in update.final],
        "partial": [_segment(segment, words) for segment in update.partial],
    }


def _segment(segment: StreamSegment, words: bool) -> dict[str, Any]:
    shown = segment._asdict()
    timed = shown.pop("words")
    return {**shown, "words": [word._asdict() for word in timed]} if words else shown
