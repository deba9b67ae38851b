"""README and docs/: their blocks run and print what stands under them, their commands and links are right."""

import re
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.calibration_parts import write_noise, write_speech
from tests.support.documents import (
    PAGES,
    Block,
    assert_printed,
    blocks,
    commands_of,
    environment,
    run,
    run_apart,
)
from tests.support.links import broken_links
from tests.support.paths import ROOT
from tests.support.real_models import sample, weights
from tests.support.serving_parts import http, serving, until
from whisper_sae_steer import cli, errors
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.export.fold import fold
from whisper_sae_steer.export.writers import WRITERS
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.serving.config import ServeConfig
from whisper_sae_steer.steering.pack import load_pack

TEXTS = [*PAGES, *(ROOT / name for name in ("CHANGELOG.md", "SECURITY.md") if (ROOT / name).exists())]


def with_blocks(*roles: str) -> list[Path]:
    """Pages with a block that is run in one of these ways."""
    return [page for page in PAGES if any(b.marker == "run" and b.role in roles for b in blocks(page))]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader is told to have: the repository's samples and SAEs, and recordings of one's own."""
    for name in ("samples", "saes", "docs", "calibration"):
        (tmp_path / name).symlink_to(ROOT / name)
    write_noise(tmp_path / "my_noise", 3, 2)
    write_speech(tmp_path / "my_speech", 3, 2)
    write_wav(tmp_path / "call.wav", sample("speech"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    silent = [b.line for b in blocks(page) if not b.marker or (b.marker == "not run" and len(b.role) < 5)]
    assert silent == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_the_options_that_the_page_gives_them(page: Path) -> None:
    for arguments in commands_of(page):
        if "--help" in arguments:
            with pytest.raises(SystemExit, match="0"):
                cli.parse(arguments)
        else:
            cli.parse(arguments)


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_links_of_pages_resolve(page: Path) -> None:
    assert list(broken_links(page)) == []


def test_readme_is_read_in_two_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    assert (ROOT / "docs" / "server-page.png").stat().st_size <= 200_000


def test_every_error_is_explained() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    names = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and kind is not errors.SteerError
    }
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == names


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    calm = {**environment(), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=calm, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    for page in (
        "index.html",
        "api/index.html",
        "notebooks/1-steer/index.html",
        "benchmarks/RESULTS/index.html",
    ):
        assert (tmp_path / page).exists()


@pytest.mark.parametrize("page", with_blocks(""), ids=lambda page: page.name)
def test_blocks_print_what_stands_under_them(
    page: Path, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if page.name == "export.md":
        write_exported(desk / "steered")
    run_blocks(page, {""}, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("page", with_blocks("slow"), ids=lambda page: page.name)
def test_slow_blocks_print_what_stands_under_them(
    page: Path, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_blocks(page, {"", "slow"}, capsys)


def write_exported(folder: Path) -> None:
    """The models that the page's slow commands export, by the same code."""
    found = weights("tiny.en")
    folded = fold(load_torch(found), load_pack("auto", found))
    for form, write in WRITERS.items():
        (folder / form).mkdir(parents=True)
        write(folded, folder / form)


def run_blocks(page: Path, roles: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    capsys.readouterr()
    for block in blocks(page):
        if block.marker == "run" and block.role in roles:
            run(block, names)
            assert_printed(capsys.readouterr().out, block)


@pytest.mark.parametrize("page", with_blocks("client"), ids=lambda page: page.name)
def test_clients_print_what_stands_under_them(page: Path, desk: Path) -> None:
    """Against a server in this process; the page's own command is tried below."""
    with serving(ServeConfig()) as server:
        for block in blocks(page):
            if block.role == "client":
                assert_printed(run_apart(at(block, f"127.0.0.1:{server.port}")), block)


@pytest.mark.slow
@pytest.mark.parametrize("page", with_blocks("server"), ids=lambda page: page.name)
def test_the_command_of_the_page_starts_a_server(page: Path, desk: Path) -> None:
    (command,) = [block for block in blocks(page) if block.role == "server"]
    with started(command) as url:
        for client in (block for block in blocks(page) if block.role == "client"):
            assert_printed(run_apart(at(client, url)), client)


def at(client: Block, url: str) -> Block:
    return client._replace(code=client.code.replace("127.0.0.1:8000", url))


@contextmanager
def started(server: Block) -> Generator[str]:
    """The server as on the page, but for its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    process = subprocess.Popen(server.code.replace("8000", str(port)).split(), env=environment())

    def answers() -> bool:
        assert process.poll() is None
        try:
            return http.get(f"http://127.0.0.1:{port}/health").status_code == 200
        except httpx.ConnectError:
            return False

    try:
        until(answers, 120)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
