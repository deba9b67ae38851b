"""The Dockerfile against pyproject.toml and the server it starts; nothing is built."""

import argparse
import json
import re
import shlex
import shutil
import subprocess
from fnmatch import fnmatch
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from tests.support.paths import ROOT
from tests.support.serving_parts import ModelAsTold
from whisper_sae_steer.models.weights import available_models
from whisper_sae_steer.serving import command
from whisper_sae_steer.serving.app import create_app
from whisper_sae_steer.serving.config import ServeConfig

tomllib = pytest.importorskip("tomllib")  # of Python 3.11


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """Each as its word and the rest of its lines."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    lines = (line.split(maxsplit=1) for line in text.splitlines() if line)
    return [(word, rest) for word, rest in lines]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def of(instructions: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for found, rest in instructions if found == word]


def test_extras_python_and_command_are_the_projects(
    instructions: list[tuple[str, str]], project: dict[str, Any]
) -> None:
    runs = " ".join(of(instructions, "RUN"))
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', runs)
    assert {"serve", "otel", "weights"} == set(extras.split(",")) <= set(project["optional-dependencies"])
    (version,) = re.findall(r"python:(\d+\.\d+)-slim", " ".join(of(instructions, "FROM")))
    assert version in SpecifierSet(project["requires-python"])
    (entrypoint,) = map(json.loads, of(instructions, "ENTRYPOINT"))
    assert entrypoint[0] in project["scripts"]


def test_what_it_starts_is_a_server_on_the_port_it_shows(instructions: list[tuple[str, str]]) -> None:
    (entrypoint,), (arguments,) = (map(json.loads, of(instructions, w)) for w in ("ENTRYPOINT", "CMD"))
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert entrypoint[1] == "serve"
    args = parser.parse_args(entrypoint[2:] + arguments)
    assert (args.host, args.model) == ("0.0.0.0", ["base"])
    assert [str(args.port)] == of(instructions, "EXPOSE")
    (health,) = of(instructions, "HEALTHCHECK")
    (port, path) = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", health)[0]
    assert int(port) == args.port
    app = create_app(ServeConfig(), ModelAsTold())  # type: ignore[arg-type]
    assert app.url_path_for("health") == path


def test_every_weight_package_is_made_ready(
    instructions: list[tuple[str, str]], project: dict[str, Any]
) -> None:
    ready = re.findall(r"whisper-sae-steer info --model (\S+)", " ".join(of(instructions, "RUN")))
    packs = {path.stem for path in (ROOT / "whisper_sae_steer" / "packs").glob("*.safetensors")}
    assert set(ready) == packs <= set(available_models())


def test_it_is_not_root_that_runs(instructions: list[tuple[str, str]]) -> None:
    assert int(of(instructions, "USER")[-1]) > 0
    assert [word for word, _ in instructions].index("USER") < [w for w, _ in instructions].index("ENTRYPOINT")


def test_what_is_copied_is_there_and_let_through(
    instructions: list[tuple[str, str]], project: dict[str, Any]
) -> None:
    copied = [source for rest in of(instructions, "COPY") for source in shlex.split(rest)[:-1]]
    assert all((ROOT / source).exists() for source in copied)
    assert {project["readme"], *project["license-files"], "pyproject.toml", "whisper_sae_steer"} <= set(
        copied
    )
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert ignore[0] == "*"
    assert {line[1:] for line in ignore if line.startswith("!")} == set(copied)
    assert any(fnmatch("whisper_sae_steer/__pycache__", line) for line in ignore[1:])


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(["hadolint", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
