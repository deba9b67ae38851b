"""One connection of a Wyoming client: any number of utterances, one after the other.

Without a choice of program a recording is transcribed as a whole. Whatever goes wrong ends the connection
with an ``error`` event: Home Assistant waits for a transcript or the end, and reads nothing else.
"""

import asyncio
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import FormData
from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, SelectProgram
from wyoming.server import AsyncEventHandler

from .. import tracing
from ..disconnect import unless
from ..engine import ServingEngine
from ..errors import CLIENT_CLOSED_REQUEST, ApiError
from ..fleet import Fleet
from ..options import RequestOptions, options_for, read_options
from .events import BadEvent, Events, Gone
from .info import LIVE, PROGRAMS, WHOLE, info
from .utterances import LiveUtterance, Recording, SampleFormat, Utterance

IDLE_SECONDS = 30.0
"""without an event, or without audio in an utterance, after which a connection ends; also how long an answer
may stay unread"""
LINGER_SECONDS = 2.0
"""in which a refused client may read why: what it goes on sending is received, and thrown away"""
ENDPOINT = "wyoming"
"""in the metrics, where HTTP has its routes"""

M = TypeVar("M", bound=BaseModel)
log = structlog.get_logger()


class Wanted(BaseModel):
    """What is read of transcribe: hints at words, which could change what Whisper hears, are not."""

    model_config = ConfigDict(frozen=True, strict=True)

    name: str | None = None
    language: str | None = None


class Connection(AsyncEventHandler):
    """Takes one of the slots that uploads have, too."""

    def __init__(self, fleet: Fleet, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        super().__init__(reader, writer)
        self._fleet, self._events = fleet, Events(reader)
        self._program, self._wanted = WHOLE, Wanted()
        self._task: asyncio.Task[Any] | None = None
        self._in_utterance = self._stopping = False
        self._stopped_talking = 0.0
        """when audio-stop came, in seconds of the loop's clock"""

    async def run(self) -> None:
        """Serve the client until it hangs up, is refused, or the server stops."""
        self._task = asyncio.current_task()
        try:
            await self._serve()
        except Gone:
            pass
        except ApiError as error:
            await self._refuse(error)
        except Exception:
            log.exception("unforeseen")
            await self._refuse(ApiError(500, "the server failed; its log says why", "server_error"))
        finally:
            await self._events.close()
            self.writer.close()

    async def stop(self) -> None:
        """Hang up; an utterance that has begun gets its transcript first, within the server's limit."""
        self._stopping = True
        if self._task is None:
            return
        if self._in_utterance:
            await asyncio.wait({self._task}, timeout=self._fleet.config.shutdown_timeout)
        self._task.cancel()
        await asyncio.wait({self._task})

    async def handle_event(self, event: Event) -> bool:
        """Do what an event asks for, an utterance to its end; those of other domains are let pass."""
        if Describe.is_type(event.type):
            await self.write_event(info(self._fleet))
        elif SelectProgram.is_type(event.type):
            self._program = _read(Wanted, event).name or WHOLE
            if self._program not in PROGRAMS:
                raise BadEvent(f"there is no program {self._program!r}, but {', '.join(PROGRAMS)}")
        elif Transcribe.is_type(event.type):
            self._wanted = _read(Wanted, event)
            await self._model()  # which is checked, and loaded, before anything is said
        elif AudioStart.is_type(event.type):
            await self._utterance(_read(SampleFormat, event))
        elif AudioChunk.is_type(event.type) or AudioStop.is_type(event.type):
            raise BadEvent(f"{event.type} before audio-start")
        return not self._stopping

    async def write_event(self, event: Event) -> None:
        """Raises Gone where nobody reads it."""
        try:
            await asyncio.wait_for(super().write_event(event), IDLE_SECONDS)
        except (asyncio.TimeoutError, ConnectionError):
            raise Gone from None

    async def _serve(self) -> None:
        if not self._fleet.has_room or not self._fleet.uploads.take():
            raise self._fleet.busy()
        try:
            while await self.handle_event(await self._events.next(IDLE_SECONDS)):
                pass
        finally:
            self._fleet.uploads.give_back()

    async def _utterance(self, form: SampleFormat) -> None:
        kind = LiveUtterance if self._program == LIVE else Recording
        utterance, status = kind(*await self._model(), form), 500
        self._in_utterance = True
        try:
            with tracing.span("utterance"):
                await unless(self._receive(utterance, form), self._answer(utterance))
            status = 200
        except Gone:
            status = CLIENT_CLOSED_REQUEST
            self._fleet.metrics.hangups.inc()
            raise
        except ApiError as error:
            status = error.status
            raise
        finally:
            utterance.close()
            self._in_utterance, self._wanted = False, Wanted()
            self._count(status, utterance)

    async def _receive(self, utterance: Utterance, form: SampleFormat) -> NoReturn:
        """Bring the client's audio to the utterance; raises Gone when it hangs up, also after the end."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + IDLE_SECONDS
        while True:
            event = await self._events.next(deadline - clock())
            if AudioStop.is_type(event.type):
                break
            if AudioChunk.is_type(event.type):
                if _read(SampleFormat, event) != form:
                    raise BadEvent("a chunk's format is not that of audio-start")
                if event.payload:
                    await utterance.put(event.payload)
                    deadline = clock() + IDLE_SECONDS
            elif AudioStart.is_type(event.type):
                raise BadEvent("audio-start before audio-stop")
            elif Describe.is_type(event.type):
                await self.write_event(info(self._fleet))
        self._stopped_talking = clock()
        await utterance.end()
        await self._events.until_gone()

    async def _answer(self, utterance: Utterance) -> None:
        """Send the text as it comes, and all of it for clients that read only that."""
        text = ""
        async for piece in utterance.texts():
            if not text:
                await self.write_event(TranscriptStart(language=utterance.language).event())
                piece = piece.lstrip()
            await self.write_event(TranscriptChunk(piece).event())
            text += piece
        if not text:
            await self.write_event(TranscriptStart(language=utterance.language).event())
        await self.write_event(Transcript(text.strip(), language=utterance.language).event())
        await self.write_event(TranscriptStop().event())

    async def _model(self) -> tuple[ServingEngine, RequestOptions]:
        """The model asked for, and options as those of an upload. ApiError for one that there isn't."""
        given = {"model": self._wanted.name, "language": self._wanted.language}
        form = FormData({name: value for name, value in given.items() if value})
        options = read_options(form, self._fleet.config)
        engine = await self._fleet.engine(options.model)
        return engine, options_for(engine, options, "transcribe")

    async def _refuse(self, error: ApiError) -> None:
        await self._events.close()
        with suppress(Gone, ConnectionError, OSError, asyncio.TimeoutError):
            await self.write_event(Error(error.message, error.code).event())
            self.writer.write_eof()
            # closing while something is unread would take the answer back
            await asyncio.wait_for(self._read_away(), LINGER_SECONDS)

    async def _read_away(self) -> None:
        while await self.reader.read(2**16):
            pass

    def _count(self, status: int, utterance: Utterance) -> None:
        """Into metrics and log; the seconds are those that a client waits for its transcript."""
        seconds = 0.0
        if status == 200:
            seconds = asyncio.get_running_loop().time() - self._stopped_talking
            self._fleet.metrics.seconds.labels(ENDPOINT).observe(seconds)
        self._fleet.metrics.requests.labels(ENDPOINT, str(status)).inc()
        facts = {"audio_seconds": round(utterance.seconds, 2), "program": self._program}
        log.info("utterance", status=status, seconds=round(seconds, 4), **facts)


def _read(model: type[M], event: Event) -> M:
    """What an event's data say; BadEvent that names the first field at fault."""
    try:
        return model.model_validate(event.data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise BadEvent(f"{event.type}: {field}: {first['msg']}") from None
