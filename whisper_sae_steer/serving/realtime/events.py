"""Events in both directions, in OpenAI's shapes."""

import base64
import binascii
import json
from secrets import token_hex
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ..errors import ApiError, error_body

EVENT_BYTES = 4 * 2**20
"""largest event of a client: a minute of 16-bit audio"""
CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "union_tag_not_found": "missing_required_parameter",
}
"""OpenAI's codes for pydantic's kinds of errors; wrong types apart, the others are invalid values"""

Event = dict[str, Any]


class _ClientEvent(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    event_id: str | None = None
    """comes back in the error, if there is one"""


class Append(_ClientEvent):
    """Audio in base64."""

    type: Literal["input_audio_buffer.append"]
    audio: str

    @property
    def data(self) -> bytes:
        """Its bytes. ApiError."""
        try:
            return base64.b64decode(self.audio, validate=True)
        except (binascii.Error, ValueError):
            raise ApiError(400, "audio: that is no base64", "invalid_value", "audio") from None


class Commit(_ClientEvent):
    """The audio so far is an item."""

    type: Literal["input_audio_buffer.commit"]


class Clear(_ClientEvent):
    """Forget the audio since the last item."""

    type: Literal["input_audio_buffer.clear"]


class SessionUpdate(_ClientEvent):
    """Change some of the settings; ``transcription_session`` is how the beta called it."""

    type: Literal["session.update", "transcription_session.update"]
    session: dict[str, Any]


ClientEvent = Append | Commit | Clear | SessionUpdate
_CLIENT_EVENT: TypeAdapter[ClientEvent] = TypeAdapter(Annotated[ClientEvent, Field(discriminator="type")])


def parse(message: str | bytes) -> Any:
    """The JSON of a message. ApiError."""
    if len(message) > EVENT_BYTES:
        text = f"an event may have {EVENT_BYTES} bytes, not {len(message)}; append shorter pieces"
        raise ApiError(400, text, "event_too_large")
    try:
        return json.loads(message)
    except (ValueError, RecursionError):
        raise ApiError(400, "that is no JSON", "invalid_json") from None


def client_event(parsed: Any) -> ClientEvent:
    """The event. ApiError that names the field at fault."""
    try:
        return _CLIENT_EVENT.validate_python(parsed)
    except ValidationError as error:
        raise refusal(error) from None


def client_id(parsed: Any) -> str | None:
    """The event_id that a client gave its event, right or wrong as the rest of it may be."""
    given = parsed.get("event_id") if isinstance(parsed, dict) else None
    return given if isinstance(given, str) else None


def refusal(error: ValidationError, inside: tuple[str, ...] = ()) -> ApiError:
    """The first thing that pydantic found wrong; ``inside`` is where in the event it looked."""
    first = error.errors(include_url=False)[0]
    kind, where = first["type"], [*inside, *(str(part) for part in first["loc"])]
    if "discriminator" in first.get("ctx", {}):
        where = [*where, "type"]
    elif not inside:
        where = where[1:]  # without the event's type
    code = "invalid_type" if kind.endswith("_type") else CODES.get(kind, "invalid_value")
    param = ".".join(where) or None
    message = first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{param or 'the event'}: {message}", code, param)


def event(kind: str, **fields: Any) -> Event:
    """An event of the server."""
    return {"type": kind, "event_id": new_id("event"), **fields}


def error_event(error: ApiError, event_id: str | None = None) -> Event:
    """What went wrong; ``event_id`` is that of the client's event at fault."""
    return event("error", error={**error_body(error)["error"], "event_id": event_id})


def new_id(prefix: str) -> str:
    return f"{prefix}_{token_hex(11)}"
