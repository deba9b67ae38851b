import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support import batch_workers as workers
from tests.support.paths import ROOT
from whisper_sae_steer.batch.choosing import add_arguments, choose
from whisper_sae_steer.batch.engine import TRIES, BatchEngine, Make, Task, answers
from whisper_sae_steer.batch.local import LOADING_TRIES, Processes, here
from whisper_sae_steer.errors import PackError, SteerError

NUMBERS = [Task(str(number), number) for number in range(20)]
DOUBLED = {str(number): 2 * number for number in range(20)}


@pytest.mark.parametrize("engine", [here, Processes(1), Processes(2)])
def test_every_task_gets_its_answer(engine: BatchEngine) -> None:
    found = list(answers(engine, workers.doubler, NUMBERS))
    assert len(found) == len(NUMBERS)
    assert dict(found) == DOUBLED
    assert list(answers(engine, workers.doubler, [])) == []


def test_a_dead_process_costs_only_the_task_that_kills_it_each_time(tmp_path: Path) -> None:
    tasks = [*NUMBERS[:5], Task("once", tmp_path / "once"), Task("always", tmp_path / "always"), *NUMBERS[5:]]
    found = list(answers(Processes(2), workers.doubler, tasks))
    assert len(found) == len(tasks)
    assert dict(found) == {**DOUBLED, "once": "survived", "always": None}


def test_answers_repeats_what_is_missing_and_drops_what_comes_twice() -> None:
    passes: list[tuple[list[str], bool]] = []

    def forgetful(make: Make, tasks: Sequence[Task], alone: bool) -> Iterator[tuple[str, Any]]:
        passes.append(([task.key for task in tasks], alone))
        worker = make()
        for task in tasks:
            if task.key == "7" or (task.key == "3" and len(passes) == 1):
                continue
            yield task.key, worker(task.item)
            yield task.key, "again"

    found = list(answers(forgetful, workers.doubler, NUMBERS))
    assert len(found) == len(NUMBERS)
    assert dict(found) == {**DOUBLED, "7": None}
    assert passes == [([task.key for task in NUMBERS], False), (["3", "7"], False), (["7"], True)]
    assert len(passes) == TRIES


def test_a_worker_that_cannot_start_is_an_error_and_not_a_row() -> None:
    with pytest.raises(PackError, match="no such pack"):
        list(answers(Processes(2), workers.broken, NUMBERS))
    said = r"no worker is left: \d in a row died while they loaded the model \(exit code 3\)"
    with pytest.warns(RuntimeWarning, match="1 of 2 workers"), pytest.raises(SteerError, match=said):
        list(answers(Processes(2), workers.dead_on_arrival, NUMBERS))


@pytest.mark.parametrize(("count", "alive"), [(1, LOADING_TRIES - 1), (2, 0), (2, LOADING_TRIES)])
@pytest.mark.filterwarnings("ignore:1 of 2 workers are left")
def test_workers_that_die_while_they_load_are_replaced_and_cost_no_task(
    count: int, alive: int, tmp_path: Path
) -> None:
    make = partial(workers.dead_on_arrival_but, alive, tmp_path)
    assert dict(answers(Processes(count), make, NUMBERS)) == DOUBLED
    assert len(list(tmp_path.iterdir())) < 10


def test_workers_end_by_themselves_and_leave_no_semaphores() -> None:
    """Of semaphores that a killed process leaves behind Python warns when the command ends."""
    code = (
        "from tests.support import batch_workers as workers\n"
        "from whisper_sae_steer.batch.engine import Task, answers\n"
        "from whisper_sae_steer.batch.local import LOADING_TRIES, Processes\n"
        "tasks = [Task(str(number), number) for number in range(9)]\n"
        "if __name__ == '__main__': print(len(list(answers(Processes(2), workers.with_a_lock, tasks))))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ended.stdout == "9\n"
    assert ended.stderr == ""


def parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser, "local")
    parser.set_defaults(device="cuda" if "ray" in argv else "auto", threads=0)
    return parser.parse_args(argv)


def test_choose_refuses_what_would_be_ignored_or_hang() -> None:
    assert choose(parsed("--workers", "0")) is here
    assert isinstance(choose(parsed()), Processes)
    for argv, match in (
        (["--engine", "ray", "--workers", "0"], "at least 1"),
        (["--address", "auto"], "for --engine ray"),
        (["--engine", "ray"], "--gpus 1"),
    ):
        with pytest.raises(SteerError, match=match):
            choose(parsed(*argv))
