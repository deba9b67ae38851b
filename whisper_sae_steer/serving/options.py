"""What a request asks for, checked before it may wait in any queue."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData
from whisper.tokenizer import TO_LANGUAGE_CODE

from ..errors import RiskError
from ..steering.filtering import check_filter_risk
from ..steering.operator import MAX_ALPHA
from .config import ServeConfig
from .engine import ServingEngine
from .errors import ApiError
from .uploads import fields_of

Task = Literal["transcribe", "translate"]
Format = Literal["json", "text", "srt", "vtt", "verbose_json"]
Granularity = Literal["segment", "word"]
GRANULARITIES = "timestamp_granularities[]"
"""as OpenAI's clients call the field"""


class RequestOptions(BaseModel):
    """The form's fields beside the file; what OpenAI's API has and we don't is left unread."""

    model_config = ConfigDict(frozen=True)

    model: str | None = None
    """name of a model, or an alias; the server's default when left out"""
    language: str | None = None
    """code or English name; detected when left out"""
    prompt: str | None = None
    """text given as context to the first window"""
    response_format: Format = "json"
    temperature: float = Field(0.0, ge=0, le=1)
    """for sampling; at 0 it rises by 0.2 where decoding fails"""
    timestamp_granularities: tuple[Granularity, ...] = ("segment",)
    """with verbose_json: which times to give"""
    stream: bool = False
    """server-sent events, one a segment, instead of one answer"""
    steer_alpha: float = Field(ge=0, le=MAX_ALPHA)
    """strength of the steering; 0 is the unsteered library"""
    skip_gaps: bool = True
    """cut gaps without speech out of windows; false leaves them to Whisper"""
    filter_risk: float | None = None
    """leave out words of that hallucination risk and more; segments where words have no times"""


def read_options(form: FormData, config: ServeConfig) -> RequestOptions:
    """The options of a request, as far as they make sense for any model; ApiError 400 names the field."""
    given: dict[str, Any] = {"steer_alpha": config.steer_alpha, **fields_of(form)}
    if granularities := form.getlist(GRANULARITIES):
        given["timestamp_granularities"] = granularities
    try:
        options = RequestOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0])
        raise ApiError(400, f"{field}: {first['msg']}", "invalid_value", field) from None
    _check_together(options, granularities=bool(granularities))
    return options


def options_for(engine: ServingEngine, options: RequestOptions, task: Task) -> RequestOptions:
    """Them with the language as the model calls it; ApiError 400 for what this model can't do."""
    try:
        check_filter_risk(options.filter_risk, engine.model.steerer is not None and options.steer_alpha != 0)
    except RiskError as error:
        raise ApiError(400, str(error), "invalid_value", "filter_risk") from None
    language = _language(options.language, engine)
    check_task(task, engine)
    return options.model_copy(update={"language": language})


def check_task(task: Task, engine: ServingEngine) -> None:
    """ApiError 400 where the model can't do it."""
    if task == "translate" and not engine.is_multilingual:
        raise ApiError(400, f"{engine.name} knows English only and can't translate", None, "model")


def _check_together(options: RequestOptions, granularities: bool) -> None:
    if granularities and options.response_format != "verbose_json":
        message = "timestamp_granularities needs response_format verbose_json"
        raise ApiError(400, message, "invalid_value", GRANULARITIES)
    if options.stream and options.response_format in ("srt", "vtt"):
        raise ApiError(
            400, "stream needs response_format json, text or verbose_json", "invalid_value", "stream"
        )


def _language(name: str | None, engine: ServingEngine) -> str | None:
    """The code of a language; that of an English-only model is known."""
    if name is None:
        return None if engine.is_multilingual else "en"
    code = TO_LANGUAGE_CODE.get(name.lower(), name.lower())
    if code not in engine.model.supported_languages:
        known = "" if engine.is_multilingual else "; the model knows English only"
        raise ApiError(400, f"{name!r} is no language code{known}", "invalid_value", "language")
    return code
