"""Finding the SAE of some weights by the fingerprint in its cfg.json."""

import json
from pathlib import Path

import pytest

from tests.support.real_models import weights
from whisper_sae_steer.errors import SAEFormatError
from whisper_sae_steer.sae import find
from whisper_sae_steer.sae.find import find_sae
from whisper_sae_steer.sae.formats import load_sae

OTHER = weights("tiny.en")._replace(name="mine", fingerprint="0" * 32)


def write_config(root: Path, name: str, content: str) -> Path:
    folder = root / "saes" / name
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(content, encoding="utf-8")
    return folder


def config(fingerprint: str, tap: str = "encoder_output", fvu: float | None = None) -> str:
    held_back = {} if fvu is None else {"held_back": {"fvu": fvu}}
    return json.dumps({"metadata": {"fingerprint": fingerprint, "hook_name": tap, **held_back}})


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The three places that are searched, all empty."""
    here, package, cache = (tmp_path / name for name in ("here", "package", "cache"))
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(find, "__file__", str(package / "whisper_sae_steer" / "sae" / "find.py"))
    monkeypatch.setenv("WHISPER_SAE_STEER_CACHE", str(cache))
    return [here, package, cache]


@pytest.mark.parametrize("tap", ["encoder_output", "last block"])
@pytest.mark.parametrize(("name", "last"), [("tiny.en", "block.3"), ("base", "block.5")])
def test_shipped_sae_fits_its_model(name: str, last: str, tap: str):
    tap = last if tap == "last block" else tap
    folder = find_sae("auto", weights(name), tap)
    assert (folder.parent.name, folder.name) == (name, tap)
    config = load_sae(folder).config
    assert (config.metadata["fingerprint"], config.tap) == (weights(name).fingerprint, tap)


def test_a_path_is_taken_as_it_is(tmp_path: Path):
    assert find_sae(str(tmp_path / "mine"), OTHER) == tmp_path / "mine"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_place_is_searched_by_fingerprint(roots: list[Path], place: int):
    write_config(roots[0], "a", config("1" * 32))
    wanted = write_config(roots[place], "z", config(OTHER.fingerprint))
    assert find_sae("auto", OTHER) == wanted


def test_the_tap_asked_for_is_found(roots: list[Path]):
    write_config(roots[0], "a", config(OTHER.fingerprint))
    wanted = write_config(roots[0], "mine/z", config(OTHER.fingerprint, "block.1"))
    assert find_sae("auto", OTHER, "block.1") == wanted
    with pytest.raises(SAEFormatError, match=r"no SAE for mine at block\.2"):
        find_sae("auto", OTHER, "block.2")


def test_the_current_folder_comes_first(roots: list[Path]):
    folders = [write_config(root, "z", config(OTHER.fingerprint)) for root in roots]
    assert find_sae("auto", OTHER) == folders[0]


def test_a_trial_never_replaces_a_good_one(roots: list[Path]):
    write_config(roots[0], "toy", config(OTHER.fingerprint, fvu=0.4))
    write_config(roots[0], "untold", config(OTHER.fingerprint))
    good = write_config(roots[1], "shipped", config(OTHER.fingerprint, fvu=0.05))
    write_config(roots[2], "cached", config(OTHER.fingerprint, fvu=0.06))
    assert find_sae("auto", OTHER) == good


@pytest.mark.parametrize("known", [None, "e" * 32])
def test_an_sae_of_other_matrices_is_passed_over(roots: list[Path], known: str | None):
    """A LoRA merge has its base's fingerprint; where either mark is unknown, that has to do."""
    ours = OTHER._replace(encoder_mark="e" * 32)
    for name, mark in (("a", "0" * 32), ("z", known)):
        metadata = {"fingerprint": OTHER.fingerprint, "hook_name": "encoder_output", "encoder_mark": mark}
        write_config(roots[0], name, json.dumps({"metadata": metadata}))
    assert find_sae("auto", ours).name == "z"
    assert find_sae("auto", OTHER._replace(encoder_mark=None)).name == "a"


@pytest.mark.parametrize("content", ["", "[]", "{", "{}", '{"metadata": null}', '{"metadata": [1]}', '"x"'])
def test_other_configs_are_passed_over(roots: list[Path], content: str):
    write_config(roots[0], "a", content)
    (roots[0] / "saes" / "b" / "cfg.json").mkdir(parents=True)
    wanted = write_config(roots[0], "z", config(OTHER.fingerprint))
    assert find_sae("auto", OTHER) == wanted


def test_none_found_says_what_to_do(roots: list[Path]):
    write_config(roots[0], "a", config("1" * 32))
    with pytest.raises(SAEFormatError, match="no SAE for mine") as error:
        find_sae("auto", OTHER)
    assert "whisper-sae-steer train AUDIO --model mine" in str(error.value)
    assert "copy saes/ of this project's repository there" in str(error.value)
    assert all(str(root) in str(error.value) for root in roots)
    assert "\n" not in str(error.value)
