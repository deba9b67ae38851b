"""The parts of pages, and the page around them."""

import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.image as mpl_image
import numpy as np
import pytest
from jinja2 import UndefinedError
from markupsafe import Markup
from numpy.typing import NDArray

from tests.support.pages import faults, in_browser, looked_at
from tests.support.serving_parts import until
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
    assert read.attributes["tabindex"] == "0"  # a box that scrolls is reached by keys
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
    assert read.tags == ["html", "meta", "title", "meta", "meta", "style", "h1", "h2", "p", "i"]
    assert read.text.count(NASTY) == 3


def test_plots_are_inside_the_page() -> None:
    def plot(figure: Any) -> None:
        figure.subplots().plot([0, 1], [0, 1])

    assert page.draw(plot).lstrip().startswith(b"<?xml")
    read = Read(page.image(plot, "a line"))
    assert (read.tags, read.attributes["alt"]) == (["div", "img"], "a line")
    assert (read.attributes["src"] or "").startswith("data:image/svg+xml;base64,")


@pytest.fixture
def wide_page(tmp_path: Path) -> Path:
    """A page with a table and a plot that are wider than a telephone, a long name and a player."""

    def plot(figure: Any) -> None:
        figure.subplots().plot([0, 1], [0, 1])

    body = [
        page.paragraph(f"A file of a long name: {'folder-of-sounds/' * 12}sound.wav"),
        page.table(["what", *map(str, range(20))], [["encoder_output", *["12.3% [1.2, 23.4]"] * 20]]),
        page.table(["few", "figures"], [["a", "1"]]),
        page.image(plot, "a line"),
        page.sound(np.zeros(32_000, np.float32), "silence"),
    ]
    page.write_page(tmp_path / "page.html", "A page", body)
    return tmp_path / "page.html"


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_a_wide_table_scrolls_in_its_own_box_which_shows_it(wide_page: Path, width: int, scheme: str):
    with looked_at(wide_page, width, scheme) as seen:
        assert faults(seen) == {}
        table, few = seen.locator(".wide").nth(0), seen.locator(".wide").nth(1)
        box = table.bounding_box()
        assert box["x"] + box["width"] <= width
        edge = "(one, there) => { one.scrollLeft = there ? one.scrollWidth : 0; }"
        table.evaluate(edge, 0)
        assert shaded(table) == (False, True), "more lies to the right"
        table.evaluate(edge, 1)
        assert shaded(table) == (True, False), "and now to the left"
        assert shaded(few) == (False, False)


@in_browser
def test_the_checks_find_what_they_look_for(tmp_path: Path):
    """A table outside of any box, a box without a hint, a word broken in two."""
    rows = f"<table><tr>{'<td>figure</td>' * 40}</tr></table>"
    bad = f'{rows}<div style="overflow-x:auto">{rows}</div>'
    bad += '<p style="width:3rem;overflow-wrap:anywhere">encoder_output</p>'
    page.write_page(tmp_path / "page.html", "A page", [Markup(bad)])
    with looked_at(tmp_path / "page.html") as seen:
        assert set(faults(seen)) == {"wider than the page", "no hint", "broken words"}


@in_browser
def test_players_know_how_long_they_play(wide_page: Path):
    with looked_at(wide_page) as seen:
        until(lambda: seen.locator("audio").evaluate("(one) => one.duration") == pytest.approx(2, abs=0.1))


@in_browser
def test_plots_stay_readable_on_a_telephone(wide_page: Path):
    """At its width of 7 inches a plot's letters are 9 points high; no less than two thirds of it."""
    with looked_at(wide_page) as seen:
        assert seen.locator("img").bounding_box()["width"] > 7 * 72 * 2 / 3


def shaded(box: Any) -> tuple[bool, bool]:
    """Whether the left and the right edge of a box are darker than the rest of it."""
    picture = read_png(box.screenshot()).astype(int)
    left, right = (int(np.median(picture[:, x])) for x in (3, -4))
    dark = int(np.median(picture)) - 8
    return left < dark, right < dark


def read_png(data: bytes) -> NDArray[np.uint8]:
    """The brightness [height, width] of a picture."""
    pixels: NDArray[np.float64] = mpl_image.imread(BytesIO(data))
    return (255 * pixels[..., :3].mean(-1)).astype(np.uint8)


def test_templates_of_other_rooms() -> None:
    with pytest.raises(UndefinedError, match="'title' is undefined"):
        page.render(examples.PEERS, "example.html.j2")


def test_tables_for_a_terminal() -> None:
    assert page.aligned(["a", "long"], [["123", "4"]]) == ["  a  long", "123     4"]


def test_shares() -> None:
    assert (page.percent(0.1234), page.percent(0.1234, 2), page.percent(None)) == ("12.3%", "12.34%", "–")
    assert (page.points(-0.01), page.points(0.0123, 1), page.points(None)) == ("-1.00 pp", "+1.2 pp", "–")
