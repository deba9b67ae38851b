"""docs/openai-api.md: its tables name every field of OpenAI's client, and each does what they say."""

import json
from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest
from openai.types.audio import transcription_create_params, translation_create_params

from tests.support.paths import ROOT
from tests.support.serving_parts import ModelAsTold, Serving, http, refusal, serving, wav
from whisper_sae_steer.serving.config import ServeConfig

PAGE = (ROOT / "docs" / "openai-api.md").read_text(encoding="utf-8")
ENDPOINTS = {
    "/v1/audio/transcriptions": transcription_create_params.TranscriptionCreateParamsStreaming,
    "/v1/audio/translations": translation_create_params.TranslationCreateParams,
}
SENT: dict[str, dict[str, Any]] = {
    "file": {},
    "model": {"model": "whisper-1"},
    "language": {"language": "de"},
    "prompt": {"prompt": "Ada"},
    "response_format": {"response_format": "verbose_json"},
    "temperature": {"temperature": "0.5"},
    "timestamp_granularities": {
        "timestamp_granularities[]": ["word", "segment"],
        "response_format": "verbose_json",
    },
    "stream": {"stream": "true"},
    "chunking_strategy": {"chunking_strategy": "auto"},
    "include": {"include[]": ["logprobs"]},
    "keywords": {"keywords[]": ["Ada"]},
    "languages": {"languages[]": ["de", "en"]},
    "known_speaker_names": {"known_speaker_names[]": ["Ada"]},
    "known_speaker_references": {"known_speaker_references[]": ["data:audio/wav;base64,AAAA"]},
    "steer_alpha": {"steer_alpha": "2"},
    "skip_gaps": {"skip_gaps": "false"},
    "filter_risk": {"filter_risk": "0.5"},
}
"""a value of each field that is not its default"""


def section(title: str) -> str:
    return PAGE.split(f"## `POST {title}`")[1].split("\n## ")[0]


def table(endpoint: str) -> dict[str, str]:
    """Fields and what the page says of them."""
    rows = [line.split("|")[1:3] for line in section(endpoint).splitlines() if line.startswith("| `")]
    return {field.strip(" `"): kind.strip() for field, kind in rows}


ROWS = [(endpoint, field, kind) for endpoint in ENDPOINTS for field, kind in table(endpoint).items()]


@pytest.fixture(scope="module")
def model() -> ModelAsTold:
    told = ModelAsTold()
    told.steerer = object()  # type: ignore[assignment]  # or filter_risk would be refused
    return told


@pytest.fixture(scope="module")
def server(model: ModelAsTold) -> Iterator[Serving]:
    with serving(ServeConfig(model="some-model"), model) as started:
        yield started


def ask(server: Serving, model: ModelAsTold, endpoint: str, fields: dict[str, Any]) -> tuple[str, Any]:
    """The answer, and what reached the model."""
    answer = http.post(server.url + endpoint, files={"file": ("a.wav", wav(2))}, data=fields)
    assert answer.status_code == 200, answer.text
    return answer.text, model.calls[-1]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_field_of_the_client_is_in_the_table(endpoint: str) -> None:
    theirs = set(get_type_hints(ENDPOINTS[endpoint]))
    rows = table(endpoint)
    assert {field for field, kind in rows.items() if kind != "extra"} == theirs
    assert set(rows) >= theirs


@pytest.mark.parametrize(("endpoint", "field", "kind"), ROWS)
def test_a_field_does_what_the_table_says(
    server: Serving, model: ModelAsTold, endpoint: str, field: str, kind: str
) -> None:
    plain = ask(server, model, endpoint, {})
    given = ask(server, model, endpoint, SENT[field])
    if kind == "ignored" or field in ("file", "model"):
        assert given == plain
    else:
        assert kind in ("taken", "extra")
        assert given != plain


def test_what_the_tables_say_is_refused(server: Serving) -> None:
    def refused(endpoint: str = "/v1/audio/transcriptions", file: bytes = wav(), **fields: Any) -> Any:
        return refusal(http.post(server.url + endpoint, files={"file": ("a.wav", file)}, data=fields))

    assert refused(response_format="diarized_json") == (400, "invalid_value", "response_format")
    word: dict[str, Any] = {"timestamp_granularities[]": "word"}
    assert refused(**word) == (400, "invalid_value", "timestamp_granularities[]")
    assert refused(model="gpt-transcribe") == (404, "model_not_found", "model")
    assert refused(file=b"no audio") == (415, "unsupported_media", "file")
    assert refused("/v1/audio/speech")[0] == 404


def test_events_and_models_have_the_fields_named(server: Serving, model: ModelAsTold) -> None:
    text, _ = ask(server, model, "/v1/audio/transcriptions", {"stream": "true"})
    *_, delta, done, end = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert {"type", "delta", "start", "end"} <= set(json.loads(delta))
    assert set(json.loads(done)) == {"type", "text", "usage"}
    assert end == "[DONE]"
    listed = http.get(server.url + "/v1/models").json()["data"][0]
    names = section_words("`GET /v1/models`")
    assert set(listed) <= names


def section_words(title: str) -> set[str]:
    """What stands in backticks in a section."""
    return set(PAGE.split(f"## {title}")[1].split("\n## ")[0].split("`")[1::2])
