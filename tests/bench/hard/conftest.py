from pathlib import Path

import pytest

from tests.support.hard_cases import write_clean, write_talk


@pytest.fixture(scope="package")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of clean clips; tests don't change it."""
    return write_clean(tmp_path_factory.mktemp("clean"))


@pytest.fixture(scope="package")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of sentences, single words and barks; tests don't change it."""
    return write_talk(tmp_path_factory.mktemp("talk"))
