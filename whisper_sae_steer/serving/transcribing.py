"""The job of a request, and the routes that ask for it."""

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from ..reports.segments import segment_dict
from .decoding import decode
from .engine import Engine
from .options import Options, Task

SegmentDict = dict[str, Any]
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""tried in turn where a window fails Whisper's thresholds"""


class Heard(NamedTuple):
    """What is known of a recording before its first segment."""

    seconds: float
    language: str


def transcribe(engine: Engine, file: BinaryIO, options: Options, task: Task) -> Iterator[Heard | SegmentDict]:
    """A job for :meth:`.Engine.draw`: first what was heard, then each segment as openai-whisper's dict.

    Segments have ``speech_prob`` and ``hallucination_risk`` if the model has a pack and α isn't 0.
    """
    samples = decode(file, engine.config)
    segments, info = engine.model.transcribe(
        samples,
        task=task,
        language=options.language,
        initial_prompt=options.prompt,
        temperature=options.temperature or TEMPERATURES,
        word_timestamps="word" in options.timestamp_granularities,
        steer_alpha=options.steer_alpha,
    )
    engine.metrics.audio.inc(info.duration)
    yield Heard(info.duration, info.language)
    for number, segment in enumerate(segments):
        engine.metrics.segments.inc()
        yield segment_dict(segment, number)
