"""The engine on a Ray cluster: Ray Data hands tasks to actors, one worker each."""

import logging
import pickle
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError

from ..commands.cluster import join_or_start
from ..errors import SteerError
from .engine import Make, Task

OBJECT_STORE_BYTES = 100 << 20
"""bytes: names go in and text comes out, audio never passes through"""
BLOCK_TASKS = 8
"""tasks that travel together at most: Ray Data's own work is per block"""
SLAB_BLOCKS = 1000
"""blocks that Ray Data sees at a time, so that its memory doesn't grow with the job"""
RESTARTS = 100
"""of one actor in a pass: with Ray's own choice, no end, models that don't fit in memory load forever"""


class RayActors:
    """The engine of `workers` actors, each of which reserves `cpus` and `gpus` of the cluster."""

    def __init__(self, workers: int, cpus: int, gpus: float, address: str | None = None) -> None:
        self.workers = workers
        self.cpus = cpus
        self.gpus = gpus
        self.address = address

    def __call__(self, make: Make, tasks: Sequence[Task], alone: bool) -> Iterator[tuple[str, Any]]:
        if not ray.is_initialized():
            cpus, gpus = self.workers * self.cpus, self.workers * self.gpus
            join_or_start(self.address, cpus, gpus, OBJECT_STORE_BYTES)
        _quiet()
        # blocks as large as leaves each actor many of them, or the last ones would work alone
        size = max(1, min(BLOCK_TASKS, len(tasks) // (16 * self.workers)))
        # a dying actor takes along what waits for it: alone means an actor that sees nothing else
        slab = 1 if alone else size * SLAB_BLOCKS
        for start in range(0, len(tasks), slab):
            yield from self._run(make, tasks[start : start + slab], size)

    def _run(self, make: Make, tasks: Sequence[Task], size: int) -> Iterator[tuple[str, Any]]:
        items = [{"key": task.key, "item": pickle.dumps(task.item)} for task in tasks]
        blocks = ray.data.from_items(items, override_num_blocks=-(-len(items) // size))
        # one block waits at each actor
        pool = ray.data.ActorPoolStrategy(size=min(self.workers, len(items)), max_tasks_in_flight_per_actor=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # max_… are deprecated, but nothing else says the same
            done = blocks.map_batches(
                _Actor,
                fn_constructor_args=(make,),
                batch_size=size,
                batch_format="pyarrow",
                compute=pool,
                num_cpus=self.cpus,
                num_gpus=self.gpus,
                max_restarts=RESTARTS,
                max_task_retries=0,  # the next pass tries again, not Ray without end
            )
        try:
            # no prefetching: it would hold answers back
            for batch in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for row in cast(pa.Table, batch).to_pylist():
                    yield row["key"], pickle.loads(row["answer"])
        except RayError as error:
            reason = str(error).strip().rpartition("\n")[2]
            raise SteerError(f"a Ray worker can't start: {reason}") from error


class _Actor:
    """A worker as Ray Data calls it: columns in, columns out."""

    def __init__(self, make: Make) -> None:
        self.worker = make()

    def __call__(self, batch: pa.Table) -> pa.Table:
        found = [pickle.dumps(self.worker(pickle.loads(item))) for item in batch["item"].to_pylist()]
        return pa.table({"key": batch["key"], "answer": pa.array(found, pa.binary())})


def _quiet() -> None:
    """Let dead actors cost their blocks and not the job, and leave the terminal to our own bar."""
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
