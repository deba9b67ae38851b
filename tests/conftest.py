"""For all tests."""

import gc


def pytest_collection_finish() -> None:
    """faster-whisper collects garbage after every file, and would walk through all of torch each time."""
    gc.freeze()
