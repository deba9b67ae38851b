"""The wheel as built from this tree: what is in it, and that it declares what the code imports."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from importlib.metadata import packages_distributions, version
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import whisper_sae_steer
from tests.support.paths import ROOT

BUILD = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZipFile]:
    """Built from a copy, so that no build folder appears in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    shutil.copytree(ROOT / "whisper_sae_steer", copy / "whisper_sae_steer")
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, copy)
    subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=copy, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    with ZipFile(built) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel: ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def requirements(metadata: Message, extra: str = "") -> dict[str, Requirement]:
    """The unconditional requirements, or those of one extra, by normalised name."""
    parsed = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    chosen = (r for r in parsed if (str(r.marker) == f'extra == "{extra}"' if extra else r.marker is None))
    return {canonicalize_name(requirement.name): requirement for requirement in chosen}


def imported(*folders: str) -> set[str]:
    """Top-level names of all absolute imports."""
    names: set[str] = set()
    for folder in folders:
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names.update(alias.name.split(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names)


def distributions(modules: set[str]) -> set[str]:
    found = {**packages_distributions(), "opentelemetry": ["opentelemetry-api"]}  # which others add to
    return {canonicalize_name(found[module][0]) for module in modules if module in found}


def test_wheel_holds_the_package_its_types_and_its_packs(wheel: ZipFile) -> None:
    names = set(wheel.namelist())
    files = [path for path in (ROOT / "whisper_sae_steer").rglob("*") if path.is_file()]
    shipped = {path for path in files if path.parent.name != "__pycache__"}
    assert {path.relative_to(ROOT).as_posix() for path in shipped} == {
        name for name in names if ".dist-info/" not in name
    }
    assert "whisper_sae_steer/py.typed" in names
    for model in ("base", "tiny.en"):
        assert f"whisper_sae_steer/packs/{model}.safetensors" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_wheel_is_small(wheel: ZipFile) -> None:
    assert wheel.filename is not None
    assert Path(wheel.filename).stat().st_size < 5e6


def test_metadata(wheel: ZipFile, metadata: Message) -> None:
    assert metadata["Name"] == "whisper-sae-steer"
    assert metadata["Version"] == version("whisper-sae-steer") == whisper_sae_steer.__version__
    assert set(metadata.get_all("Provides-Extra", [])) == {
        *("weights", "train", "hf", "batch", "serve", "otel", "ray", "peers", "analysis", "download"),
        *("docs", "dev"),
    }
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "whisper-sae-steer = whisper_sae_steer.cli:main" in wheel.read(name).decode()


def test_dependencies_are_the_imports(metadata: Message) -> None:
    extras = {
        name
        for extra in ("train", "peers", "batch", "ray", "serve", "otel", "analysis", "download")
        for name in requirements(metadata, extra)
    }
    optional = {*extras, "triton", "opentelemetry-api"}  # which come with torch for CUDA, and with FastAPI
    needed = distributions(imported("whisper_sae_steer")) - {"whisper-sae-steer"} - optional
    assert needed == set(requirements(metadata))
    also = distributions(imported("tests", "benchmarks", "calibration")) - {"whisper-sae-steer"}
    assert also - needed <= {*requirements(metadata, "dev"), "packaging", "triton", "dictionary-learning"}


def test_constraints_pin_every_dependency_within_its_range(metadata: Message) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert len(pins) == sum("==" in line for line in lines)
    pinned: dict[str, str] = {canonicalize_name(name): number for name, number in pins.items()}
    for name, requirement in {**requirements(metadata), **requirements(metadata, "dev")}.items():
        assert requirement.specifier.contains(pinned[name]), name


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (command,) = re.findall(r"^python3 -m venv .*$", script, re.MULTILINE)
    assert command in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
