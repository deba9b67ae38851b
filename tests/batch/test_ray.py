import importlib.util
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pyarrow.parquet as pq
import pytest

from tests.support import batch_workers as workers
from tests.support.real_models import sample
from whisper_sae_steer.audio.clips import read_folder
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.batch.config import BatchConfig
from whisper_sae_steer.batch.engine import Make, Task, answers
from whisper_sae_steer.batch.job import transcribe_clips
from whisper_sae_steer.errors import SteerError

if importlib.util.find_spec("ray") is None:
    pytest.skip("needs Ray: pip install 'whisper-sae-steer[ray]'", allow_module_level=True)
if TYPE_CHECKING:
    from whisper_sae_steer.batch.ray import RayActors


@pytest.fixture(scope="module")
def engine() -> "Iterator[RayActors]":
    """Two actors on a cluster of their own, that the engine starts."""
    import ray
    from ray import cloudpickle

    from whisper_sae_steer.batch.ray import RayActors

    # actors are niced by default: beside other tests' processes they would starve
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    cloudpickle.register_pickle_by_value(workers)  # actors find no test modules
    yield RayActors(workers=2, cpus=1, gpus=0)
    ray.shutdown()


def actors() -> list[int]:
    """Processes of the actors that are alive."""
    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if child.name().startswith("ray::MapWorker")]


def test_every_clip_has_one_row_although_an_actor_is_killed(engine: "RayActors", tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for number in range(6):
        write_wav(tmp_path / "mine" / f"{number}.wav", sample("speech")[: 64000 + 1600 * number])
    (tmp_path / "mine" / "corrupt.wav").write_bytes(b"RIFF and nothing else")
    killed: list[int] = []

    def with_a_murder(make: Make, tasks: Sequence[Task], alone: bool) -> Iterator[tuple[str, Any]]:
        for answer in engine(make, tasks, alone):
            if not killed:
                killed.append(actors()[0])
                os.kill(killed[0], signal.SIGKILL)
            yield answer

    clips = read_folder(tmp_path / "mine", "speech")
    options = BatchConfig(model="tiny.en", compute_type="int8", device="cpu")
    outcome = transcribe_clips(clips, tmp_path / "out.parquet", options, with_a_murder, 1, progress=False)
    assert outcome[:3] == (7, 7, 1)
    assert killed
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert sorted(row["path"] for row in rows) == sorted(clip.key for clip in clips)
    errors = {row["path"]: row["error"] for row in rows if row["error"]}
    assert list(errors) == ["mine/corrupt.wav"]
    assert "AudioError" in errors["mine/corrupt.wav"]
    assert all("train" in row["text"].lower() for row in rows if not row["error"])


@pytest.mark.slow
def test_a_task_that_always_kills_its_actor_is_given_up(engine: "RayActors", tmp_path: Path) -> None:
    tasks = [Task(str(number), number) for number in range(70)]
    tasks[10] = Task("10", tmp_path / "once")
    tasks[40] = Task("40", tmp_path / "always")
    found = list(answers(engine, workers.doubler, tasks))
    assert len(found) == 70
    expected: dict[str, Any] = {str(number): 2 * number for number in range(70)}
    assert dict(found) == {**expected, "10": "survived", "40": None}


@pytest.mark.slow
def test_an_actor_that_cannot_start_is_an_error_and_not_a_row(engine: "RayActors") -> None:
    with pytest.raises(SteerError, match="no such pack"):
        list(answers(engine, workers.broken, [Task("1", 1)]))
