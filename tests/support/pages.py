"""Pages in headless Chromium: what a reader would stumble over."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="pages are looked at in Chromium, which isn't here")

WIDER = """() => {
    const wide = document.documentElement.clientWidth;
    return [...document.querySelectorAll("body *")]
        .filter((one) => !one.parentElement.closest(".wide") && one.getBoundingClientRect().right > wide + 1)
        .map((one) => one.outerHTML.slice(0, 200));
}"""
WITHOUT_HINT = """() => [...document.querySelectorAll("*")]
    .filter((one) => one.scrollWidth > one.clientWidth + 1 && one !== document.documentElement)
    .filter((one) => /auto|scroll/.test(getComputedStyle(one).overflowX))
    .filter((one) => {
        const { backgroundImage, backgroundAttachment } = getComputedStyle(one);
        const shade = backgroundImage.includes("linear-gradient") && backgroundAttachment.includes("local");
        return !(shade && one.tabIndex === 0 && one.ariaLabel);
    })
    .map((one) => one.outerHTML.slice(0, 200))"""
BROKEN = """() => {
    const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text = walk.nextNode(); text; text = walk.nextNode()) {
        if (["STYLE", "SCRIPT"].includes(text.parentElement.tagName)) continue;
        for (const word of text.data.matchAll(/[\\p{L}\\p{N}]+/gu)) {
            const range = document.createRange();
            range.setStart(text, word.index);
            range.setEnd(text, word.index + word[0].length);
            const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
            if (lines.size > 1) found.push(word[0]);
        }
    }
    return found;
}"""


@contextmanager
def looked_at(path: Path, width: int = 400, scheme: str = "light") -> Generator[Any]:
    """A page of a file, as wide as a telephone."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # pyright: ignore
        page.goto(path.resolve().as_uri())
        yield page
        browser.close()


def faults(page: Any) -> dict[str, list[str]]:
    """What is wider than the page, scrolls without a hint, or is broken in mid-word; else nothing."""
    scripts = {"wider than the page": WIDER, "no hint": WITHOUT_HINT, "broken words": BROKEN}
    found = {name: page.evaluate(script) for name, script in scripts.items()}
    return {name: items for name, items in found.items() if items}
