"""Transcripts, in the forms that OpenAI's API answers in."""

import json
from collections.abc import AsyncIterator, Sequence
from io import StringIO
from typing import Any

import structlog
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from whisper.tokenizer import LANGUAGES
from whisper.utils import WriteSRT, WriteVTT

from .errors import ApiError, error_body
from .options import RequestOptions, Task
from .transcribing import RecordingInfo, SegmentDict

log = structlog.get_logger()

SUBTITLES = {"srt": WriteSRT, "vtt": WriteVTT}
WITH_DELTA = ("start", "end", "speech_prob", "hallucination_risk")
"""what an event says of its segment"""
NO_BUFFERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""or a proxy would keep events back"""


def answer(
    options: RequestOptions, task: Task, info: RecordingInfo, segments: Sequence[SegmentDict]
) -> Response:
    """The whole result in the format asked for."""
    text = "".join(segment["text"] for segment in segments).strip()
    if options.response_format == "text":
        return PlainTextResponse(text + "\n")
    if options.response_format in SUBTITLES:
        written = StringIO()
        SUBTITLES[options.response_format]("").write_result({"segments": segments}, written)
        return PlainTextResponse(written.getvalue())
    if options.response_format == "json":
        return JSONResponse({"text": text, "usage": _usage(info)})
    return JSONResponse(_verbose(options, task, info, segments, text))


def _verbose(
    options: RequestOptions, task: Task, info: RecordingInfo, segments: Sequence[SegmentDict], text: str
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "task": task,
        "language": LANGUAGES.get(info.language, info.language),
        "duration": info.seconds,
        "text": text,
    }
    if "segment" in options.timestamp_granularities:
        body["segments"] = [
            {name: value for name, value in segment.items() if name != "words"} for segment in segments
        ]
    if "word" in options.timestamp_granularities:
        words = [word for segment in segments for word in segment.get("words", ())]
        body["words"] = [word | {"word": word["word"].strip()} for word in words]
    return body | _filtered(info) | {"usage": _usage(info)}


def stream(info: RecordingInfo, segments: AsyncIterator[SegmentDict]) -> StreamingResponse:
    """A ``transcript.text.delta`` for each segment, times and labels with it; ``transcript.text.done``."""
    return StreamingResponse(_events(info, segments), media_type="text/event-stream", headers=NO_BUFFERS)


async def _events(info: RecordingInfo, segments: AsyncIterator[SegmentDict]) -> AsyncIterator[str]:
    text = ""
    try:
        async for segment in segments:
            delta = segment["text"] if text else segment["text"].lstrip()
            text += delta
            extra = {name: segment[name] for name in WITH_DELTA if name in segment}
            yield event({"type": "transcript.text.delta", "delta": delta, **extra})
    except Exception:  # the status is sent: an event is the only way left to tell
        log.exception("a stream failed")
        yield event(error_body(ApiError(500, "the transcription failed; the server's log says why")))
        return
    yield event({"type": "transcript.text.done", "text": text, **_filtered(info), "usage": _usage(info)})
    yield "data: [DONE]\n\n"


def event(data: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def _filtered(info: RecordingInfo) -> dict[str, Any]:
    return {} if info.filtered is None else {"filtered": info.filtered}


def _usage(info: RecordingInfo) -> dict[str, Any]:
    return {"type": "duration", "seconds": round(info.seconds, 3)}
