import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from whisper_sae_steer.models import cache


def test_digest_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_SAE_STEER_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert cache.file_sha256(path) == hashlib.sha256(b"one").hexdigest()
    (stamp,) = (tmp_path / "cache/sha256").iterdir()
    stamp.write_text(stamp.read_text()[:-64] + "f" * 64)
    assert cache.file_sha256(path) == "f" * 64  # not read again
    path.write_bytes(b"longer")
    assert cache.file_sha256(path) == hashlib.sha256(b"longer").hexdigest()
    stamp.write_bytes(b"\xff\xfe garbage")
    assert cache.file_sha256(path) == hashlib.sha256(b"longer").hexdigest()


DIGEST_OFTEN = """
import sys
from pathlib import Path
from whisper_sae_steer.models.cache import cache_dir, file_sha256
path, right = Path(sys.argv[1]), sys.argv[2]
for _ in range(300):
    assert file_sha256(path) == right
    (cache_dir() / "sha256").joinpath(sys.argv[3]).unlink(missing_ok=True)
"""


def test_processes_that_write_at_once_leave_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHISPER_SAE_STEER_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "file"
    path.write_bytes(b"one")
    right = cache.file_sha256(path)
    (stamp,) = (tmp_path / "cache/sha256").iterdir()
    command = [sys.executable, "-c", DIGEST_OFTEN, str(path), right, stamp.name]
    writers = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0] * 3
    assert cache.file_sha256(path) == right
    assert list(stamp.parent.iterdir()) == [stamp]


def test_cache_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_SAE_STEER_CACHE", "/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache.cache_dir() == Path("/own")
    monkeypatch.delenv("WHISPER_SAE_STEER_CACHE")
    assert cache.cache_dir() == Path("/xdg/whisper-sae-steer")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache.cache_dir() == Path("/home/somebody/.cache/whisper-sae-steer")
