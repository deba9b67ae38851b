"""Several models behind one server: loaded on demand, once, unloaded when idle, and none in another's way."""

import argparse
import json
import threading
import weakref
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.real_models import SAMPLES, sample
from tests.support.serving_parts import ModelAsTold, Serving, http, post, refusal, serving, tiny, until, wav
from whisper_sae_steer.errors import ConfigError, WeightsError
from whisper_sae_steer.serving import command, fleet
from whisper_sae_steer.serving.app import create_app
from whisper_sae_steer.serving.config import ServeConfig
from whisper_sae_steer.serving.fleet import Fleet
from whisper_sae_steer.serving.metrics import Metrics
from whisper_sae_steer.serving.model import load_model

CONFIG = ServeConfig(model="first", further_models=("second",), max_queue=4)


class Loader:
    """In the place of loading: gives a model as told, or fails, once the test lets it."""

    def __init__(self, blocks: bool = False, model_blocks: bool = False):
        self.go = threading.Semaphore(0 if blocks else 10**9)
        self.model_blocks = model_blocks
        self.loaded: list[ServeConfig] = []
        self.models: list[weakref.ref[ModelAsTold]] = []
        self.failure: Exception | None = None

    def __call__(self, config: ServeConfig) -> ModelAsTold:
        self.loaded.append(config)
        self.go.acquire()
        if self.failure is not None:
            raise self.failure
        model = ModelAsTold(blocks=self.model_blocks)
        self.models.append(weakref.ref(model))
        return model


@contextmanager
def two_models(
    monkeypatch: pytest.MonkeyPatch, loader: Any, first: Any = None, config: ServeConfig = CONFIG
) -> Generator[Serving]:
    monkeypatch.setattr(fleet, "load_model", loader)
    first = first or ModelAsTold()
    with serving(config, first) as server:
        try:
            yield server
        finally:
            for model in (first, *(ref() for ref in getattr(loader, "models", ()))):
                if isinstance(model, ModelAsTold):
                    model.go.release(10**6)


def is_loaded(server: Serving, name: str) -> bool:
    return http.get(f"{server.url}/v1/models/{name}").json()["loaded"]


def live(server: Serving, options: dict[str, Any]) -> ClientConnection:
    connection = connect(server.url.replace("http", "ws", 1) + "/v1/audio/stream")
    connection.send(json.dumps(options))
    return connection


# --- real weights --------------------------------------------------------------------------------


def test_a_further_model_is_loaded_when_named_and_its_memory_given_back_when_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models: list[weakref.ref[Any]] = []

    def load(config: ServeConfig) -> Any:
        model = load_model(config)
        models.append(weakref.ref(model))
        models.append(weakref.ref(model.steerer))
        return model

    config = ServeConfig(
        model="tiny.en", further_models=("base",), compute_type="int8", cpu_threads=1, idle_unload=1
    )
    with two_models(monkeypatch, load, tiny(), config) as server:
        client = openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0)

        def tokens(model: str) -> list[int]:
            with (SAMPLES / "speech.ogg").open("rb") as file:
                answer = client.audio.transcriptions.create(
                    file=file, model=model, language="en", response_format="verbose_json"
                )
            return [token for segment in answer.segments or () for token in segment.tokens]

        assert [model.id for model in client.models.list()] == ["tiny.en", "whisper-1", "base"]
        assert [is_loaded(server, name) for name in ("tiny.en", "base")] == [True, False]
        library = load_model(ServeConfig(model="base", compute_type="int8", cpu_threads=1))
        expected = [t for s in library.transcribe(sample("speech"), language="en")[0] for t in s.tokens]
        assert tokens("base") == expected
        assert tokens("whisper-1") == tokens("tiny.en") != expected
        registry = server.app.state.fleet.metrics.registry
        assert registry.get_sample_value("whisper_audio_seconds_total", {"model": "base"}) == 10
        assert registry.get_sample_value("whisper_audio_seconds_total", {"model": "tiny.en"}) == 20
        until(lambda: not is_loaded(server, "base"))
        until(lambda: [ref() for ref in models] == [None, None])
        assert tokens("base") == expected
        assert len(models) == 4
        assert is_loaded(server, "tiny.en")


def test_a_live_session_names_its_model_and_keeps_it_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ServeConfig(model="first", further_models=("tiny.en",), idle_unload=0.2)
    with two_models(monkeypatch, lambda _: tiny(), config=config) as server:
        until(lambda: not is_loaded(server, "tiny.en"))
        with live(server, {"model": "tiny.en"}) as connection:
            assert json.loads(connection.recv())["model"] == "tiny.en"
            engine = server.app.state.fleet.names["tiny.en"].engine
            threading.Event().wait(0.8)  # nothing is done meanwhile
            assert server.app.state.fleet.names["tiny.en"].engine is engine
            connection.send((sample("speech") * 32767).astype("<i2").tobytes())
            connection.send('{"type": "end"}')
            messages = [json.loads(message) for message in connection]
        final = "".join(segment["text"] for message in messages for segment in message["final"])
        assert "The train to the coast" in final
        until(lambda: not is_loaded(server, "tiny.en"))


# --- loading -------------------------------------------------------------------------------------


def test_it_is_loaded_once_for_all_who_ask_while_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = Loader(blocks=True)
    with two_models(monkeypatch, loader) as server, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(post, server, model="second") for _ in range(3)]
        until(lambda: http.get(server.url + "/health").json()["models"]["second"]["queued"] == 3)
        assert post(server).json()["text"] == "word0"
        assert post(server, model="first").status_code == 200
        # as many wait as its queue may hold: two and a worker's
        refused = post(server, model="second")
        assert refusal(refused) == (429, "server_busy", None)
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert not any(future.done() for future in asked)
        loader.go.release()
        assert [future.result().status_code for future in asked] == [200] * 3
    assert [(config.model, config.further_models, config.max_queue) for config in loader.loaded] == [
        ("second", (), 2)
    ]


@pytest.mark.parametrize("failure", [WeightsError("no /secret/path"), RuntimeError("CUDA out of memory")])
def test_a_model_that_can_not_be_loaded_is_503_and_the_server_goes_on(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    loader = Loader(blocks=True)
    loader.failure = failure
    with two_models(monkeypatch, loader) as server, ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(post, server, model="second") for _ in range(2)]
        until(lambda: server.app.state.fleet.queued == 2)
        loader.go.release()
        for answer in (future.result() for future in asked):
            assert refusal(answer) == (503, "model_unavailable", "model")
            assert answer.headers["retry-after"] == "10"
            assert str(failure) not in answer.text
        assert len(loader.loaded) == 1
        assert post(server).status_code == 200
        loader.go.release()
        with live(server, {"model": "second"}) as connection:
            assert "can't be loaded" in json.loads(connection.recv())["message"]
            with pytest.raises(ConnectionClosed) as closed:
                connection.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013
        loader.failure = None
        loader.go.release()
        assert post(server, model="second").json()["text"] == "word0"


def test_what_makes_no_sense_is_refused_without_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = Loader()
    with two_models(monkeypatch, loader) as server:
        assert refusal(post(server, model="third")) == (404, "model_not_found", "model")
        assert refusal(post(server, model="second", temperature="2"))[0] == 400
        assert refusal(post(server, b"", model="second"))[0] == 400
        answer = http.get(server.url + "/v1/models/third")
        assert refusal(answer) == (404, "model_not_found", "model")
        with live(server, {"model": "third"}) as connection:
            assert "third" in json.loads(connection.recv())["message"]
        assert not loader.loaded
        files = {"file": ("a.wav", wav())}
        answer = http.post(server.url + "/v1/audio/timeline", files=files, data={"model": "second"})
        assert answer.status_code == 409  # without a pack
        assert len(loader.loaded) == 1


# --- the queue -----------------------------------------------------------------------------------


@pytest.mark.parametrize("flooded", ["first", "second"])
def test_a_flood_for_one_model_leaves_the_other_free(monkeypatch: pytest.MonkeyPatch, flooded: str) -> None:
    loader = Loader(model_blocks=flooded == "second")
    first = ModelAsTold(blocks=flooded == "first")
    (other,) = {"first", "second"} - {flooded}
    with two_models(monkeypatch, loader, first) as server, ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(post, server, model=flooded) for _ in range(30)]
        until(lambda: sum(future.done() for future in asked) == 27)
        assert {refusal(f.result()) for f in asked if f.done()} == {(429, "server_busy", None)}
        assert http.get(server.url + "/health").json()["ready"] is True
        assert [post(server, model=other).json()["text"] for _ in range(5)] == ["word0"] * 5
        (first if flooded == "first" else loader.models[0]()).go.release(3)  # type: ignore[union-attr]
        assert sorted(future.result().status_code for future in asked) == [200] * 3 + [429] * 27
        text = http.get(server.url + "/metrics").text
        assert f'whisper_queue_length{{model="{flooded}"}} 0.0' in text
        assert 'whisper_model_loaded{model="second"} 1.0' in text


# --- unloading -----------------------------------------------------------------------------------


def test_a_model_at_work_is_not_unloaded_and_an_idle_one_leaves_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loader = Loader(model_blocks=True)
    config = ServeConfig(model="first", further_models=("second",), idle_unload=0.1)
    threads = threading.active_count()
    with two_models(monkeypatch, loader, config=config) as server, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(post, server, model="second")
        until(lambda: is_loaded(server, "second"))
        threading.Event().wait(0.5)
        assert is_loaded(server, "second")
        loader.models[0]().go.release()  # type: ignore[union-attr]
        assert asked.result().status_code == 200
        until(lambda: not is_loaded(server, "second"))
        until(lambda: loader.models[0]() is None)
        assert is_loaded(server, "first")
    until(lambda: threading.active_count() <= threads)


def test_0_keeps_what_was_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ServeConfig(model="first", further_models=("second",), idle_unload=0)
    with two_models(monkeypatch, Loader(), config=config) as server:
        assert post(server, model="second").status_code == 200
        server.app.state.fleet.names["second"].engine.last_used -= 10**6
        threading.Event().wait(0.2)
        assert is_loaded(server, "second")


# --- options -------------------------------------------------------------------------------------


def test_options_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    argv = ["--model", "base", "tiny.en", "small", "--device_index", "0", "1", "--workers", "2"]
    args = parser.parse_args(argv)
    made: list[ServeConfig] = []
    monkeypatch.setattr("whisper_sae_steer.serving.app.create_app", lambda config, _: made.append(config))
    monkeypatch.setattr("whisper_sae_steer.serving.model.load_model", lambda _: None)
    monkeypatch.setattr("whisper_sae_steer.serving.logs.configure", lambda: None)
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: None)
    assert command.main(args) == 0
    (config,) = made
    assert (config.model, config.further_models) == ("base", ("tiny.en", "small"))
    assert config.device_index == (0, 1)
    assert (config.workers_of_a_model, config.jobs_of_a_model) == (4, 36)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"further_models": ("some-model",)}, "two models would be called some-model"),
        ({"further_models": ("whisper-1",)}, "two models would be called whisper-1"),
        ({"further_models": ("base",), "pack": "my.safetensors"}, "is for one model"),
        ({"device_index": (-1,)}, "device_index"),
        ({"idle_unload": float("nan")}, "idle_unload"),
    ],
)
def test_models_that_can_not_be_told_apart_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        create_app(ServeConfig(model="some-model", **options))


def test_an_alias_that_is_the_models_own_name_is_none() -> None:
    config = ServeConfig(model="some-model", aliases=("some-model", "a", "a"))
    assert list(Fleet(config, Metrics()).names) == ["some-model", "a"]
