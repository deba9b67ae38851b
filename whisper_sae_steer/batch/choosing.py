"""Which engine a command uses: options for it, and the engine that they ask for."""

import argparse

from ..commands.common import Parser
from ..commands.extras import require
from ..commands.values import not_negative, whole
from ..errors import SteerError
from .engine import BatchEngine
from .local import Processes, here


def add_arguments(parser: Parser, default: str | None) -> None:
    """Give a parser the options that `choose` reads; `threads` comes from the command."""
    add = parser.add_argument
    add("--engine", choices=["local", "ray"], default=default, help="processes here, or actors on Ray")
    add(
        "--workers",
        type=whole(0),
        default=1,
        help="processes or actors, one model each; local 0: this process",
    )
    add("--address", help="of a running Ray cluster; one is started on this machine when left out")
    add(
        "--gpus",
        type=not_negative,
        default=0.0,
        help="GPUs that Ray reserves for a worker; 0.5: two share one",
    )


def choose(args: argparse.Namespace) -> BatchEngine:
    """The engine that parsed arguments ask for; SteerError if they contradict each other."""
    if args.workers < (args.engine == "ray"):
        raise SteerError(f"--workers {args.workers}: at least 1, or 0 for --engine local in this process")
    if args.engine == "local":
        if args.address or args.gpus:
            raise SteerError("--address and --gpus are for --engine ray")
        return Processes(args.workers) if args.workers else here
    if args.device == "cuda" and not args.gpus:
        raise SteerError("--engine ray hides GPUs from workers that reserve none; say --gpus 1")
    require("--engine ray", "ray")
    from .ray import RayActors

    return RayActors(args.workers, args.threads or 1, args.gpus, args.address)
