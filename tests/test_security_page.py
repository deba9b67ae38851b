"""SECURITY.md: the tests that it names are there."""

import re

import pytest

from tests.support.paths import ROOT

NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))


def test_every_threat_names_a_test() -> None:
    rows = (ROOT / "SECURITY.md").read_text(encoding="utf-8").split("|---|---|---|---|\n")[1].split("\n\n")[0]
    assert all("`tests/" in row for row in rows.splitlines())
    assert len(NAMED) > 20


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_the_test_is_there(file: str, test: str) -> None:
    assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8")
