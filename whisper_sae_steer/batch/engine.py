"""What an engine is, and how every task gets exactly one answer although workers die."""

import argparse
from argparse import _ArgumentGroup as Group  # pyright: ignore[reportPrivateUsage]
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from ..errors import SteerError

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


class Engine(Protocol):
    """Runs one pass over tasks on workers of some sort."""

    def __call__(self, make: Make, tasks: Sequence[Task], alone: bool) -> Iterator[tuple[str, Any]]:
        """Keys and answers as they come, in any order; none for a task whose worker died.

        `alone`: no task may share the fate of another, whatever that costs. SteerError if no worker
        can be made.
        """
        ...


def answers(engine: Engine, make: Make, tasks: Sequence[Task]) -> Generator[tuple[str, Any]]:
    """Exactly one answer a task, as they come; None for one whose worker died TRIES times."""
    left = {task.key: task for task in tasks}
    for attempt in range(TRIES):
        if not left:
            return
        for key, answer in engine(make, list(left.values()), attempt == TRIES - 1):
            if left.pop(key, None) is not None:  # a cluster may repeat what it did already
                yield key, answer
    yield from ((key, None) for key in left)


def add_arguments(parser: argparse.ArgumentParser | Group, default: str | None) -> None:
    """Give a parser the options that `choose` reads; `threads` comes from the command."""
    add = parser.add_argument
    add("--engine", choices=["local", "ray"], default=default, help="processes here, or actors on Ray")
    add("--workers", type=int, default=1, help="processes or actors, one model each; local 0: this process")
    add("--address", help="of a running Ray cluster; one is started on this machine when left out")
    add("--gpus", type=float, default=0.0, help="GPUs that Ray reserves for a worker; 0.5: two share one")


def choose(args: argparse.Namespace) -> Engine:
    """The engine that parsed arguments ask for; SteerError if they contradict each other."""
    if args.workers < (args.engine == "ray"):
        raise SteerError(f"--workers {args.workers}: at least 1, or 0 for --engine local in this process")
    if args.engine == "local":
        from .local import Processes, here

        if args.address or args.gpus:
            raise SteerError("--address and --gpus are for --engine ray")
        return Processes(args.workers) if args.workers else here
    if args.gpus < 0 or (args.device == "cuda" and not args.gpus):
        raise SteerError("--engine ray hides GPUs from workers that reserve none; say --gpus 1")
    try:
        from .ray import RayActors
    except ModuleNotFoundError as error:
        raise SteerError("--engine ray needs Ray: pip install 'whisper-sae-steer[ray]'") from error
    return RayActors(args.workers, args.threads or 1, args.gpus, args.address)
