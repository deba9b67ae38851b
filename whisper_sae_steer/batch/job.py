"""A batch: every clip through a worker of an engine, every answer into the results."""

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ..audio.clips import Clip
from ..errors import ManifestError, SteerError
from .config import BatchConfig, settings
from .engine import GIVEN_UP, BatchEngine, Task, answers
from .parts import BatchResults
from .worker import BatchRecording, Transcriber, failed


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

    Clips that `out` or an interrupted run has rows for are skipped, unless those have an error.
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
        # the longest first, or one of them may be what all wait for in the end
        left.sort(key=lambda clip: -(clip.seconds or 0))
        tasks = [Task(clip.key, BatchRecording(clip.key, str(clip.path), clip.language)) for clip in left]
        seconds = 0.0
        with (
            closing(answers(engine, make, tasks)) as found,
            tqdm(total=len(clips), initial=len(clips) - len(left), unit="clip", disable=not progress) as bar,
        ):
            for key, row in found:
                row = row or failed(key, f"{SteerError.__name__}: {GIVEN_UP}")
                results.add(row)
                seconds += row["seconds"] or 0.0
                bar.update()
        results.merge()
        errors = sum(results.errors[clip.key] is not None for clip in clips)
    return Outcome(len(clips), len(left), errors, seconds)
