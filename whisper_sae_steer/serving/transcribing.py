"""The job of a request, and the routes that ask for it."""

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from ..faster import TranscriptionInfo
from ..reports.segments import segment_dict
from .engine import ServingEngine
from .options import RequestOptions, Task

SegmentDict = dict[str, Any]
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""tried in turn where a window fails Whisper's thresholds"""


class RecordingInfo(NamedTuple):
    """What is known of a recording before its first segment, and a place for what isn't."""

    seconds: float
    language: str
    filtered: list[SegmentDict] | None
    """what ``filter_risk`` has left out, there after the last segment; None if nothing was to be"""


def transcribe(
    engine: ServingEngine, file: BinaryIO, options: RequestOptions, task: Task
) -> Iterator[RecordingInfo | SegmentDict]:
    """A job for :meth:`.ServingEngine.draw`: the recording's length and language, then each segment as
    openai-whisper's dict.

    Segments have ``speech_prob`` and ``hallucination_risk`` if the model has a pack and α isn't 0.
    """
    segments, info = engine.model.transcribe(
        file,
        task=task,
        language=options.language,
        initial_prompt=options.prompt,
        temperature=options.temperature or TEMPERATURES,
        word_timestamps="word" in options.timestamp_granularities,
        steer_alpha=options.steer_alpha,
        skip_gaps=options.skip_gaps,
        filter_risk=options.filter_risk,
    )
    engine.metrics.audio.inc(info.duration)
    filtered: list[SegmentDict] | None = None if options.filter_risk is None else []
    yield RecordingInfo(info.duration, info.language, filtered)
    for number, segment in enumerate(segments):
        written = segment_dict(segment, number)
        engine.metrics.wrote(written.get("hallucination_risk"))
        yield written
    if isinstance(info, TranscriptionInfo) and filtered is not None:
        filtered += [segment_dict(segment, segment.id) for segment in info.filtered]
