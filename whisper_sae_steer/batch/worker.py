"""The worker of a batch: a steered model that makes one row of one clip."""

import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import ctranslate2
import numpy as np
import torch
from numpy.typing import NDArray

from ..audio.reading import load_audio
from ..audio.units import SAMPLE_RATE
from ..commands.recordings import language_of_clip
from ..errors import SteerError
from ..faster import WhisperModel
from ..reports.segments import segment_dict
from .config import BatchConfig, settings
from .pieces import Piece, shifted
from .row import Row, failed

SEGMENT_FIELDS = (
    *("start", "end", "text", "avg_logprob", "no_speech_prob"),
    *("speech_prob", "hallucination_risk", "words"),
)
WORD_FIELDS = ("start", "end", "word", "probability", "hallucination_risk")


class BatchRecording(NamedTuple):
    """A clip, as it travels to a worker."""

    key: str
    file: str
    language: str
    piece: Piece = Piece()
    """the part of it that is to be transcribed"""


class Transcriber:
    """A steered faster-whisper model; called with a recording it gives its row, and never raises.

    SteerError if this machine's model or pack differ from `expected`, the settings of the job.
    """

    def __init__(self, options: BatchConfig, expected: dict[str, Any], threads: int) -> None:
        if settings(options) != expected:
            raise SteerError(
                "this worker's model or pack is another than the job's; give all machines the same"
            )
        ctranslate2.set_random_seed(0)  # for temperatures above 0; taken when a model's threads start
        if threads:
            torch.set_num_threads(threads)
        self.options = options
        self.model = WhisperModel(
            options.model,
            device=options.device,
            compute_type=options.compute_type,
            cpu_threads=threads,
            pack=options.pack_used,
        )
        # what crashes here is the installation, and not a clip
        list(self.model.transcribe(np.zeros(SAMPLE_RATE, dtype=np.float32), language="en")[0])

    def __call__(self, recording: BatchRecording) -> Row:
        row = failed(recording.key, None)
        started = time.perf_counter()
        try:
            self._transcribe(recording, row)
        except Exception as error:  # one bad file must cost one row
            row = failed(recording.key, f"{type(error).__name__}: {error}".partition("\n")[0], row["seconds"])
        row["wall_seconds"] = round(time.perf_counter() - started, 4)
        return row

    def _transcribe(self, recording: BatchRecording, row: Row) -> None:
        whole = load_audio(recording.file)
        start, end = recording.piece.span(whole) if recording.piece.of > 1 else (0, len(whole))
        row["seconds"] = round((end - start) / SAMPLE_RATE, 3)
        language = language_of_clip(recording.language, self.options.language)
        if language is None and start:
            _, end_of_first = Piece(0, recording.piece.of).span(whole)
            language = self._lazily(whole[:end_of_first], None)[1].language
        if start < end:
            segments, info = self._lazily(whole[start:end], language)
            del whole  # segments are made while they are drawn
            made = [_segment(segment_dict(segment, i)) for i, segment in enumerate(segments)]
            row["segments"] = [shifted(segment, start / SAMPLE_RATE) for segment in made] if start else made
            row["language"] = info.language
        row["text"] = "".join(segment["text"] for segment in row["segments"])

    def _lazily(self, audio: NDArray[np.float32], language: str | None) -> tuple[Iterable[Any], Any]:
        """Segments, not decoded yet, and what is known of the recording."""
        options = self.options
        return self.model.transcribe(
            audio,
            steer_alpha=options.steer_alpha if self.model.steerer else 0.0,
            language=language,
            task=options.task,
            beam_size=options.beam_size,
            word_timestamps=options.word_timestamps,
            skip_gaps=options.skip_gaps,
        )


def _segment(fields: dict[str, Any]) -> dict[str, Any]:
    segment = {name: fields.get(name) for name in SEGMENT_FIELDS}
    if segment["words"] is not None:
        segment["words"] = [{name: word.get(name) for name in WORD_FIELDS} for word in segment["words"]]
    return segment
