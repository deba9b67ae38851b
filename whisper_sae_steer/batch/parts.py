"""Rows on their way to a parquet file: parts beside it, and in the end one row a clip."""

import json
import time
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from typing_extensions import Self

from ..errors import ManifestError, SteerError
from ..files import write_atomically
from .pieces import names_piece
from .row import Row

KEY = b"whisper_sae_steer"
"""in a file's metadata: JSON with `settings` and `versions`"""
FLUSH_SECONDS = 10.0
"""how old a row may get before it is on disk; Ctrl-C writes all"""
PART_ROWS = 1000
"""rows of a part at most, and of a row group at least"""
LIBRARIES = ("whisper-sae-steer", "faster-whisper", "ctranslate2", "torch")

_TIMES = [("start", pa.float64()), ("end", pa.float64())]
_WORD = pa.struct(
    [*_TIMES, ("word", pa.string()), ("probability", pa.float64()), ("hallucination_risk", pa.float64())]
)
_SCORES = ("avg_logprob", "no_speech_prob", "speech_prob", "hallucination_risk")
_SEGMENT = pa.struct(
    [*_TIMES, ("text", pa.string()), *((name, pa.float64()) for name in _SCORES), ("words", pa.list_(_WORD))]
)
SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        ("seconds", pa.float64()),
        ("language", pa.string()),
        ("text", pa.string()),
        pa.field("segments", pa.list_(_SEGMENT), nullable=False),
        ("error", pa.string()),
        ("wall_seconds", pa.float64()),
    ]
)


class BatchResults:
    """The rows of an output file: those it has, those of an interrupted run, and new ones.

    A context manager that keeps other processes away and, however it is left, has all rows on disk.
    Raises ManifestError if the rows there were made with other settings or by something else, or
    if another process writes them.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.out = out
        self.folder = out.with_name(f"{out.name}.parts")
        self.errors: dict[str, str | None] = {}
        """what the latest row of each clip says"""
        self._latest: dict[str, Path] = {}
        self._rows: list[Row] = []
        self._flushed = time.monotonic()
        self._settings = dict(settings)
        about = {"settings": self._settings, "versions": {name: version(name) for name in LIBRARIES}}
        self._schema = SCHEMA.with_metadata({KEY: json.dumps(about, ensure_ascii=False).encode()})
        self._lock = FileLock(self.folder / "lock", timeout=0)

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise ManifestError(f"{self.out}: another process is writing it") from None
        except OSError as error:
            raise SteerError(f"can't write to {self.folder}: {error.strerror}") from error
        try:
            for path in self._files():
                self._read(path)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        try:
            self._flush()
        finally:
            self._leave()

    def add(self, row: Row) -> None:
        """Take a row; it replaces one that its clip may have."""
        self._rows.append(row)
        self.errors[row["path"]] = row["error"]
        if len(self._rows) == PART_ROWS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flush()

    def rows_of(self, keys: Collection[str]) -> dict[str, Row]:
        """The latest rows of these keys, without those that failed."""
        known = {key: self._latest[key] for key in keys if self.errors.get(key, "new") is None}
        found: dict[str, Row] = {}
        for path in sorted(set(known.values())):
            wanted = [("path", "in", [key for key in known if known[key] == path])]
            with _whole(path):
                rows: Any = pq.read_table(path, filters=wanted, page_checksum_verification=True)
                found |= {row["path"]: row for row in rows.to_pylist()}
        return found

    def merge(self) -> None:
        """Write the output file out of everything, one row a clip and none of pieces; remove the parts."""
        self._flush()
        parts = [path for path in self._files() if path != self.out]
        if parts:
            with (
                write_atomically(self.out) as part,
                pq.ParquetWriter(part, self._schema, write_page_checksum=True) as writer,
            ):
                for table in _groups(self._kept()):
                    writer.write_table(table)
        for path in parts:
            path.unlink()

    def _leave(self) -> None:
        self._lock.release()
        with suppress(OSError):  # there are parts: an interrupted run
            Path(self._lock.lock_file).unlink()
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        """Oldest first; what follows takes the place of what came before."""
        parts = sorted(self.folder.glob("[0-9]*.parquet"))
        return [self.out, *parts] if self.out.exists() else parts

    def _read(self, path: Path) -> None:
        with _whole(path):
            file = pq.ParquetFile(path, page_checksum_verification=True)
            about = (file.schema_arrow.metadata or {}).get(KEY)
            theirs = None if about is None else dict(json.loads(about)["settings"])
        if theirs is None:
            raise ManifestError(f"{path} is no result of this command: choose another --out")
        if theirs != self._settings:
            names = {*theirs, *self._settings}
            other = [name for name in sorted(names) if theirs.get(name) != self._settings.get(name)]
            told = ", ".join(f"{name} {theirs.get(name)}, now {self._settings.get(name)}" for name in other)
            raise ManifestError(f"{path} holds rows of other settings ({told}): choose another --out")
        with _whole(path):
            for batch in file.iter_batches(columns=["path", "error"]):
                paths = batch["path"].to_pylist()
                self.errors.update(zip(paths, batch["error"].to_pylist(), strict=True))
                self._latest.update(dict.fromkeys(paths, path))

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        if not self._rows:
            return
        names = [int(path.stem) for path in self._files() if path != self.out]
        path = self.folder / f"{max(names, default=0) + 1:08}.parquet"
        try:
            with write_atomically(path) as part:
                pq.write_table(pa.Table.from_pylist(self._rows, self._schema), part, write_page_checksum=True)
        except OSError as error:
            raise SteerError(
                f"can't write {path} ({error.strerror or error}); make room, and the same command goes on"
            ) from error
        self._latest.update((row["path"], path) for row in self._rows)
        self._rows = []

    def _kept(self) -> Iterator[pa.Table]:
        """The latest row of each clip."""
        for path in self._files():
            with _whole(path):
                file = pq.ParquetFile(path, page_checksum_verification=True)
                for batch in file.iter_batches(PART_ROWS):
                    keys = batch["path"].to_pylist()
                    mask = [self._latest[key] == path and not names_piece(key) for key in keys]
                    yield pa.Table.from_batches([batch]).filter(pa.array(mask)).cast(self._schema)


@contextmanager
def _whole(path: Path) -> Generator[None]:
    """Turn all that reading a damaged file may raise into one ManifestError."""
    try:
        yield
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ManifestError(
            f"{path} is damaged, or no result of this command ({reason}): choose another --out, or move it"
            " away, and the same command makes its rows again"
        ) from error


def _groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Small tables joined to row groups of at least PART_ROWS rows, except the last."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= PART_ROWS:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)
