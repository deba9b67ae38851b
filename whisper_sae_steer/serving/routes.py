"""OpenAI's routes: transcriptions, translations, models."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeVar, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from . import responses
from .disconnect import unless_gone
from .fleet import Fleet
from .options import Task, options_for, read_options
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
    """All models that can be asked for, and their aliases."""
    fleet: Fleet = request.app.state.fleet
    return {"object": "list", "data": [_model(name, fleet) for name in fleet.names]}


@router.get("/models/{name:path}")
def model(request: Request, name: str) -> dict[str, Any]:
    """One of them."""
    fleet: Fleet = request.app.state.fleet
    return _model(name, fleet)


def _model(name: str, fleet: Fleet) -> dict[str, Any]:
    """As OpenAI describes one, its own name (``root``), and what is only known of a loaded one or None."""
    member = fleet.member(name)
    model = member.engine and member.engine.model
    return {
        "id": name,
        "object": "model",
        "created": fleet.started,
        "owned_by": "whisper-sae-steer",
        "root": member.name,
        "steer_alpha": fleet.config.steer_alpha,
        "loaded": model is not None,
        "steered": model and model.steerer is not None,
        "languages": model and list(model.supported_languages),
    }


async def _answer(request: Request, form: Form, task: Task) -> Response:
    fleet: Fleet = request.app.state.fleet
    options, file = read_options(form, fleet.config), audio_of(form, fleet.config)
    engine = await unless_gone(request, fleet.engine(options.model))
    options = options_for(engine, options, task)
    items = engine.draw(transcribe, engine, file, options, task)
    info = cast(RecordingInfo, await unless_gone(request, anext(items)))
    request.state.log |= {
        "model": engine.name,
        "steer_alpha": options.steer_alpha,
        "audio_seconds": round(info.seconds, 2),
    }
    segments = cast(AsyncGenerator[SegmentDict], items)
    if options.stream:
        return responses.stream(info, segments)
    return responses.answer(options, task, info, await unless_gone(request, _all(segments)))


async def _all(items: AsyncGenerator[T]) -> list[T]:
    async with aclosing(items):
        return [item async for item in items]
