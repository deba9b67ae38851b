"""docs/recipes.md: its blocks print what stands under them. What needs other environments isn't run here."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.support.paths import ROOT
from tests.support.real_models import SAMPLES, weights
from tests.support.serving_parts import http, until
from whisper_sae_steer.export.fold import fold
from whisper_sae_steer.export.writers import WRITERS
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.steering.pack import load_pack

PAGE = ROOT / "docs" / "recipes.md"
BLOCK = re.compile(r"<!-- run(?:: (\w+))? -->\n```(\w+)\n(.*?)```\n(?:```text\n(.*?)```\n)?", re.DOTALL)


class Block(NamedTuple):
    role: str
    """empty, server or client"""
    language: str
    code: str
    printed: str


BLOCKS = [Block(*found.groups(default="")) for found in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]
FIRST, *ALONE = [block for block in BLOCKS if not block.role]
"""the one that makes the models, and those that use them"""


def run(block: Block) -> None:
    exec(compile(block.code, PAGE.name, "exec"), {"__name__": "__main__"})


def assert_printed(printed: str, block: Block) -> None:
    """Line by line; another number of threads may change a word of what is said, no more."""
    lines, expected = printed.splitlines(), block.printed.splitlines()
    assert len(lines) == len(expected), printed
    for line, other in zip(lines, expected, strict=True):
        assert SequenceMatcher(None, line, other, autojunk=False).ratio() > 0.95, line


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the recipes are run: the samples, the models of the first block, and exported ones."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "samples").symlink_to(SAMPLES)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(FIRST)
    found = weights("tiny.en")
    folded = fold(load_torch(found), load_pack("auto", found))
    for form, write in WRITERS.items():
        exported = folder / "steered" / form
        exported.mkdir(parents=True)
        write(folded, exported)
    return folder


@pytest.mark.parametrize("block", ALONE, ids=range(1, len(ALONE) + 1))
def test_block_prints_what_stands_under_it(
    block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    run(block)
    assert_printed(capsys.readouterr().out, block)


def test_the_libraries_that_need_no_other_environment_are_all_run() -> None:
    code = "".join(block.code for block in ALONE)
    names = (
        "whisper.load_model",
        "BatchedInferencePipeline",
        "transformers.pipeline",
        "StreamingTranscriber",
    )
    assert [name for name in names if name not in code] == []
    assert [block.role for block in BLOCKS if block.role] == ["server", "client", "client"]


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    """The server as on the page, but for its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    (server,) = [block for block in BLOCKS if block.role == "server"]
    command = server.code.replace("8000", str(port)).split()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, "PATH": path})

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


@pytest.mark.slow
def test_clients_print_what_stands_under_them(url: str, folder: Path) -> None:
    for block in BLOCKS:
        if block.role == "client":
            code = block.code.replace("127.0.0.1:8000", url)
            shell = ["bash", "-c"] if block.language == "bash" else [sys.executable, "-c"]
            done = subprocess.run([*shell, code], cwd=folder, capture_output=True, text=True, check=True)
            assert_printed(done.stdout, block)
