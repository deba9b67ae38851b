from pathlib import Path

import pytest

from tests.support.hard_cases import write_clean


@pytest.fixture(scope="package")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of clean clips; tests don't change it."""
    return write_clean(tmp_path_factory.mktemp("clean"))
