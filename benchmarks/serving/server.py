"""A server process of its own for a benchmark, and what it takes of the machine."""

import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

import httpx
import psutil

MB = 2**20
START_SECONDS = 120.0


class ServerProcess:
    """``whisper-sae-steer serve`` at ``url``."""

    def __init__(self, port: int, process: psutil.Process):
        self.url = f"http://127.0.0.1:{port}"
        self._process = process

    @property
    def resident(self) -> float:
        """Resident memory, MiB."""
        return round(self._process.memory_info().rss / MB, 1)

    @property
    def cpu_seconds(self) -> float:
        """Processor time since it started."""
        times = self._process.cpu_times()
        return times.user + times.system

    @property
    def is_alive(self) -> bool:
        return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE


@contextmanager
def started(*options: str) -> Generator[ServerProcess]:
    """A server with these options of ``serve``, stopped at the end; its log is thrown away."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "whisper_sae_steer", "serve", "--port", str(port), *options]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            server = ServerProcess(port, psutil.Process(process.pid))
            _wait(server)
            yield server
        finally:
            process.terminate()


def _wait(server: ServerProcess) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            httpx.get(f"{server.url}/health").raise_for_status()
            return
        except httpx.HTTPError:
            if not server.is_alive or time.monotonic() > deadline:
                raise RuntimeError("the server did not start") from None
            time.sleep(0.2)
