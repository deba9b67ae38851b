"""Parts of the one-page HTML reports: tables and plots in one file that needs no network.

The HTML is in templates: those of pages and their common parts beside this file, others in the
room of the page that they belong to.
"""

import base64
import io
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from ..audio.writing import to_opus
from ..files import write_text

REPORTS = "whisper_sae_steer.reports"
LOOK = Path(__file__).with_name("templates") / "look.css"
"""the style sheet that all pages share"""


def write_page(path: Path, title: str, body: Sequence[Markup]) -> None:
    """Write parts of HTML as one page with ``title`` as its heading."""
    write_text(path, render(REPORTS, "page.html.j2", title=title, body=body) + "\n")


def render(room: str, name: str, **values: object) -> Markup:
    """HTML of a template in ``templates/`` of a package; values that aren't Markup are escaped."""
    return Markup(_templates(room).get_template(name).render(values))


def heading(text: str, level: int = 2) -> Markup:
    """HTML of a section's heading; a file's name may go on in the next line after each ``_``."""
    return _part("heading", Markup("_<wbr>").join(text.split("_")), level)


def paragraph(text: str, small: bool = False) -> Markup:
    """HTML of a paragraph, ``small`` for what is only looked up."""
    return _part("paragraph", text, small)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], text: bool = False) -> Markup:
    """HTML of a table of figures, names in its first column, or of ``text``; it scrolls where it is wide."""
    return _part("table", head, rows, text)


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table for a terminal."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]
    ]


def image(plot: Callable[[Any], None], alt: str, height: float = 3) -> Markup:
    """HTML of a plot, as an SVG inside the page."""
    return embed(draw(plot, height), alt)


def embed(svg: bytes, alt: str) -> Markup:
    """HTML of a picture inside the page."""
    return _part("picture", base64.b64encode(svg).decode(), alt)


def draw(plot: Callable[[Any], None], height: float = 3) -> bytes:
    """The SVG that ``plot`` draws on a matplotlib figure 7 inches wide."""
    from matplotlib.figure import Figure  # drawing is slow to import and needed only here

    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7, height), layout="constrained")
        plot(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True)
    return buffer.getvalue()


def sound(audio: NDArray[np.float32], label: str) -> Markup:
    """HTML of a player of samples at 16 kHz, [n], which are inside the page."""
    return _part("player", base64.b64encode(to_opus(audio)).decode(), label)


def percent(share: float | None, digits: int = 1) -> str:
    """A share as ``12.3%``; a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f}%"


def points(share: float | None, digits: int = 2) -> str:
    """A difference of shares in percentage points, ``+1.23 pp``; a dash for None."""
    return "–" if share is None else f"{100 * share:+.{digits}f} pp"


@cache
def _templates(room: str) -> Environment:
    return Environment(
        loader=PackageLoader(room),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _part(name: str, *values: object) -> Markup:
    """HTML of a macro in ``parts.html.j2``."""
    return getattr(_templates(REPORTS).get_template("parts.html.j2").module, name)(*values)
