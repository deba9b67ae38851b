"""docs/realtime.md: its example prints what stands under it."""

import re

import pytest

from tests.support.paths import ROOT
from tests.support.real_models import SAMPLES
from tests.support.serving_parts import serving
from whisper_sae_steer.serving.config import ServeConfig

PAGE = (ROOT / "docs" / "realtime.md").read_text(encoding="utf-8")


def test_the_example_runs_as_written(capsys: pytest.CaptureFixture[str]):
    found = re.search(r"```python\n(.*?)```\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    code, printed = found.groups()
    with serving(ServeConfig()) as server:
        for there, here in (("http://127.0.0.1:8000", server.url), ("samples/", f"{SAMPLES}/")):
            assert there in code
            code = code.replace(there, here)
        exec(compile(code, "realtime.md", "exec"), {})
    assert capsys.readouterr().out == printed
