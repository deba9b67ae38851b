"""Commands name what they need that isn't there, before they work."""

import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from whisper_sae_steer.cli import main
from whisper_sae_steer.commands.extras import EXTRAS, require
from whisper_sae_steer.errors import MissingExtraError

ROOT = Path(__file__).parents[2]


def test_modules_are_those_of_the_extras() -> None:
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    distributions = packages_distributions()
    for extra, modules in EXTRAS.items():
        required = (Requirement(line) for line in project["optional-dependencies"][extra])
        wanted = {canonicalize_name(one.name) for one in required}
        assert {canonicalize_name(distributions[module][0]) for module in modules} == wanted


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require("serve", "serve")
    monkeypatch.setitem(sys.modules, "websockets", None)
    with pytest.raises(MissingExtraError) as raised:
        require("serve", "serve")
    assert str(raised.value) == 'serve needs websockets: pip install "whisper-sae-steer[serve]"'


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [
        ("serve", "uvicorn", "serve"),
        ("serve", "python_multipart", "serve"),
        ("batch missing.wav --out o", "pyarrow", "batch"),
        ("batch missing.wav --out o --engine ray", "ray", "ray"),
        ("bench fpr missing.wav --out o --engine ray", "ray", "ray"),
        ("export --format hf --out o", "transformers", "hf"),
    ],
)
def test_commands_look_for_their_extra_before_anything_else(
    command: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main([*command.split(), "--model", "no-such-model"]) == 2
    error = capsys.readouterr().err
    assert f'needs {module}: pip install "whisper-sae-steer[{extra}]"' in error
    assert error.count("\n") == 1
