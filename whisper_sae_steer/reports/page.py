"""Parts of the one-page HTML reports: tables and plots in one file that needs no network."""

import base64
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from ..audio.reading import to_opus
from ..files import write_text

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#222}table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .7rem;text-align:right;
border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}img{max-width:100%}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}small{color:#666}.wide{overflow-x:auto}
audio{width:100%}.text th,.text td{text-align:left;overflow-wrap:anywhere}"""


def write_page(path: Path, title: str, body: Sequence[str]) -> None:
    """Write parts of HTML as one page with ``title`` as its heading."""
    name = html.escape(title)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}</style><h1>{name}</h1>{''.join(body)}</html>\n"
    )
    write_text(path, page)


def heading(text: str) -> str:
    """HTML of a section's heading."""
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str, small: bool = False) -> str:
    """HTML of a paragraph, ``small`` for what is only looked up."""
    escaped = html.escape(text)
    return f"<p><small>{escaped}</small></p>" if small else f"<p>{escaped}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """HTML of a table; its first column is aligned to the left. It scrolls where the screen is narrow."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    lines = "".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table>{line(head, "th")}{lines}</table></div>'


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table for a terminal."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]
    ]


def image(plot: Callable[[Any], None], alt: str, height: float = 3) -> str:
    """HTML of a plot, as an SVG inside the page."""
    return embed(draw(plot, height), alt)


def embed(svg: bytes, alt: str) -> str:
    """HTML of a picture inside the page."""
    data = base64.b64encode(svg).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/svg+xml;base64,{data}">'


def draw(plot: Callable[[Any], None], height: float = 3) -> bytes:
    """The SVG that ``plot`` draws on a matplotlib figure 7 inches wide."""
    from matplotlib.figure import Figure  # drawing is slow to import and needed only here

    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7, height), layout="constrained")
        plot(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg")
    return buffer.getvalue()


def sound(audio: NDArray[np.float32], label: str) -> str:
    """HTML of a player of samples at 16 kHz, [n], which are inside the page."""
    data = base64.b64encode(to_opus(audio)).decode()
    name = html.escape(label)
    return f'<audio controls preload="none" aria-label="{name}" src="data:audio/ogg;base64,{data}"></audio>'


def percent(share: float | None, digits: int = 1) -> str:
    """A share as ``12.3%``; a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f}%"


def points(share: float | None, digits: int = 2) -> str:
    """A difference of shares in percentage points, ``+1.23 pp``; a dash for None."""
    return "–" if share is None else f"{100 * share:+.{digits}f} pp"
