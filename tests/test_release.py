"""What is published, as a stranger gets it: built, checked, and installed in a bare environment elsewhere."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.calibration_parts import write_noise, write_speech
from tests.support.paths import ROOT
from tests.support.real_models import truth

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel, made from the source archive, and that archive."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True)
    return folder


@pytest.fixture(scope="module")
def home(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home with the wheel installed in ``venv``, and recordings of one's own."""
    home = tmp_path_factory.mktemp("home")
    subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
    (wheel,) = dist.glob("*.whl")
    pip = [home / "venv" / "bin" / "pip", "install", "-q", "-c", ROOT / "constraints.txt"]
    subprocess.run([*pip, f"{wheel}[weights,serve]"], check=True, env=plain(home))
    write_noise(home / "my_noise", 3, 2)
    write_speech(home / "my_speech", 3, 2)
    shutil.copy(ROOT / "samples" / "gap.ogg", home)
    return home


def plain(home: Path) -> dict[str, str]:
    """An environment that knows nothing of the checkout."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "OMP_NUM_THREADS": "1"}


def command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The installed command, in that home."""
    program = home / "venv" / "bin" / "whisper-sae-steer"
    return subprocess.run([program, *arguments], cwd=home, env=plain(home), capture_output=True, text=True)


def test_archives_are_as_the_index_wants_them(dist: Path) -> None:
    archives = sorted(dist.iterdir())
    assert [path.suffix for path in archives] == [".whl", ".gz"]
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *archives], check=True)
    assert archives[0].stat().st_size <= 5e6


def test_transcribes(home: Path) -> None:
    options = ("--model", "tiny.en", "--output_format", "txt", "--output_dir", "out")
    done = command(home, "transcribe", "gap.ogg", *options)
    assert done.returncode == 0, done.stderr
    lines = (home / "out" / "gap.txt").read_text(encoding="utf-8").splitlines()
    assert lines == [part["text"] for part in truth("gap")["speech"]]


def test_tells_how_to_serve(home: Path) -> None:
    done = command(home, "serve", "--help")
    assert done.returncode == 0
    assert "--max_upload_bytes" in done.stdout


def test_calibrate_says_in_one_line_where_the_sae_is(home: Path) -> None:
    folders = ("--nonspeech", "my_noise", "--speech", "my_speech")
    done = command(home, "calibrate", "--model", "tiny.en", *folders, "--out", "my.safetensors")
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if "error:" in line)
    assert "copy saes/ of this project's repository there" in line
    assert done.stderr.splitlines()[-1] == line
    assert not (home / "my.safetensors").exists()
