"""Transcribe clips at several steering strengths and write one row a clip and α.

Rows are appended to `clips.jsonl`, so an interrupted run goes on where it stopped; what they
say is worked out in `metrics.py`, and `report.py` writes the summary and the table.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
from tqdm import tqdm

from ..audio.clips import Clip
from ..audio.reading import load_audio
from ..audio.units import SAMPLE_RATE
from ..batch.engine import GIVEN_UP, BatchEngine, Task, Worker, answers
from ..commands.recordings import language_of_clip
from ..errors import ManifestError, SteerError
from ..files import names_full_disk, write_text
from ..models.greedy import RawWindow
from ..steering.operator import check_alpha
from .backends import Backend

Row = TypedDict(
    "Row",
    {
        "path": str,
        "source": str,
        "kind": str,
        "class": str,
        "language": str,
        "seconds": float | None,
        "model": str,
        "backend": str,
        "compute_type": str,
        "pack": str | None,
        "alpha": float,
        "text": str | None,
        "segments": list[dict[str, Any]],
        "wall": float | None,
        "raw": RawWindow | None,
        "reference": str | None,
        "gaps": list[list[float]],
        "error": str | None,
    },
)
"""One line of `clips.jsonl`. `text` and `wall` (seconds in `transcribe`) are None if and only if
`error` says why the clip failed."""


class Elsewhere(NamedTuple):
    """Where clips are measured, if not in this process."""

    engine: BatchEngine
    load: Callable[[], Backend]
    """loads the back end again in each worker; can be pickled"""


def run(
    backend: Backend,
    clips: Sequence[Clip],
    alphas: Sequence[float],
    out_dir: str | Path,
    raw: bool = True,
    language: str | None = None,
    progress: bool = True,
    elsewhere: Elsewhere | None = None,
) -> list[Row]:
    """Transcribe every clip at every α; return the rows of `out_dir/clips.jsonl`, old and new.

    Clips and strengths that `clips.jsonl` already holds are skipped; failed ones are tried again.
    Each row is flushed as it is written, so Ctrl-C loses the clip at hand and nothing else.
    `raw` adds the greedy first window, at the price of one more encode. `language` None lets a
    multilingual model detect it, "own" takes each clip's own. With `elsewhere` the rows
    come from its workers, all of a clip at once, and `backend` only gives the names.

    A file that can't be decoded or transcribed gives a row with `error`. Raises ManifestError if
    two clips share a key or `out_dir` holds rows of another model or pack, AlphaError, SteerError if
    an α is not 0 for a model without a pack.
    """
    if len({clip.key for clip in clips}) < len(clips):
        raise ManifestError("two clips have the same path; name folders with different names")
    alphas = [check_alpha(alpha) for alpha in dict.fromkeys(alphas)]
    if any(alphas) and backend.pack is None:
        raise SteerError("a model without a steering pack can only be measured at α = 0")
    path = Path(out_dir) / "clips.jsonl"
    rows = _resume(path, backend)
    done = {(row["path"], row["alpha"]) for row in rows}
    todo: list[tuple[Clip, list[float]]] = []
    for number, clip in enumerate(clips):
        missing = [alpha for alpha in alphas if (clip.key, alpha) not in done]
        # every other clip runs backwards, so that no strength always meets the warm caches
        todo.append((clip, missing[::-1] if number % 2 else missing))
    total = sum(len(missing) for _, missing in todo)
    todo = [(clip, missing) for clip, missing in todo if missing]
    if elsewhere is None:
        new = _measure_here(backend, todo, raw, language)
    else:
        new = _measure_elsewhere(elsewhere, backend, todo, raw, language)
    with (
        names_full_disk(path.parent),
        path.open("a", encoding="utf-8") as file,
        _bar(total, progress) as bar,
    ):
        for row in new:
            file.write(_line(row))
            file.flush()
            rows.append(row)
            bar.update()
    return rows


def read_rows(path: str | Path) -> list[Row]:
    """Rows of a `clips.jsonl`; a half-written last line is left out.

    Raises ManifestError if another line is broken.
    """
    rows: list[Row] = []
    # a line may have been cut inside a character; it is the one that is dropped
    lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ManifestError(f"{path}, line {number}: not JSON ({error})") from error
    return rows


def _measure_here(
    backend: Backend, todo: Sequence[tuple[Clip, list[float]]], raw: bool, language: str | None
) -> Iterator[Row]:
    if todo:
        _warm_up(backend)
    for clip, alphas in todo:
        yield from _measure(backend, clip, alphas, raw, language)


def _measure_elsewhere(
    elsewhere: Elsewhere,
    names: Backend,
    todo: Sequence[tuple[Clip, list[float]]],
    raw: bool,
    language: str | None,
) -> Iterator[Row]:
    make = partial(_worker, elsewhere.load, raw, language)
    work = {clip.key: (clip, alphas) for clip, alphas in todo}
    for key, rows in answers(elsewhere.engine, make, [Task(*item) for item in work.items()]):
        if rows is None:
            clip, alphas = work[key]
            given_up = SteerError(GIVEN_UP)
            rows = [_failed(_new_row(names, clip, alpha), given_up) for alpha in alphas]
        yield from rows


def _worker(load: Callable[[], Backend], raw: bool, language: str | None) -> Worker:
    """A back end that turns a clip and its α into rows."""
    backend = load()
    _warm_up(backend)

    def measure(item: tuple[Clip, list[float]]) -> list[Row]:
        return list(_measure(backend, *item, raw, language))

    return measure


def _warm_up(backend: Backend) -> None:
    backend.transcribe(np.zeros(SAMPLE_RATE, dtype=np.float32), 0.0, "en")


def _measure(
    backend: Backend, clip: Clip, alphas: Sequence[float], raw: bool, language: str | None
) -> Iterator[Row]:
    """Yield a row for each α; the audio is decoded once for all of them."""
    spoken = language_of_clip(clip.language, language)
    try:
        audio = load_audio(clip.path)
    except Exception as error:  # one bad file must not cost hours of good ones
        yield from (_failed(_new_row(backend, clip, alpha), error) for alpha in alphas)
        return
    for alpha in alphas:
        row = _new_row(backend, clip, alpha)
        row["seconds"] = round(len(audio) / SAMPLE_RATE, 3)
        try:
            started = time.perf_counter()
            row["text"], row["segments"] = backend.transcribe(audio, alpha, spoken)
            row["wall"] = round(time.perf_counter() - started, 4)
            row["raw"] = backend.first_window(audio, alpha, spoken) if raw else None
        except Exception as error:
            row = _failed(row, error)
        yield row


def _failed(row: Row, error: Exception) -> Row:
    row["text"], row["segments"], row["wall"] = None, [], None
    row["error"] = f"{type(error).__name__}: {error}"
    return row


def _new_row(backend: Backend, clip: Clip, alpha: float) -> Row:
    return {
        "path": clip.key,
        "source": clip.source,
        "kind": clip.kind,
        "class": clip.class_,
        "language": clip.language,
        "seconds": clip.seconds,
        "model": backend.model_name,
        "backend": backend.name,
        "compute_type": backend.compute_type,
        "pack": backend.pack if alpha else None,
        "alpha": alpha,
        "text": None,
        "segments": [],
        "wall": None,
        "raw": None,
        "reference": clip.text or None,
        "gaps": [list(gap) for gap in clip.gaps],
        "error": None,
    }


def _resume(path: Path, backend: Backend) -> list[Row]:
    """Good rows of an earlier run; the file is rewritten without failed and half-written ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return []
    rows = [row for row in read_rows(path) if row["error"] is None]
    for row in rows:
        # a row at α = 0 owes nothing to a pack, so any pack may go on from it
        ours = (
            backend.model_name,
            backend.name,
            backend.compute_type,
            backend.pack if row["alpha"] else None,
        )
        theirs = (row["model"], row["backend"], row["compute_type"], row.get("pack"))
        if theirs != ours:
            raise ManifestError(
                f"{path} holds rows of {theirs}, this run is {ours}: choose another output folder"
            )
    write_text(path, "".join(_line(row) for row in rows))
    return rows


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _bar(total: int, progress: bool) -> "tqdm[Any]":
    return tqdm(total=total, unit="clip", disable=not progress, smoothing=0.05)
