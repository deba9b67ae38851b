"""Free memory goes back to the system."""

import sys

import psutil
import pytest

from whisper_sae_steer.serving.memory import give_back_memory

MB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_what_lies_between_things_that_stay_is_given_back() -> None:
    process = psutil.Process()
    blocks = [bytes(4096) for _ in range(50_000)]
    stay = blocks[::100]
    full = process.memory_info().rss
    del blocks
    give_back_memory()
    assert full - process.memory_info().rss > 150 * MB
    assert len(stay) == 500
