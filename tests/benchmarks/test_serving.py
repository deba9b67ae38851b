"""The load script against a server that refuses most of it."""

import asyncio
from typing import Any

import pytest

from benchmarks.speed import serving as module
from tests.support.serving_parts import ModelAsTold, serving, wav
from whisper_sae_steer.serving.config import ServeConfig


def test_every_request_is_counted_once(tmp_path: Any) -> None:
    (tmp_path / "a.wav").write_bytes(wav(1))
    model = ModelAsTold()
    config = ServeConfig(model="some-model", max_queue=1)
    with serving(config, model) as server:
        figures = asyncio.run(module.load(server.url, tmp_path / "a.wav", requests=30, at_once=30))
    assert sum(figures["answers"].values()) == 30
    assert set(figures["answers"]) <= {"200", "429"}
    assert figures["answers"]["200"] == len(model.calls) >= 2
    assert 0 < figures["memory"]["before"] <= figures["memory"]["highest"]


def test_percentiles() -> None:
    assert module.percentiles([]) == {}
    assert module.percentiles([float(n) for n in range(101)]) == pytest.approx(
        {"p50": 50, "p90": 90, "p99": 99, "p100": 100}
    )
