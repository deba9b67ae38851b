"""What goes wrong inside the server: the request is told, and the server goes on."""

import resource
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.serving_parts import ModelAsTold, Serving, http, post, refusal, serving, until, wav
from whisper_sae_steer.serving.config import ServeConfig


class FailingModel(ModelAsTold):
    """Raises what it is told to, once."""

    failure: BaseException | None = None
    after = 0

    def _segments(self, count: int) -> Iterator[Any]:
        for number, segment in enumerate(super()._segments(count)):
            if self.failure is not None and number == self.after:
                failure, self.failure = self.failure, None
                raise failure
            yield segment


@pytest.fixture(scope="module")
def model() -> FailingModel:
    return FailingModel()


@pytest.fixture(scope="module")
def server(model: FailingModel) -> Iterator[Serving]:
    with serving(ServeConfig(model="some-model"), model) as started:
        yield started


@pytest.fixture(autouse=True)
def goes_on(server: Serving) -> Iterator[None]:
    """After each test nothing is taken, and the next request is answered."""
    yield
    until(lambda: server.app.state.engine.uploads.taken == server.app.state.engine._jobs.taken == 0)
    assert post(server, wav(3)).json()["text"] == "word0 word1 word2"


@pytest.mark.parametrize("failure", [MemoryError(), SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_a_job_that_ends_its_thread_costs_its_own_request(
    server: Serving, model: FailingModel, failure: BaseException
) -> None:
    model.failure = failure
    response = post(server, wav(3))
    assert refusal(response) == (500, None, None)
    assert response.json()["error"]["type"] == "server_error"


def test_a_stream_whose_job_ends_its_thread_says_that_it_broke_off(
    server: Serving, model: FailingModel
) -> None:
    model.failure, model.after = SystemExit(1), 1
    text = post(server, wav(3), stream="true").text
    model.after = 0
    assert "word0" in text
    assert '"type": "server_error"' in text
    assert "[DONE]" not in text


def test_a_disk_that_is_full_is_told_and_holds_nothing(server: Serving) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, hard))
    try:
        assert refusal(post(server, wav(120))) == (507, "no_room", "file")
        assert post(server, wav(1)).status_code == 200  # small files stay in memory
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert http.get(server.url + "/health").json()["ready"]
