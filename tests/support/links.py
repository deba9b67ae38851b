"""Links between the repository's texts."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TARGET = re.compile(r'\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)|(?:src|href)="(?!\w+:)([^"#]+)#?([^"]*)"')


def broken_links(page: Path) -> Iterator[str]:
    """Links of a page to files that aren't there, or to headings that those don't have."""
    for target, anchor, source, place in TARGET.findall(_prose(page)):
        name, heading = target or source, anchor or place
        linked = (page.parent / name).resolve() if name else page
        if not linked.exists():
            yield name
        elif heading and linked.suffix == ".md" and heading not in anchors(linked):
            yield f"{name}#{heading}"


@cache
def anchors(page: Path) -> frozenset[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


@cache
def _prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
