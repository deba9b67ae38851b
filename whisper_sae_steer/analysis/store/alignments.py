"""Phone alignments, as forced aligners write them: Praat's TextGrid, and CTM."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ...audio.units import ENCODER_FRAME_SECONDS
from ...errors import AnalysisError
from .activations import Window

SILENCES = frozenset({"", "sil", "sp", "spn", "<eps>", "<sil>"})
"""what aligners write where there is no phone, in lower case"""


class Interval(NamedTuple):
    """A phone, in seconds from the start of the recording."""

    start: float
    end: float
    phone: str


@dataclass(frozen=True)
class Alignments:
    """Phones of recordings, by the stem of the recording's file name."""

    path: Path
    phones: Mapping[str, Sequence[Interval]]
    """in order of time, without silences"""

    @staticmethod
    def read(path: Path, tier: str = "phones") -> "Alignments":
        """All files below a folder: one ``STEM.TextGrid`` a recording, whose tier has that name or, as MFA
        names them, ends in `` - NAME``, and ``.ctm`` files of any name, whose first column is the stem.

        AnalysisError if there are none, if one can't be read or lacks the tier, or if two are of one stem.
        """
        phones: dict[str, list[Interval]] = {}
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in (".textgrid", ".ctm"))
        if not files:
            raise AnalysisError(f"{path}: no .TextGrid or .ctm file in this folder")
        for file in files:
            read = _read_ctm(file) if file.suffix.lower() == ".ctm" else _read_textgrid(file, tier)
            for stem, intervals in read.items():
                if stem in phones:
                    raise AnalysisError(f"{file}: a second alignment of {stem}; keep one")
                kept = sorted(i for i in intervals if i.phone.lower() not in SILENCES)
                phones[stem] = kept
        return Alignments(path, phones)

    def match(self, windows: Sequence[Window]) -> Iterator[tuple[Window, Sequence[Interval]]]:
        """Windows of recordings that have an alignment.

        AnalysisError if none has, or if two recordings have the same stem.
        """
        stems: dict[str, str] = {}
        for window in windows:
            stem = Path(window.path).stem
            if stem in self.phones and stems.setdefault(stem, window.path) != window.path:
                raise AnalysisError(f"{stems[stem]} and {window.path} have one alignment, {stem}; rename one")
        if not stems:
            known = ", ".join(sorted(self.phones)[:3])
            raise AnalysisError(
                f"{self.path}: none of the alignments ({known}, …) is named as one of the recordings"
            )
        for window in windows:
            if Path(window.path).stem in stems:
                yield window, self.phones[Path(window.path).stem]


def labels_of_frames(intervals: Sequence[Interval], start: float, frames: int) -> NDArray[np.str_]:
    """The phone at the centre of each 20 ms frame of a window from ``start`` s on: [frames], "" for none."""
    if not intervals:
        return np.full(frames, "")
    centres = start + (np.arange(frames) + 0.5) * ENCODER_FRAME_SECONDS
    starts, ends = np.array([i.start for i in intervals]), np.array([i.end for i in intervals])
    place = np.searchsorted(starts, centres, side="right") - 1
    inside = (place >= 0) & (centres < ends[place])
    return np.where(inside, np.array([i.phone for i in intervals])[place], "")


def _read_textgrid(file: Path, tier: str) -> dict[str, list[Interval]]:
    try:
        from praatio import textgrid
        from praatio.utilities.errors import PraatioException
    except ImportError:
        raise AnalysisError("TextGrids need praatio: pip install 'whisper-sae-steer[analysis]'") from None
    try:
        grid = textgrid.openTextgrid(str(file), includeEmptyIntervals=False, duplicateNamesMode="rename")
        names = [name for name in grid.tierNames if name == tier or name.endswith(f" - {tier}")]
        entries = [cast(Any, entry) for name in names for entry in grid.getTier(name).entries]
        intervals = [Interval(float(e.start), float(e.end), e.label.strip()) for e in entries]
    except (OSError, ValueError, LookupError, AttributeError, AssertionError, PraatioException) as error:
        problem = " ".join(str(error).split())
        raise AnalysisError(f"{file} is no TextGrid of intervals ({problem}); export it again") from None
    if not names:
        tiers = ", ".join(grid.tierNames) or "none"
        raise AnalysisError(f"{file} has no tier {tier}; choose with --tier one of: {tiers}")
    return {file.stem: intervals}


def _read_ctm(file: Path) -> dict[str, list[Interval]]:
    """Lines of ``recording channel start duration phone [confidence]``, seconds; ``;;`` starts a comment."""
    found: dict[str, list[Interval]] = {}
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnalysisError(f"{file} is no readable UTF-8 text ({error})") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith(";;"):
            continue
        try:
            stem, _, start, seconds, phone = line.split()[:5]
            begin, length = float(start), float(seconds)
        except ValueError:
            raise AnalysisError(
                f"{file}, line {number}: not `recording channel start duration phone`"
            ) from None
        found.setdefault(stem, []).append(Interval(begin, begin + length, phone))
    return found
