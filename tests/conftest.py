"""For all tests."""

import gc
from pathlib import Path

import pytest

from whisper_sae_steer.steering import pack


@pytest.fixture(autouse=True)
def _no_installed_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests are of what ships, whatever ``make-pack`` has installed on this machine."""
    monkeypatch.setattr(pack, "installed_packs", list[Path])


def pytest_collection_finish() -> None:
    """faster-whisper collects garbage after every file, and would walk through all of torch each time."""
    gc.freeze()
