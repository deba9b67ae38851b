"""A Ray cluster of two replicas with real weights, of which one is killed under load."""

import importlib.util
import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from tests.support.real_models import SAMPLES, sample
from tests.support.serving_parts import TRANSCRIBE, Serving, refusal, running, tiny, until
from whisper_sae_steer.errors import SteerError
from whisper_sae_steer.serving.config import ReplicaConfig, ServeConfig

if importlib.util.find_spec("ray") is None:
    pytest.skip("needs Ray: pip install 'whisper-sae-steer[ray]'", allow_module_level=True)
pytestmark = pytest.mark.slow

CONFIG = ServeConfig(model="tiny.en", compute_type="int8", device="cpu", cpu_threads=1)
SPEECH = (SAMPLES / "speech.ogg").read_bytes()
patient = httpx.Client(timeout=300, limits=httpx.Limits(max_connections=None))


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    import ray

    from whisper_sae_steer.serving.replicas import served_by_replicas

    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    with served_by_replicas(CONFIG, ReplicaConfig(engine="ray", replicas=2)) as app, running(app) as started:
        yield started
    ray.shutdown()


@pytest.fixture(scope="module")
def text() -> str:
    """What the library itself writes."""
    segments, _ = tiny().transcribe(sample("speech"), language="en")
    return "".join(segment.text for segment in segments).strip()


def ask(server: Serving, **fields: Any) -> httpx.Response:
    files = {"file": ("a.ogg", SPEECH)}
    return patient.post(server.url + TRANSCRIBE, files=files, data={"language": "en", **fields})


def replicas() -> list[int]:
    """Their processes."""
    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if child.name().startswith("ray::ServeRepl")]


def ready(server: Serving) -> int:
    return patient.get(server.url + "/health").json()["replicas"]


def judge(answers: list[httpx.Response], text: str) -> Counter[int]:
    """How many have which status; each is right, or a refusal that says when to come back."""
    for answer in answers:
        if answer.status_code == 200:
            assert answer.json()["text"] == text
        else:
            assert refusal(answer)[0] == 503
            assert int(answer.headers["retry-after"]) > 0
    return Counter(answer.status_code for answer in answers)


def load(server: Serving, pool: ThreadPoolExecutor, requests: int) -> list[Future[httpx.Response]]:
    """Requests that have been answered in part."""
    asked = [pool.submit(ask, server) for _ in range(requests)]
    until(lambda: sum(future.done() for future in asked) >= 4, 120)
    return asked


def test_a_replica_killed_under_load_costs_no_answer(server: Serving, text: str) -> None:
    assert len(replicas()) == 2
    with ThreadPoolExecutor(8) as pool:
        asked = load(server, pool, 24)
        os.kill(replicas()[0], signal.SIGKILL)
        found = judge([future.result() for future in asked], text)
    print(found)
    assert found == {200: 24}  # one replica is left: nothing has to be refused
    until(lambda: ready(server) == 2, 120)


def test_all_replicas_killed_under_load_answer_right_or_503(server: Serving, text: str) -> None:
    until(lambda: ready(server) == 2, 120)
    with ThreadPoolExecutor(8) as pool:
        asked = load(server, pool, 16)
        for process in replicas():
            os.kill(process, signal.SIGKILL)
        found = judge([future.result() for future in asked], text)
    print(found)
    assert found.total() == 16
    until(lambda: ready(server) == 2, 120)
    assert ask(server).json()["text"] == text


def test_a_stream_and_what_a_replica_refuses(server: Serving, text: str) -> None:
    until(lambda: ready(server) == 2, 120)
    events = ask(server, stream="true").text
    assert events.rstrip().endswith("data: [DONE]")
    assert text in events
    assert refusal(ask(server, model="gpt-5")) == (404, "model_not_found", "model")
    models = patient.get(server.url + "/v1/models").json()["data"]
    assert [model["id"] for model in models] == ["tiny.en", "whisper-1"]


def test_replicas_that_can_not_start_are_one_line(server: Serving) -> None:
    from whisper_sae_steer.serving.replicas import served_by_replicas

    del server  # its cluster
    broken = ServeConfig(model="no-such-model", device="cpu")
    with (
        pytest.raises(SteerError, match="no-such-model"),
        served_by_replicas(broken, ReplicaConfig(engine="ray")),
    ):
        pass
