"""docs/features.md: its blocks print what stands under them."""

from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.real_models import SAMPLES
from tests.test_recipes import BLOCK, Block, assert_printed, run
from whisper_sae_steer.cli import ANALYSES

PAGE = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
BLOCKS = [Block(*found.groups(default="")) for found in BLOCK.finditer(PAGE)]


def test_blocks_print_what_stands_under_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "samples").symlink_to(SAMPLES)
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) == PAGE.count("<!-- run -->\n") > 1
    for block in BLOCKS:
        run(block)
        assert_printed(capsys.readouterr().out, block)


def test_every_analysis_is_named():
    assert [name for name in ANALYSES if f"analyze {name} " not in PAGE] == []
