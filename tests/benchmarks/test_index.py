"""The benchmarks' index names all there is, its links resolve, and every script starts."""

import re
import runpy
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.support.links import broken_links
from tests.support.paths import ROOT

BENCHMARKS = ROOT / "benchmarks"
INDEX = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
SCRIPTS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in BENCHMARKS.rglob("*.py")
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
)


def test_the_index_names_every_script_and_no_other() -> None:
    named = re.findall(r"python -m (benchmarks[\w.]+)", INDEX)
    assert sorted(named) == SCRIPTS


def test_the_index_lists_every_recorded_result() -> None:
    patterns = re.findall(r"`(\w+/results/[^`]+)`", INDEX)
    recorded = [path.relative_to(BENCHMARKS).as_posix() for path in BENCHMARKS.glob("*/results/*")]
    assert recorded
    assert [path for path in recorded if not any(fnmatch(path, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(fnmatch(path, pattern) for path in recorded)] == []


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_help_tells_what_a_script_is_for(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(script, run_name="__main__")
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize("page", sorted(BENCHMARKS.rglob("*.md")), ids=str)
def test_links_of_pages_resolve(page: Path) -> None:
    assert list(broken_links(page)) == []
