"""The load and soak scripts against a server in this process, with tiny.en."""

import asyncio
import random
from typing import Any, NamedTuple, cast

import httpx
import pytest

from benchmarks.serving import load, soak, traffic
from benchmarks.serving.server import ServerProcess
from tests.support.serving_parts import ModelAsTold, Serving, serving, tiny
from whisper_sae_steer.serving.config import ServeConfig


class InThisProcess(NamedTuple):
    """In the place of a server process."""

    url: str
    resident: float = 1.0
    cpu_seconds: float = 0.0


def as_process(server: Serving) -> ServerProcess:
    return cast(ServerProcess, InThisProcess(server.url))


@pytest.fixture
def one_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sentence, at one strength, so that the known answers take a moment."""
    sentence = traffic.recordings()[:1]
    monkeypatch.setattr(traffic, "recordings", lambda: sentence)
    monkeypatch.setattr(traffic, "ALPHAS", (1.0,))
    monkeypatch.setattr(traffic, "SLOW_SECONDS", 0.2)
    monkeypatch.setattr(load, "SETTLE_SECONDS", 0.1)
    random.seed(0)


@pytest.mark.usefixtures("one_recording")
def test_every_request_is_counted_once_and_answers_are_right() -> None:
    with serving(ServeConfig(max_queue=4), tiny()) as server:
        figures = asyncio.run(load.load(as_process(server), requests=30))
    counted = figures["outcomes"]
    assert sum(sum(counts.values()) for counts in counted.values()) == 30
    assert any("200" in counts for counts in counted.values())
    assert figures["faults"] == 0
    assert figures["asked again afterwards"] == {"200": 1}


@pytest.mark.usefixtures("one_recording")
def test_a_soak_uses_every_kind_for_as_long_as_it_is_told() -> None:
    with serving(ServeConfig(), tiny()) as server:
        figures = asyncio.run(soak.soak(as_process(server), minutes=0.05, share=1.0))
    assert figures["requests"] > 0
    assert figures["faults"] == 0
    assert figures["slope"] is None


def test_a_wrong_answer_is_a_fault() -> None:
    sentence = traffic.recordings()[0]
    with serving(ServeConfig(model="some-model"), ModelAsTold()) as server:

        async def ask(kind: str, text: str) -> str:
            async with httpx.AsyncClient(base_url=server.url) as client:
                return await traffic.ask(client, kind, traffic.Case(sentence, 1.0, text))

        right = " ".join(f"word{n}" for n in range(len(sentence.samples) // 16_000))
        for kind in ("upload", "events"):
            assert asyncio.run(ask(kind, right)) == "200"
            assert asyncio.run(ask(kind, "something else")) == traffic.WRONG


@pytest.mark.parametrize(
    ("outcome", "is_fault"),
    [
        *(("200", False), ("429", False), ("415", False), ("1013", False), (traffic.GONE, False)),
        *(("500", True), (traffic.WRONG, True), ("ReadError", True), ("1011", True)),
    ],
)
def test_what_is_a_fault(outcome: str, is_fault: bool) -> None:
    assert traffic.is_fault(outcome) == is_fault


def test_figures() -> None:
    assert load.percentiles([]) == {}
    assert load.percentiles([float(n) for n in range(101)]) == pytest.approx(
        {"p50": 50, "p90": 90, "p99": 99, "p100": 100}
    )
    memory: list[Any] = [(minute / 6, 500 + 0.2 * minute / 6) for minute in range(240)]
    assert soak.slope(memory) == pytest.approx(2.0)
    cold = [(0.0, 400.0), (9.9, 450.0)]
    assert soak.slope([*cold, *memory[60:]]) == pytest.approx(2.0)
    assert soak.slope([*cold, *memory[60:61]]) is None
    assert soak.by_minute(memory, max)[:2] == pytest.approx([500.2, 500.4], abs=0.05)
