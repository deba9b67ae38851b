"""Engines on this machine: this process, or worker processes that may die without harm.

loky's executor doesn't replace this: a worker that dies breaks the whole pool and fails the tasks of all its
other workers, and what a worker raises while it loads never reaches the caller. Pools of one worker each
would confine a death, but loky also replaces a worker, model and all, once it has grown by 300 MB.
"""

import signal
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from threading import RLock
from typing import Any

from tqdm import tqdm

from ..errors import SteerError
from .engine import Make, Task

START = get_context("spawn")  # a fork of a process with running threads may hang
LOADING_TRIES = 3
"""workers that may die in a row while they load, before none takes a dead one's place"""
ENDING_SECONDS = 2.0
"""that all workers together have to end by themselves"""


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
        started = [_Process(make) for _ in range(min(self.workers, len(queue)))]
        running = started.copy()
        dead_loading, exit_code = 0, None  # how many died while they loaded, in a row
        try:
            while running:
                ready = set(wait([process.pipe for process in running]))
                for process in [process for process in running if process.pipe in ready]:
                    done, answer = process.key, process.receive()
                    if done is None:
                        dead_loading = 0 if process.alive else dead_loading + 1
                        exit_code = process.process.exitcode
                    elif process.alive:
                        yield done, answer
                    if process.alive and queue:
                        process.send(queue.popleft())
                        continue
                    running.remove(process)
                    process.let_go()
                    if queue and dead_loading < LOADING_TRIES:
                        started.append(_Process(make))
                        running.append(started[-1])
                    elif queue and running:
                        left = f"{len(running)} of {self.workers} workers are left"
                        warnings.warn(
                            f"{left}: {_died(dead_loading, exit_code)}", RuntimeWarning, stacklevel=2
                        )
            if queue:
                raise SteerError(
                    f"no worker is left: {_died(dead_loading, exit_code)}; the same command goes on"
                )
        finally:
            _end(started)


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
        """Its answer; None once it is loaded, and if it died. SteerError if it says that it can't load."""
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self.alive = False
            self.process.join()
            return None
        if self.key is None and answer is not None:
            raise answer
        return answer

    def let_go(self) -> None:
        """Without the pipe it ends by itself, when it has done what it is at."""
        self.pipe.close()


def _died(count: int, exit_code: int | None) -> str:
    """Why there are fewer workers than were asked for."""
    return (
        f"{count} in a row died while they loaded the model (exit code {exit_code});"
        " if memory is short, use fewer --workers"
    )


def _end(processes: Sequence[_Process]) -> None:
    """End workers, by force those that are still at work: one that is killed leaves its semaphores behind."""
    for process in processes:
        process.let_go()
    deadline = time.monotonic() + ENDING_SECONDS
    for process in processes:
        process.process.join(max(0.0, deadline - time.monotonic()))
        process.process.terminate()
        process.process.join()


def _serve(pipe: Connection, make: Make) -> None:
    """The life of a worker: None or an error once it is loaded, then an answer for each item."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which ends this process
    tqdm.set_lock(RLock())  # its own is a semaphore of the system's, which a killed process leaves behind
    with suppress(EOFError, OSError):  # the parent has let go, or is gone
        try:
            worker = make()
        except SteerError as error:
            pipe.send(error)
            return
        except Exception as error:
            reason = str(error).partition("\n")[0]
            pipe.send(SteerError(f"a worker can't start: {type(error).__name__}: {reason}"))
            return
        pipe.send(None)
        while True:
            pipe.send(worker(pipe.recv()))
