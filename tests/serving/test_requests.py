"""What of a form reaches the model, and what is refused before anything waits for it."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.serving_parts import TRANSCRIBE, ModelAsTold, Serving, http, post, refusal, serving, wav
from whisper_sae_steer.serving.config import ServeConfig

CONFIG = ServeConfig(model="some-model", steer_alpha=0.5)


@pytest.fixture(scope="module")
def model() -> ModelAsTold:
    return ModelAsTold()


@pytest.fixture(scope="module")
def server(model: ModelAsTold) -> Iterator[Serving]:
    with serving(CONFIG, model) as started:
        yield started


def test_fields_reach_the_model(server: Serving, model: ModelAsTold) -> None:
    response = post(
        server,
        file=wav(3),
        language="German",
        prompt="names: Ada",
        temperature="0.4",
        steer_alpha="2",
        skip_gaps="false",
        response_format="verbose_json",
        **{"timestamp_granularities[]": "word"},
    )
    assert response.json()["task"] == "transcribe"
    assert "segments" not in response.json()
    assert response.json()["words"] == []
    assert model.lengths[-1] == 48_000
    assert model.calls[-1] == {
        "task": "transcribe",
        "language": "de",
        "initial_prompt": "names: Ada",
        "temperature": 0.4,
        "word_timestamps": True,
        "steer_alpha": 2.0,
        "skip_gaps": False,
        "filter_risk": None,
    }


def test_left_out_or_empty_fields_are_the_defaults(server: Serving, model: ModelAsTold) -> None:
    response = post(server, file=wav(2), language="", model="", temperature="")
    assert response.json()["text"] == "word0 word1"
    assert model.calls[-1] == {
        "task": "transcribe",
        "language": None,
        "initial_prompt": None,
        "temperature": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
        "word_timestamps": False,
        "steer_alpha": 0.5,
        "skip_gaps": True,
        "filter_risk": None,
    }


def test_translations_translate(server: Serving, model: ModelAsTold) -> None:
    files = {"file": ("a.wav", wav(1))}
    response = http.post(server.url + "/v1/audio/translations", files=files)
    assert response.json()["text"] == "word0"
    assert model.calls[-1]["task"] == "translate"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"response_format": "docx"}, "invalid_value", "response_format"),
        ({"language": "xx"}, "invalid_value", "language"),
        ({"language": "../../etc"}, "invalid_value", "language"),
        ({"temperature": "1.1"}, "invalid_value", "temperature"),
        ({"temperature": "-0.1"}, "invalid_value", "temperature"),
        ({"temperature": "nan"}, "invalid_value", "temperature"),
        ({"temperature": "warm"}, "invalid_value", "temperature"),
        ({"steer_alpha": "inf"}, "invalid_value", "steer_alpha"),
        ({"steer_alpha": "nan"}, "invalid_value", "steer_alpha"),
        ({"steer_alpha": "-1"}, "invalid_value", "steer_alpha"),
        ({"skip_gaps": "perhaps"}, "invalid_value", "skip_gaps"),
        ({"filter_risk": "high"}, "invalid_value", "filter_risk"),
        ({"filter_risk": "0"}, "invalid_value", "filter_risk"),
        ({"filter_risk": "1.1"}, "invalid_value", "filter_risk"),
        ({"filter_risk": "nan"}, "invalid_value", "filter_risk"),
        ({"filter_risk": "0.5"}, "invalid_value", "filter_risk"),  # nothing is steered, so nothing tells it
        ({"stream": "maybe"}, "invalid_value", "stream"),
        ({"stream": "true", "response_format": "srt"}, "invalid_value", "stream"),
        ({"timestamp_granularities[]": "word"}, "invalid_value", "timestamp_granularities[]"),
        (
            {"timestamp_granularities[]": "letter", "response_format": "verbose_json"},
            *("invalid_value", "timestamp_granularities"),
        ),
    ],
)
def test_values_that_make_no_sense_are_400(
    server: Serving, model: ModelAsTold, fields: dict[str, Any], code: str, param: str
) -> None:
    asked = len(model.calls)
    assert refusal(post(server, **fields)) == (400, code, param)
    assert len(model.calls) == asked


def test_a_model_that_is_not_there_is_404(server: Serving, model: ModelAsTold) -> None:
    asked = len(model.calls)
    assert refusal(post(server, model="gpt-5")) == (404, "model_not_found", "model")
    assert len(model.calls) == asked


def test_routes_that_are_not_there_answer_in_the_same_shape(server: Serving) -> None:
    assert refusal(http.get(server.url + "/v1/audio/speech"))[0] == 404
    assert refusal(http.get(server.url + TRANSCRIBE))[0] == 405


def test_an_error_nobody_foresaw_is_500_and_the_next_request_works(
    server: Serving, model: ModelAsTold, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(model, "transcribe", lambda *_, **__: 1 / 0)
        response = post(server)
    assert refusal(response) == (500, None, None)
    assert "division" not in response.text
    assert response.headers["x-request-id"]
    assert post(server).status_code == 200


def test_an_error_in_a_stream_is_told_as_an_event(server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    def segments(_: ModelAsTold, count: int) -> Iterator[Any]:
        yield from original(count)
        raise RuntimeError("out of memory")

    original = server.app.state.engine.model._segments
    monkeypatch.setattr(ModelAsTold, "_segments", segments)
    response = post(server, file=wav(1), stream="true")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    first, second = response.text.strip().split("\n\n")
    assert '"delta": "word0"' in first
    assert '"server_error"' in second
    assert "out of memory" not in second


def test_health(server: Serving) -> None:
    body = http.get(server.url + "/health").json()
    models = {"some-model": {"loaded": True, "queued": 0}}
    assert body == {"status": "ok", "ready": True, "model": "some-model", "queued": 0, "models": models}
    assert http.get(server.url + "/health/ready").status_code == 200


def test_metrics_name_no_path_that_a_client_made_up(server: Serving) -> None:
    http.get(server.url + "/v1/secret-of-mine")
    text = http.get(server.url + "/metrics").text
    assert "secret-of-mine" not in text
    assert 'whisper_requests_total{endpoint="other",status="404"}' in text
    assert 'whisper_queue_length{model="some-model"} 0.0' in text
    assert "process_resident_memory_bytes" in text
