"""Items: where one begins and ends in the audio, and what was said in it."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...audio.units import SAMPLE_RATE
from ...streaming import StreamSegment, Update
from ..engine import ServingEngine
from ..errors import ApiError, Busy, error_body
from ..sessions import Backlog, run_step
from .events import Clear, Commit, Event, error_event, event, new_id
from .settings import Settings

SHORTEST_SECONDS = 0.1
"""of audio that a client can commit, as OpenAI has it"""


class Chosen(NamedTuple):
    """Settings, and the model that they name."""

    settings: Settings
    engine: ServingEngine


Mark = Chosen | Commit | Clear
"""what a client says between its audio"""


class Item:
    """One turn in the making: a streaming session of its own, with the settings as it began."""

    def __init__(self, chosen: Chosen, start: float, said: str):
        self.id = new_id("item")
        settings, self.engine = chosen
        self.start, self.turns = start, settings.input.turn_detection
        """``start``: seconds of the connection's audio before it"""
        self.transcriber = settings.transcriber(self.engine, said)
        self.begins: int | None = None
        """milliseconds of the connection's audio before its first speech, once there is text"""
        self.segments: list[StreamSegment] = []
        self.transcript = ""

    @property
    def heard(self) -> float:
        """Seconds of the connection's audio so far."""
        return self.start + self.transcriber.seconds

    @property
    def end(self) -> float:
        """Seconds of the connection's audio before the samples that the next item may begin with."""
        return self.heard - len(self.transcriber.rest) / SAMPLE_RATE

    @property
    def is_over(self) -> bool:
        """Whether it ended with a pause, or with what turned out to be no speech."""
        return self.transcriber.finished or (self.begins is not None and not self.transcriber.speech)

    @property
    def ends(self) -> int:
        """Milliseconds of the connection's audio at which it was silent for long enough."""
        assert self.turns is not None
        if not self.transcriber.speech:
            return self._milliseconds(self.transcriber.seconds)
        return self._milliseconds(self.transcriber.speech[0].end) + self.turns.silence_duration_ms

    def speech_started(self, update: Update) -> Iterator[Event]:
        """The event, once, when there is text: noise that the gate takes for speech rarely makes any."""
        has_text = update.final or update.partial
        if self.turns is None or self.begins is not None or not has_text:
            return
        first = self._milliseconds(self.transcriber.speech[0].start) - self.turns.prefix_padding_ms
        self.begins = max(first, self._milliseconds(0))
        yield event("input_audio_buffer.speech_started", audio_start_ms=self.begins, item_id=self.id)

    def deltas(self, update: Update) -> Iterator[Event]:
        """Text that is new, and final."""
        for segment in update.final:
            text = segment.text if self.segments else segment.text.lstrip()
            self.segments.append(segment)
            self.transcript += text
            yield self._event("delta", delta=text, **_labels(segment))

    def completed(self, seconds: float) -> Event:
        """The whole transcript of so many seconds."""
        return self._event(
            "completed",
            transcript=self.transcript,
            usage={"type": "duration", "seconds": round(seconds, 3)},
            segments=[self._shown(segment) for segment in self.segments],
        )

    def failed(self, error: ApiError) -> Event:
        """That it can't be transcribed."""
        return self._event("failed", error=error_body(error)["error"])

    def _event(self, kind: str, **fields: object) -> Event:
        kind = f"conversation.item.input_audio_transcription.{kind}"
        return event(kind, item_id=self.id, content_index=0, **fields)

    def _shown(self, segment: StreamSegment) -> Event:
        times = {"start": round(self.start + segment.start, 3), "end": round(self.start + segment.end, 3)}
        return {**times, "text": segment.text, **_labels(segment)}

    def _milliseconds(self, seconds: float) -> int:
        return round(1000 * (self.start + seconds))


class Turns:
    """The items of one connection."""

    def __init__(self, chosen: Chosen, backlog: Backlog[Mark], beta: bool):
        self._chosen, self._backlog, self._beta = chosen, backlog, beta
        self._item = Item(chosen, 0.0, "")
        self._previous: str | None = None
        """the id of the last item"""
        self._said = ""
        """the transcript of the last one with any"""

    async def events(self) -> AsyncGenerator[Event]:
        """What audio and marks bring, for as long as they come."""
        with ExitStack() as held:
            held.enter_context(self._chosen.engine.session())
            while True:
                taken = await self._backlog.take()
                if isinstance(taken, Chosen):
                    held.enter_context(taken.engine.session())
                    self._chosen = taken
                    heard = self._hear(self._taken_back())
                elif isinstance(taken, Commit):
                    heard = self._commit(taken)
                elif isinstance(taken, Clear):
                    heard = self._clear()
                else:
                    self._item.engine.metrics.audio.inc(len(taken) / SAMPLE_RATE)
                    heard = self._hear(taken)
                async for made in heard:
                    yield made

    async def _hear(self, samples: NDArray[np.float32]) -> AsyncGenerator[Event]:
        """Transcribe on; samples [n] may hold the end of one turn, and others."""
        while len(samples):
            item = self._item
            try:
                update = await run_step(item.engine, item.transcriber.feed, samples)
            except Busy as busy:
                for made in self._committed(item):
                    yield made
                yield item.failed(busy)
                self._begin(item.heard + len(samples) / SAMPLE_RATE)
                return
            for made in item.speech_started(update):
                yield made
            if not item.is_over:
                for made in item.deltas(update):
                    yield made
                return
            samples = item.transcriber.rest
            for made in self._end_turn(item, update):
                yield made

    def _end_turn(self, item: Item, update: Update) -> Iterator[Event]:
        if item.begins is None:  # without a word
            self._begin(item.end)
            return
        yield event("input_audio_buffer.speech_stopped", audio_end_ms=item.ends, item_id=item.id)
        yield from self._committed(item)
        yield from item.deltas(update)
        yield item.completed((item.ends - item.begins) / 1000)
        self._said = item.transcript or self._said
        self._begin(item.end)

    async def _commit(self, commit: Commit) -> AsyncGenerator[Event]:
        item = self._item
        seconds = item.transcriber.seconds
        if seconds < SHORTEST_SECONDS:
            text = f"there are {1000 * seconds:.0f} ms of audio since the last item; at least 100 make one"
            yield error_event(ApiError(400, text, "input_audio_buffer_commit_empty"), commit.event_id)
            return
        for made in self._committed(item):
            yield made
        try:
            update = await run_step(item.engine, item.transcriber.finish)
        except Busy as busy:
            yield item.failed(busy)
        else:
            for made in item.deltas(update):
                yield made
            yield item.completed(seconds)
        self._said = item.transcript or self._said
        self._begin(item.start + seconds)

    async def _clear(self) -> AsyncGenerator[Event]:
        self._begin(self._item.heard)
        yield event("input_audio_buffer.cleared")

    def _committed(self, item: Item) -> Iterator[Event]:
        """That it is an item now."""
        place = {"previous_item_id": self._previous}
        content = {"type": "input_audio", "transcript": None}
        shown = {"id": item.id, "object": "realtime.item", "type": "message", "status": "completed"}
        shown |= {"role": "user", "content": [content]}
        yield event("input_audio_buffer.committed", item_id=item.id, **place)
        for kind in ("created",) if self._beta else ("added", "done"):
            yield event(f"conversation.item.{kind}", item=shown, **place)
        self._previous = item.id

    def _begin(self, start: float) -> None:
        """The next item, ``start`` seconds into the connection's audio."""
        self._item = Item(self._chosen, start, self._said)

    def _taken_back(self) -> NDArray[np.float32]:
        """Samples [n] that an item hears again as new settings want it; none while someone speaks."""
        item = self._item
        if item.begins is not None or (item.turns is None and item.transcriber.seconds):
            return np.zeros(0, np.float32)
        rest = item.transcriber.rest
        self._begin(item.end)
        return rest


def _labels(segment: StreamSegment) -> Event:
    return {"speech_prob": segment.speech_prob, "hallucination_risk": segment.hallucination_risk}
