"""Live audio over a WebSocket: audio frames in, final and partial segments out.

The client sends JSON with its :class:`LiveOptions` (``{}`` will do), then binary messages of 16 kHz mono
samples, then ``{"type": "end"}``. The server answers ``{"type": "ready"}``, an ``update`` whenever it has
listened on, and an ``end`` with the last segments, and closes with 1000. Before it closes for another reason
it sends ``{"type": "error", "message": …}``. The ``speech_prob`` of updates, one after the other, are how
likely speech is at each 0.1 s (``step`` of the first answer) of the session; at α = 0 there are none.
"""

import asyncio
import json
from http import HTTPStatus
from typing import Any, Literal

import numpy as np
import structlog
from fastapi import APIRouter, Depends, WebSocket, WebSocketDisconnect, WebSocketException, status
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
from .security import KEY_PROTOCOL, is_page_elsewhere, require_key
from .sessions import LiveSession, TooLong

MESSAGE_BYTES = 2**20
"""largest message: half a minute of 16-bit samples"""
IDLE_SECONDS = 30.0
"""without audio or the end of it, after which a session ends; also how long an answer may stay unread"""
REASON_BYTES = 123
"""of the reason for closing, by RFC 6455"""

router = APIRouter()
log = structlog.get_logger()


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


class Closing(WebSocketException):
    """Ends the connection with a status code of RFC 6455 and a message for the client."""

    def __init__(self, code: int, message: str):
        super().__init__(code, message)


@router.websocket("/v1/audio/stream")
async def stream(websocket: WebSocket, _: None = Depends(require_key)) -> None:
    """One live session. Sessions share the workers with uploads: each step is a job."""
    fleet: Fleet = websocket.app.state.fleet
    # a browser that offers protocols, one of them the key, wants one of the others chosen
    offered = [name for name in websocket.scope["subprotocols"] if not name.startswith(KEY_PROTOCOL)]
    await websocket.accept(offered[0] if offered else None)
    if is_page_elsewhere(websocket):
        message = "without an API key, the pages of other sites are not let in"
        await _close(websocket, Closing(status.WS_1008_POLICY_VIOLATION, message))
        return
    if not fleet.has_room or not fleet.uploads.take():
        await _close(websocket, Closing(status.WS_1013_TRY_AGAIN_LATER, str(fleet.busy())))
        return
    try:
        await _serve(websocket, fleet)
        await websocket.close()
    except WebSocketDisconnect:
        fleet.metrics.hangups.inc()
    except Closing as closing:
        await _close(websocket, closing)
    except Exception:
        log.exception("unforeseen")
        await _close(websocket, Closing(status.WS_1011_INTERNAL_ERROR, "the server failed; its log says why"))
    finally:
        fleet.uploads.give_back()


async def _close(websocket: WebSocket, closing: Closing) -> None:
    try:
        await _send(websocket, {"type": "error", "message": closing.reason})
        await websocket.close(closing.code, closing.reason.encode()[:REASON_BYTES].decode(errors="ignore"))
    except (WebSocketDisconnect, WebSocketException, RuntimeError):
        pass  # it is gone already


async def _serve(websocket: WebSocket, fleet: Fleet) -> None:
    options = _options(await _message(websocket))
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
    await _send(websocket, {**ready, "step": STEP_SECONDS})
    session = LiveSession(engine, transcriber, options.min_chunk)
    tasks = [
        asyncio.create_task(_receive(websocket, options, session)),
        asyncio.create_task(_answer(websocket, options, session)),
    ]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _engine(fleet: Fleet, model: str | None) -> ServingEngine:
    try:
        return await fleet.engine(model)
    except ApiError as error:
        unknown = error.status == HTTPStatus.NOT_FOUND
        code = status.WS_1007_INVALID_FRAME_PAYLOAD_DATA if unknown else status.WS_1013_TRY_AGAIN_LATER
        raise Closing(code, str(error)) from None


async def _receive(websocket: WebSocket, options: LiveOptions, session: LiveSession) -> None:
    """Bring the client's audio to the session until it says that it was all."""
    while isinstance(message := await _message(websocket), bytes):
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


async def _answer(websocket: WebSocket, options: LiveOptions, session: LiveSession) -> None:
    """Send every update; the last one, after the end, as such."""
    try:
        async for update in session.updates():
            kind = "end" if session.is_over else "update"
            await _send(websocket, _update(kind, update, session.transcriber, options.words))
    except Busy as busy:
        raise Closing(status.WS_1013_TRY_AGAIN_LATER, str(busy)) from None


async def _message(websocket: WebSocket) -> str | bytes:
    """The next message that holds anything; Closing 1008 (none in time) or 1009 (too large),
    WebSocketDisconnect."""
    try:
        content = await asyncio.wait_for(_filled(websocket), IDLE_SECONDS)
    except asyncio.TimeoutError:
        raise Closing(status.WS_1008_POLICY_VIOLATION, f"nothing came for {IDLE_SECONDS:g} s") from None
    if len(content) > MESSAGE_BYTES:
        raise Closing(
            status.WS_1009_MESSAGE_TOO_BIG, f"a message may have {MESSAGE_BYTES} bytes, not {len(content)}"
        )
    return content


async def _filled(websocket: WebSocket) -> str | bytes:
    """The next message that isn't empty: an empty one is no audio, and keeps no session alive."""
    while True:
        message: dict[str, Any] = dict(await websocket.receive())
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", status.WS_1006_ABNORMAL_CLOSURE))
        if content := message.get("bytes") or message.get("text"):
            return content


async def _send(websocket: WebSocket, message: dict[str, Any]) -> None:
    try:
        await asyncio.wait_for(websocket.send_text(json.dumps(message, ensure_ascii=False)), IDLE_SECONDS)
    except asyncio.TimeoutError:
        raise Closing(status.WS_1008_POLICY_VIOLATION, "the answers are not read") from None


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
