"""What a session can be told, in OpenAI's shape, and in the flat one that its beta had."""

from typing import Any, Literal, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from ...errors import SteerError
from ...steering.operator import MAX_ALPHA
from ...streaming import StreamingTranscriber
from ...streaming.decoder import gap_levels
from ..engine import ServingEngine
from ..errors import ApiError
from .audio import CODECS, AudioFormat
from .events import Event, refusal

CHUNK_SECONDS = 0.5
"""of new audio that are transcribed at once, at least: two of them make the first words final"""
BETA_FORMATS: dict[str, AudioFormat] = {
    "pcm16": "audio/pcm",
    "g711_ulaw": "audio/pcmu",
    "g711_alaw": "audio/pcma",
}
BETA_FIELDS = {
    "input_audio_format": "format",
    "input_audio_transcription": "transcription",
    "input_audio_noise_reduction": "noise_reduction",
    "turn_detection": "turn_detection",
}
"""where in ``audio.input`` they are now"""
HIDDEN = {"create_response", "interrupt_response", "idle_timeout_ms"}
"""of turn detection: not for transcription sessions"""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Format(_Part):
    type: AudioFormat = "audio/pcm"
    rate: int | None = None

    @field_validator("rate")
    @classmethod
    def _only(cls, rate: int | None, so_far: ValidationInfo) -> int | None:
        kind: AudioFormat = so_far.data.get("type", "audio/pcm")
        if rate not in (None, CODECS[kind][1]):
            raise ValueError(f"{kind} has {CODECS[kind][1]} samples a second")
        return rate

    @model_serializer
    def _shown(self) -> Event:
        return {"type": self.type, "rate": 24_000} if self.type == "audio/pcm" else {"type": self.type}


class Transcription(_Part):
    model: str
    language: str | None = None
    prompt: str | None = None


class ServerVad(_Part):
    type: Literal["server_vad"]
    threshold: float = Field(0.5, ge=0, le=1)
    """without effect: the gate has levels of its own, measured when it was calibrated"""
    prefix_padding_ms: int = Field(300, ge=0, le=10_000)
    silence_duration_ms: int = Field(500, ge=200, le=10_000)
    create_response: bool | None = None
    """without effect, as in OpenAI's transcription sessions; and the next"""
    interrupt_response: bool | None = None
    idle_timeout_ms: None = None

    @field_validator("type", mode="before")
    @classmethod
    def _known(cls, kind: Any) -> Any:
        if kind != "server_vad":
            raise ValueError(
                f"{kind!r} is not there: there is 'server_vad', or null for commits by the client"
            )
        return kind


class Input(_Part):
    format: Format = Format()
    noise_reduction: Any = None
    """taken, and shown as null: there is none"""
    transcription: Transcription
    turn_detection: ServerVad | None

    @field_validator("noise_reduction")
    @classmethod
    def _none(cls, _: Any) -> None:
        return None


class Audio(_Part):
    input: Input


class Settings(_Part):
    """A session's settings, complete. An update makes new ones."""

    type: Literal["transcription"] = "transcription"
    audio: Audio
    include: list[Any] | None = None
    steer_alpha: float = Field(ge=0, le=MAX_ALPHA)
    """strength of the steering; not OpenAI's"""

    @field_validator("include")
    @classmethod
    def _nothing(cls, include: list[Any] | None) -> list[Any] | None:
        if include:
            raise ValueError(
                "log probabilities are not given; each delta has speech_prob and hallucination_risk"
            )
        return include

    @property
    def input(self) -> Input:
        return self.audio.input

    def transcriber(self, engine: ServingEngine, said: str = "") -> StreamingTranscriber:
        """A session for one item; without a prompt, what was ``said`` before is one. ApiError."""
        given, turns = self.input.transcription, self.input.turn_detection
        try:
            return StreamingTranscriber(
                engine.model,
                steer_alpha=self.steer_alpha,
                language=given.language,
                min_chunk=CHUNK_SECONDS,
                prompt=given.prompt or said,
                pause=turns.silence_duration_ms / 1000 if turns else None,
            )
        except SteerError as error:
            raise ApiError(400, str(error), "invalid_value", "session") from None

    def updated(self, session: Event) -> "Settings":
        """These settings with the fields of an update. ApiError that names the one at fault."""
        try:
            return Settings.model_validate(_merged(self.model_dump(), session))
        except ValidationError as error:
            raise refusal(error, ("session",)) from None

    def shown(self, beta: bool) -> Event:
        """As the client sees them."""
        session = self.model_dump(exclude={"audio": {"input": {"turn_detection": HIDDEN}}})
        if not beta:
            return session
        given = session["audio"]["input"]
        names = {kind: name for name, kind in BETA_FORMATS.items()}
        flat = {old: given[new] for old, new in BETA_FIELDS.items()}
        return {
            **flat,
            "input_audio_format": names[self.input.format.type],
            "include": self.include,
            "steer_alpha": self.steer_alpha,
        }


def default_settings(engine: ServingEngine, model: str) -> Settings:
    """Those of a session that has not been told anything, with the name that its client has for the model."""
    alpha = engine.config.steer_alpha
    hears_pauses = gap_levels(engine.model, alpha) is not None
    given = Input(
        transcription=Transcription(model=model),
        turn_detection=ServerVad.model_validate({"type": "server_vad"}) if hears_pauses else None,
    )
    return Settings(audio=Audio(input=given), steer_alpha=alpha)


def from_beta(session: Event) -> Event:
    """A flat update in the shape of today's."""
    given = {new: session[old] for old, new in BETA_FIELDS.items() if old in session}
    if "format" in given:
        given["format"] = {"type": BETA_FORMATS.get(str(given["format"]), given["format"])}
    ignored = {"modalities", "client_secret"}
    rest = {name: value for name, value in session.items() if name not in BETA_FIELDS.keys() | ignored}
    return {**rest, "audio": {"input": given}}


def _merged(settings: Event, update: Event) -> Event:
    """Field by field, however deep; but turn detection and format begin anew with their defaults."""
    merged = dict(settings)
    for name, value in update.items():
        old = settings.get(name)
        inside = (
            isinstance(old, dict) and isinstance(value, dict) and name not in ("format", "turn_detection")
        )
        merged[name] = _merged(cast(Event, old), value) if inside else value
    return merged
