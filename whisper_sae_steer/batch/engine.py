"""What an engine is, and how every task gets exactly one answer although workers die."""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

TRIES = 3
"""times that a task may kill its worker before it is given up"""
GIVEN_UP = f"its worker died at each of {TRIES} tries: too little memory, or a crash while decoding"

Worker = Callable[[Any], Any]
"""Turns the item of a task into its answer and never raises: one steered model each."""
Make = Callable[[], Worker]
"""Makes a worker, in the worker's own process; can be pickled."""


class Task(NamedTuple):
    """A piece of work that can be pickled, under a key that no other task of the job has."""

    key: str
    item: Any


class BatchEngine(Protocol):
    """Runs one pass over tasks on workers of some sort."""

    def __call__(self, make: Make, tasks: Sequence[Task], alone: bool) -> Iterator[tuple[str, Any]]:
        """Keys and answers as they come, in any order; none for a task whose worker died.

        `alone`: no task may share the fate of another, whatever that costs. SteerError if no worker
        can be made.
        """
        ...


def answers(engine: BatchEngine, make: Make, tasks: Sequence[Task]) -> Generator[tuple[str, Any]]:
    """Exactly one answer a task, as they come; None for one whose worker died TRIES times."""
    left = {task.key: task for task in tasks}
    for attempt in range(TRIES):
        if not left:
            return
        for key, answer in engine(make, list(left.values()), attempt == TRIES - 1):
            if left.pop(key, None) is not None:  # a cluster may repeat what it did already
                yield key, answer
    yield from ((key, None) for key in left)
