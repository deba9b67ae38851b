"""Files are written whole or not at all, and a full disk is called so, whoever writes."""

import pickle
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from whisper_sae_steer.cli import main
from whisper_sae_steer.commands import info
from whisper_sae_steer.errors import DiskFullError, SteerError
from whisper_sae_steer.files import copy_file, names_full_disk, write_atomically, write_text

LARGE = torch.zeros(100_000)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process can grow beyond 64 KiB: as on a full disk, any writer may fail half-way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: path.write_bytes(LARGE.numpy().tobytes()),
    "numpy": lambda path: np.savez(path, frames=LARGE.numpy()),
    "safetensors": lambda path: save_file({"frames": LARGE}, path),
}


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path: Path, name: str):
    path = tmp_path / "frames.npz"
    path.write_text("before")
    with pytest.raises(DiskFullError) as caught, write_atomically(path) as temporary:
        WRITERS[name](temporary)
    assert (
        str(caught.value)
        == f"no room in {tmp_path} (File too large); make some, and the same command goes on"
    )
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("small_files")
def test_texts_and_copies(tmp_path: Path):
    with pytest.raises(DiskFullError):
        write_text(tmp_path / "a.txt", "a" * 100_000)
    with pytest.raises(DiskFullError):
        copy_file(Path(torch.__file__), tmp_path / "b.txt")
    assert not list(tmp_path.iterdir())


def test_the_error_is_both_and_survives_a_process(tmp_path: Path):
    with pytest.raises(SteerError) as caught, names_full_disk(tmp_path):
        raise OSError(28, "No space left on device")
    assert isinstance(caught.value, OSError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), again.errno) == (DiskFullError, str(caught.value), 28)


@pytest.mark.parametrize(
    "error", [OSError(13, "Permission denied"), ValueError("(os error 2)"), KeyError("a")]
)
def test_other_errors_stay_what_they_are(tmp_path: Path, error: Exception):
    with pytest.raises(type(error)) as caught, names_full_disk(tmp_path):
        raise error
    assert caught.value is error


def test_a_folder_that_can_not_be_made(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def full(_args: object) -> int:
        raise OSError(28, "No space left on device", "/cache/packs")

    monkeypatch.setattr(info, "main", full)
    assert main(["info"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_files_have_the_rights_that_open_gives(tmp_path: Path):
    (tmp_path / "opened").touch()
    write_text(tmp_path / "written", "text")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "opened").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["opened", "written"]
