"""Training curves: the points they are made of, and TensorBoard to watch them."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from tqdm import tqdm

from ..files import names_full_disk, write_text

HISTORY = "history.json"


class HistoryPoint(NamedTuple):
    """One point of an SAE's training curves."""

    step: int
    """optimiser steps done"""
    frames: int
    """frames seen"""
    fvu: float
    """fraction of variance unexplained"""
    l0: float
    """active features a frame"""
    dead: int
    """features that have not fired for long"""
    lr: float
    threshold: float
    """inference threshold so far"""
    aux: float
    """auxiliary loss"""


def save_history(history: Sequence[HistoryPoint], folder: Path) -> None:
    """Write ``folder/history.json``, one list a field."""
    curves = {name: [getattr(point, name) for point in history] for name in HistoryPoint._fields}
    write_text(folder / HISTORY, json.dumps(curves))


def load_history(folder: Path) -> list[HistoryPoint]:
    """Read it; nothing if there is none or it is not ours."""
    try:
        curves = json.loads((folder / HISTORY).read_text(encoding="utf-8"))
        return list(map(HistoryPoint, *(curves[name] for name in HistoryPoint._fields)))
    except (OSError, ValueError, LookupError, TypeError):
        return []


class TensorBoardLog:
    """Writes one SAE's training curves for TensorBoard, one tag a field of :class:`HistoryPoint`.

    ``folder`` is one run: give each SAE its own. To go on from a checkpoint after ``resumed_at`` steps
    pass that number: TensorBoard then drops whatever an earlier run logged after them. Without the package
    ``tensorboard`` one line says so, and nothing is written. DiskFullError where there is no room.
    """

    def __init__(self, folder: Path, resumed_at: int = 0):
        self._folder = folder
        with names_full_disk(folder):
            self._writer = _writer(folder, resumed_at)

    def add(self, point: HistoryPoint) -> None:
        """Log a point at its step."""
        if self._writer is None:
            return
        values = point._asdict()
        step = values.pop("step")
        with names_full_disk(self._folder):
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step)

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            with names_full_disk(self._folder):
                self._writer.close()

    def __enter__(self) -> "TensorBoardLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _writer(folder: Path, resumed_at: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and optional
    except ImportError:
        _say_missing()
        return None
    # the step that is named goes too, and the checkpoint's own is not done again
    return SummaryWriter(str(folder), purge_step=resumed_at + 1)


@cache
def _say_missing() -> None:
    tqdm.write("no curves for TensorBoard: it isn't installed (pip install tensorboard)")
