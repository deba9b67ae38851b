"""A batch: every clip through a worker of an engine, every answer into the results."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ..audio.clips import Clip
from ..audio.reading import audio_seconds
from ..errors import ManifestError, SteerError
from .config import BatchConfig, settings
from .engine import GIVEN_UP, BatchEngine, Task, answers
from .parts import BatchResults
from .pieces import Piece, joined, names_piece, pieces_of
from .row import Row, failed
from .worker import BatchRecording, Transcriber


class Outcome(NamedTuple):
    """What became of the clips of a job, in this run and those before."""

    clips: int
    new: int
    """rows made by this run"""
    failed: int
    """clips whose row has an error; the same command tries them again"""
    audio_seconds: float
    """decoded by this run"""


def transcribe_clips(
    clips: Sequence[Clip],
    out: str | Path,
    options: BatchConfig,
    engine: BatchEngine,
    threads: int = 0,
    progress: bool = True,
) -> Outcome:
    """Transcribe clips into the parquet file `out`, one row a clip (see :mod:`.parts` for its columns).

    Clips that `out` or an interrupted run has rows for are skipped, unless those have an error. Recordings of
    half an hour and more are cut where nobody speaks, into pieces that workers share; at α = 0, or with gaps
    left to Whisper, they stay whole.
    `threads` are the CPU threads of each worker, 0 CTranslate2's choice. However it ends, rows that are
    done are kept, and the same call goes on from them.

    Raises ManifestError if two clips share a key, or `out` has rows of other settings; other SteerErrors
    for weights or packs that can't be used.
    """
    if len({clip.key for clip in clips}) < len(clips):
        raise ManifestError("two clips have the same path; name folders with different names")
    chosen = settings(options)
    make = partial(Transcriber, options, chosen, threads)
    with BatchResults(Path(out), chosen) as results:
        left = [clip for clip in clips if results.errors.get(clip.key, "new") is not None]
        tasks = {task.key: task for task in _tasks(left, bool(options.steer_alpha) and options.skip_gaps)}
        known = results.rows_of([name for name in tasks if names_piece(name)])
        new = [task for name, task in tasks.items() if name not in known]
        seconds = 0.0
        with (
            closing(answers(engine, make, new)) as found,
            tqdm(total=len(clips), initial=len(clips) - len(left), unit="clip", disable=not progress) as bar,
        ):
            for row in _of_recordings(chain(known.items(), found), tasks, results):
                results.add(row)
                seconds += row["seconds"] or 0.0
                bar.update()
        results.merge()
        errors = sum(results.errors[clip.key] is not None for clip in clips)
    return Outcome(len(clips), len(left), errors, seconds)


def _of_recordings(
    found: Iterable[tuple[str, Row | None]], tasks: Mapping[str, Task], results: BatchResults
) -> Iterator[Row]:
    """The rows of recordings. Those of pieces go into the results until all of a recording's are there."""
    made: dict[str, dict[int, Row]] = defaultdict(dict)
    for name, answer in found:
        recording: BatchRecording = tasks[name].item
        key, piece = recording.key, recording.piece
        row = answer or failed(key, f"{SteerError.__name__}: {GIVEN_UP}")
        if piece.of == 1:
            yield row
            continue
        kept = row.copy()
        kept["path"] = name
        results.add(kept)
        made[key][piece.number] = row
        if len(made[key]) == piece.of:
            rows = made.pop(key)
            yield joined(key, [rows[number] for number in range(piece.of)])


def _tasks(clips: Sequence[Clip], cuts: bool) -> list[Task]:
    """The longest first, or one of them may be what all wait for in the end; long ones in pieces."""
    tasks: list[tuple[float, Task]] = []
    for clip in clips:
        seconds = audio_seconds(clip.path) if clip.seconds is None else clip.seconds
        for piece in pieces_of(seconds) if cuts else [Piece()]:
            recording = BatchRecording(clip.key, str(clip.path), clip.language, piece)
            tasks.append((seconds / piece.of, Task(piece.name(clip.key), recording)))
    return [task for _, task in sorted(tasks, key=lambda entry: -entry[0])]
