"""Engines on this machine: this process, or worker processes that may die without harm.

loky's executor doesn't replace this: a worker that dies breaks the whole pool and fails the tasks of all its
other workers, and what a worker raises while it loads never reaches the caller. Pools of one worker each
would confine a death, but loky also replaces a worker, model and all, once it has grown by 300 MB.
"""

import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from ..errors import SteerError
from .engine import Make, Task

START = get_context("spawn")  # a fork of a process with running threads may hang


def here(make: Make, tasks: Sequence[Task], alone: bool) -> Iterator[tuple[str, Any]]:
    """The engine without workers: a task that kills its process kills the job."""
    worker = make()
    for task in tasks:
        yield task.key, worker(task.item)


class Processes:
    """The engine of `workers` processes of this machine, each with one task at a time."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __call__(self, make: Make, tasks: Sequence[Task], alone: bool) -> Iterator[tuple[str, Any]]:
        queue = deque(tasks)
        running = [_Process(make) for _ in range(min(self.workers, len(queue)))]
        try:
            while running:
                ready = set(wait([process.pipe for process in running]))
                for process in [process for process in running if process.pipe in ready]:
                    done, answer = process.key, process.receive()
                    if process.alive and done is not None:
                        yield done, answer
                    if process.alive and queue:
                        process.send(queue.popleft())
                    else:
                        running.remove(process)
                        process.stop()
                        running += [_Process(make)] if queue else []
        finally:
            for process in running:
                process.stop()


class _Process:
    """A worker in a process of its own, at first without a task and loading."""

    def __init__(self, make: Make) -> None:
        self.pipe, theirs = START.Pipe()
        self.process = START.Process(target=_serve, args=(theirs, make), daemon=True)
        self.process.start()
        theirs.close()  # so that its death is the end of the pipe
        self.key: str | None = None
        self.alive = True

    def send(self, task: Task) -> None:
        self.key = task.key
        with suppress(OSError):  # it died: receive() will tell
            self.pipe.send(task.item)

    def receive(self) -> Any:
        """Its answer, or None if it died over a task; SteerError if it couldn't even start."""
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self.alive = False
            self.process.join()
            if self.key is None:
                raise SteerError(
                    f"a worker died while it loaded the model (exit code {self.process.exitcode});"
                    " if memory is short, use fewer --workers"
                ) from None
            return None
        if self.key is None and answer is not None:
            raise answer
        return answer

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection, make: Make) -> None:
    """The life of a worker: None or an error once it is loaded, then an answer for each item."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which ends this process
    try:
        worker = make()
    except SteerError as error:
        pipe.send(error)
        return
    except Exception as error:
        reason = str(error).partition("\n")[0]
        pipe.send(SteerError(f"a worker can't start: {type(error).__name__}: {reason}"))
        return
    with suppress(EOFError, OSError):  # the parent has gone
        pipe.send(None)
        while True:
            pipe.send(worker(pipe.recv()))
