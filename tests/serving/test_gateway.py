"""What clients get when replicas die, with replicas that die as told."""

import asyncio
import json
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from starlette.types import ASGIApp, Message
from websockets.sync.client import connect

from tests.support.serving_parts import (
    ModelAsTold,
    Serving,
    http,
    multipart,
    open_request,
    post,
    refusal,
    running,
    until,
    wav,
)
from whisper_sae_steer.serving.app import create_app
from whisper_sae_steer.serving.config import ServeConfig
from whisper_sae_steer.serving.forwarding import Forwarded, Lost, Unavailable, answer_of
from whisper_sae_steer.serving.gateway import TRIES, create_gateway

CONFIG = ServeConfig(model="some-model", max_uploads=2)


class Replicas:
    """One application in the place of many; ``deaths``: after how many messages a request is lost."""

    def __init__(self, app: ASGIApp, *deaths: int):
        self.app, self.deaths, self.asked = app, list(deaths), list[Forwarded]()
        self.ended = 0

    async def ask(self, request: Forwarded) -> AsyncGenerator[Message]:
        self.asked.append(request)
        left = self.deaths.pop(0) if self.deaths else 10**9
        try:
            async for message in answer_of(self.app, request):
                if not left:
                    raise Lost("killed")
                left -= 1
                yield message
        finally:
            self.ended += 1


@contextmanager
def gateway(
    *deaths: int, config: ServeConfig = CONFIG, model: Any = None
) -> Generator[tuple[Serving, Replicas]]:
    app = create_app(config, cast(Any, model or ModelAsTold()))
    replicas = Replicas(app, *deaths)

    async def count() -> int:
        return 2 - len(replicas.deaths)

    front = create_gateway(config, replicas.ask, count)
    # the application's own start, which a replica sees to
    front.router.lifespan_context = lambda _: app.router.lifespan_context(app)  # type: ignore[assignment]
    with running(front) as server:
        yield server, replicas


@pytest.mark.parametrize("form", ["json", "srt", "verbose_json"])
@pytest.mark.parametrize("after", [0, 1])
def test_a_request_whose_replica_dies_is_answered_by_another(form: str, after: int) -> None:
    with gateway() as (server, _):
        undisturbed = post(server, wav(2), response_format=form)
    with gateway(after, after) as (server, replicas):
        answer = post(server, wav(2), response_format=form)
    assert answer.status_code == 200
    assert answer.text == undisturbed.text
    assert answer.headers["content-type"] == undisturbed.headers["content-type"]
    assert len(replicas.asked) == 3
    assert len({request.body for request in replicas.asked}) == 1


def test_one_that_loses_every_replica_is_given_up() -> None:
    with gateway(*[0] * TRIES) as (server, replicas):
        answer = post(server)
        assert refusal(answer) == (503, "no_replica", None)
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert len(replicas.asked) == TRIES
        assert post(server).status_code == 200


def test_a_stream_that_has_begun_ends_with_an_error_and_not_with_a_second_text() -> None:
    with gateway(2) as (server, replicas):  # the head and an event
        answer = post(server, wav(3), stream="true")
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    assert [event.get("delta") for event in events] == ["word0", None]
    assert events[-1]["error"]["code"] == "no_replica"
    assert len(replicas.asked) == 1


def test_refusals_of_a_replica_pass_through() -> None:
    with gateway() as (server, replicas):
        assert refusal(post(server, temperature="2")) == (400, "invalid_value", "temperature")
        assert refusal(post(server, model="gpt-5")) == (404, "model_not_found", "model")
        assert http.get(server.url + "/v1/models").json()["data"][0]["id"] == "some-model"
        assert http.get(server.url + "/").headers["content-type"].startswith("text/html")
        assert len(replicas.asked) == 4


def test_no_replica_in_time_is_503() -> None:
    async def ask(_: Forwarded) -> AsyncGenerator[Message]:
        raise Unavailable("no replica took the request")
        yield {}

    async def none() -> int:
        return 0

    with running(create_gateway(CONFIG, ask, none)) as server:
        assert refusal(post(server)) == (503, "no_replica", None)
        assert http.get(server.url + "/health").json() == {"status": "ok", "ready": False, "replicas": 0}
        assert http.get(server.url + "/health/ready").status_code == 503


def test_what_is_held_is_bounded_and_a_client_that_goes_frees_its_place() -> None:
    model = ModelAsTold(blocks=True)
    with gateway(model=model) as (server, replicas):
        head, body = multipart(wav(5))
        held = [open_request(server, head, body) for _ in range(CONFIG.max_uploads)]
        until(lambda: len(replicas.asked) == CONFIG.max_uploads)
        assert refusal(post(server)) == (429, "server_busy", None)
        assert http.get(server.url + "/health/ready").status_code == 503
        for connection in held:
            connection.close()
        until(lambda: replicas.ended == CONFIG.max_uploads)
        model.go.release(100)
        assert post(server).status_code == 200


def test_uploads_have_the_servers_limits_and_its_key() -> None:
    config = ServeConfig(model="some-model", max_upload_bytes=1000, api_key="sesame", upload_timeout=0.5)
    key = "Authorization: Bearer sesame\r\n"
    with gateway(config=config) as (server, replicas):
        assert refusal(post(server)) == (401, "invalid_api_key", None)
        answer = http.post(server.url + "/v1/audio/transcriptions", content=bytes(100_000), headers=headers())
        assert refusal(answer) == (413, "file_too_large", "file")
        slow = open_request(server, key + "Content-Length: 900\r\n", bytes(10))
        assert b"408" in slow.recv(100)
        assert not replicas.asked
        assert http.get(server.url + "/metrics").status_code == 401
        assert "whisper_requests_total" in http.get(server.url + "/metrics", headers=headers()).text


def headers() -> dict[str, str]:
    return {"Authorization": "Bearer sesame"}


def test_live_audio_is_refused_in_words() -> None:
    with gateway() as (server, _), connect(server.url.replace("http", "ws") + "/v1/audio/stream") as socket:
        assert "--engine local" in json.loads(socket.recv())["message"]


def test_an_answer_that_is_closed_ends_its_work() -> None:
    ended = asyncio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
            await send({"type": "http.response.start"})
            await receive()
        finally:
            ended.set()

    async def ask() -> None:
        messages = answer_of(endless, Forwarded({}, b""))
        assert (await anext(messages))["type"] == "http.response.start"
        await messages.aclose()
        await asyncio.wait_for(ended.wait(), 5)

    asyncio.run(ask())
