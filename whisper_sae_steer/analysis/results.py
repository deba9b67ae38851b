"""What every analysis writes: its figures as JSON, its plot as SVG, and its section of one HTML page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from markupsafe import Markup

from ..errors import AnalysisError
from ..files import write_text
from ..reports.page import draw, embed, heading, paragraph, write_page

SECTIONS, REPORT = "sections", "report.html"


class Analysis(Protocol):
    """A module of this package that the command runs."""

    TITLE: str
    """of its section"""
    QUESTION: str
    """what it answers, in a sentence"""
    HEIGHT: float
    """of the plot in inches; it is 7 wide"""

    def add_arguments(self, parser: Any) -> None: ...
    def run(self, args: Any) -> Any:
        """The typed result."""
        ...

    def text(self, result: Any) -> Sequence[str]:
        """Its lines for a terminal."""
        ...

    def plot(self, result: Any, figure: Any) -> None:
        """Draws on a matplotlib figure."""
        ...

    def section(self, result: Any) -> Sequence[str]:
        """Its HTML below title, question and plot: tables and notes."""
        ...


def write_result(analysis: Analysis, name: str, result: Any, out: Path) -> None:
    """Write ``OUT/NAME.json``, ``OUT/NAME.svg`` and NAME's section of ``OUT/report.html``."""
    (out / SECTIONS).mkdir(parents=True, exist_ok=True)

    def plot(figure: Any) -> None:
        analysis.plot(result, figure)

    drawn = draw(plot, analysis.HEIGHT)
    parts = [
        heading(analysis.TITLE),
        paragraph(analysis.QUESTION),
        embed(drawn, analysis.TITLE),
        *analysis.section(result),
    ]
    write_text(out / f"{name}.json", json.dumps(plain(result), indent=1, allow_nan=False) + "\n")
    write_text(out / f"{name}.svg", drawn.decode())
    write_text(out / SECTIONS / f"{name}.html", "\n".join(parts))
    sections = sorted((out / SECTIONS).glob("*.html"))
    write_page(out / REPORT, "SAE features", [Markup(file.read_text(encoding="utf-8")) for file in sections])


def read_result(out: Path, name: str) -> Any:
    """The JSON of an analysis, None if it was not made. AnalysisError if it is damaged."""
    try:
        return json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise AnalysisError(f"{out / name}.json can't be read ({error}); make it again") from None


def plain(value: Any) -> Any:
    """Results in the types that JSON has: named tuples and dataclasses as objects, NaN as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(_fields(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _fields(value: Any) -> dict[str, Any]:
    named: NamedTuple = value
    return named._asdict()
