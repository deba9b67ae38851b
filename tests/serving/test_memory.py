"""Free memory goes back to the system."""

import subprocess
import sys

import psutil
import pytest

from whisper_sae_steer.serving.memory import give_back_memory

MB = 2**20
OF_GLIBC = pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
THREAD_THAT_STAYS = """
import threading
import psutil
from whisper_sae_steer.serving.memory import give_back_memory, share_one_arena

def use():
    large = b"x" * (20 * 2**20)  # once it is freed, an arena may keep 40 MiB free at its end
    del large
    blocks = [b"x" * 2**20 for _ in range(30)]
    del blocks
    print(psutil.Process().memory_info().rss)
    used.set()
    stay.wait()

share_one_arena()
used, stay = threading.Event(), threading.Event()
thread = threading.Thread(target=use)
thread.start()
used.wait()
give_back_memory()
print(psutil.Process().memory_info().rss)
stay.set()
"""


@OF_GLIBC
def test_what_lies_between_things_that_stay_is_given_back() -> None:
    process = psutil.Process()
    blocks = [bytes(4096) for _ in range(50_000)]
    stay = blocks[::100]
    full = process.memory_info().rss
    del blocks
    give_back_memory()
    assert full - process.memory_info().rss > 150 * MB
    assert len(stay) == 500


@OF_GLIBC
def test_what_a_thread_has_freed_is_given_back() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", THREAD_THAT_STAYS], capture_output=True, text=True, check=True
    )
    full, rest = map(int, ran.stdout.split())
    assert full - rest > 25 * MB
