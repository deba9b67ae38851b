"""The parts of pages, and the page around them."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from whisper_sae_steer.bench.peers import examples
from whisper_sae_steer.reports import page

NASTY = """<b>&"it's"</b>"""


class Read(HTMLParser):
    """The tags of some HTML, without those that need no end, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.text = ""
        self.feed(str(html))
        self.close()
        assert not self.opened

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= dict(attrs)
        if tag not in ("img", "meta"):
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_text_is_escaped_once() -> None:
    for part, tags in (
        (page.heading(NASTY), ["h2"]),
        (page.heading(NASTY, level=3), ["h3"]),
        (page.paragraph(NASTY), ["p"]),
        (page.paragraph(NASTY, small=True), ["p", "small"]),
    ):
        assert isinstance(part, Markup)
        read = Read(part)
        assert (read.tags, read.text) == (tags, NASTY)
    assert Read(page.embed(b"<svg/>", NASTY)).attributes["alt"] == NASTY
    assert Read(page.sound(np.zeros(160, np.float32), NASTY)).attributes["aria-label"] == NASTY


def test_table() -> None:
    read = Read(page.table(["a", NASTY], [["1", "2"], [NASTY, "4"]]))
    assert read.tags == ["div", "table", "tr", "th", "th", "tr", "td", "td", "tr", "td", "td"]
    assert read.text == f"a{NASTY}12{NASTY}4"
    assert Read(page.table(["a"], [])).tags == ["div", "table", "tr", "th"]


def test_a_page_is_whole_and_escapes_what_is_no_html(tmp_path: Path) -> None:
    body = [page.heading("One"), page.paragraph(NASTY), Markup("<i>kept</i>")]
    page.write_page(tmp_path / "page.html", NASTY, body)
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>")
    assert html.endswith("</html>\n")
    assert not re.search(r"https?:|\ssrc=", html)
    read = Read(html)
    assert read.tags == ["html", "meta", "title", "meta", "style", "h1", "h2", "p", "i"]
    assert read.text.count(NASTY) == 3


def test_plots_are_inside_the_page() -> None:
    def plot(figure: Any) -> None:
        figure.subplots().plot([0, 1], [0, 1])

    assert page.draw(plot).lstrip().startswith(b"<?xml")
    read = Read(page.image(plot, "a line"))
    assert (read.tags, read.attributes["alt"]) == (["img"], "a line")
    assert (read.attributes["src"] or "").startswith("data:image/svg+xml;base64,")


def test_templates_of_other_rooms() -> None:
    with pytest.raises(UndefinedError, match="'clip' is undefined"):
        page.render(examples.PEERS, "example.html.j2")


def test_tables_for_a_terminal() -> None:
    assert page.aligned(["a", "long"], [["123", "4"]]) == ["  a  long", "123     4"]


def test_shares() -> None:
    assert (page.percent(0.1234), page.percent(0.1234, 2), page.percent(None)) == ("12.3%", "12.34%", "–")
    assert (page.points(-0.01), page.points(0.0123, 1), page.points(None)) == ("-1.00 pp", "+1.2 pp", "–")
