"""OpenAI's routes: transcriptions, translations, models."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeVar, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from . import responses
from .disconnect import unless_gone
from .engine import ServingEngine
from .errors import ApiError
from .options import Task, read_options
from .security import require_key
from .transcribing import RecordingInfo, SegmentDict, transcribe
from .uploads import Form, audio_of

T = TypeVar("T")

router = APIRouter(prefix="/v1", dependencies=[Depends(require_key)])


@router.post("/audio/transcriptions")
async def transcriptions(request: Request, form: Form) -> Response:
    """Text of a recording in its own language."""
    return await _answer(request, form, "transcribe")


@router.post("/audio/translations")
async def translations(request: Request, form: Form) -> Response:
    """English text of a recording in any language."""
    return await _answer(request, form, "translate")


@router.get("/models")
def models(request: Request) -> dict[str, Any]:
    """The model and its aliases."""
    engine: ServingEngine = request.app.state.engine
    return {"object": "list", "data": [_model(name, engine) for name in engine.names]}


@router.get("/models/{name:path}")
def model(request: Request, name: str) -> dict[str, Any]:
    """One of them."""
    engine: ServingEngine = request.app.state.engine
    if name not in engine.names:
        raise ApiError(404, f"the model {name!r} does not exist", "model_not_found", "model")
    return _model(name, engine)


def _model(name: str, engine: ServingEngine) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": engine.started,
        "owned_by": "whisper-sae-steer",
        "steer_alpha": engine.config.steer_alpha,
        "steered": engine.model.steerer is not None,
        "root": engine.name,
        "languages": list(engine.model.supported_languages),
    }


async def _answer(request: Request, form: Form, task: Task) -> Response:
    engine: ServingEngine = request.app.state.engine
    options = read_options(form, engine, task)
    file = audio_of(form, engine.config)
    items = engine.draw(transcribe, engine, file, options, task)
    info = cast(RecordingInfo, await unless_gone(request, anext(items)))
    request.state.log |= {"steer_alpha": options.steer_alpha, "audio_seconds": round(info.seconds, 2)}
    segments = cast(AsyncGenerator[SegmentDict], items)
    if options.stream:
        return responses.stream(info, segments)
    return responses.answer(options, task, info, await unless_gone(request, _all(segments)))


async def _all(items: AsyncGenerator[T]) -> list[T]:
    async with aclosing(items):
        return [item async for item in items]
