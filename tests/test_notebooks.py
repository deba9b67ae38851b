"""docs/notebooks/ run from top to bottom, and are saved with what they print and draw."""

import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.documents import commands, environment
from tests.support.paths import ROOT
from whisper_sae_steer import cli

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
LARGEST_BYTES = 300_000


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds_of_output(notebook: Any) -> set[str]:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return {kind for output in outputs for kind in output.get("data", {})}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_it_printed_and_drew_is_saved(path: Path) -> None:
    cells = code_cells(read(path))
    assert "image/png" in kinds_of_output(read(path))
    assert [output for cell in cells for output in cell.outputs if output.output_type == "error"] == []
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert path.stat().st_size < LARGEST_BYTES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_commands_have_the_options_that_it_gives_them(path: Path) -> None:
    for cell in code_cells(read(path)):
        if cell.source.startswith("!"):
            for arguments in commands(cell.source[1:]):
                cli.parse(arguments)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a copy, so that what it writes isn't left here."""
    desk = tmp_path / "docs" / "notebooks"
    desk.mkdir(parents=True)
    for name in ("samples", "saes", "calibration"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(path, desk)
    monkeypatch.setenv("PATH", environment()["PATH"])
    notebook = read(path)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(desk)}}).execute()
    drawn = [
        kind for cell in code_cells(notebook) for output in cell.outputs for kind in output.get("data", {})
    ]
    assert "image/png" in drawn
