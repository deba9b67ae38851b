"""docs/server.md's page for the browser, in Chromium, with a recording for a microphone."""

import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tests.support.documents import blocks
from tests.support.pages import CHROMIUM, in_browser
from tests.support.paths import ROOT
from tests.support.real_models import sample
from tests.support.serving_parts import serving, wav
from whisper_sae_steer.serving.config import ServeConfig

api = pytest.importorskip("playwright.sync_api", reason="pages are looked at with playwright")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """Another site than the server's, with the files of ``tmp_path``."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@in_browser
def test_the_page_shows_what_is_said(site: str, tmp_path: Path) -> None:
    (block,) = [block for block in blocks(ROOT / "docs" / "server.md") if block.role == "browser"]
    (key,) = re.findall(r'KEY = "(.+?)"', block.code)
    recording = tmp_path / "microphone.wav"
    recording.write_bytes(wav(samples=(np.tile(sample("speech"), 4) * 32767).astype(np.int16)))
    options = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={recording}",
    ]
    with serving(ServeConfig(api_key=key)) as server, api.sync_playwright() as playwright:
        page_code = block.code.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
        (tmp_path / "page.html").write_text(page_code, encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_page()
        page.goto(f"{site}/page.html")
        page.click("#start")
        api.expect(page.locator("p")).to_contain_text("two blue boxes", timeout=60_000)
        page.click("#stop")
        api.expect(page.locator("#partial")).to_be_empty(timeout=30_000)
        api.expect(page.locator("#final")).to_contain_text("two blue boxes")
        browser.close()
