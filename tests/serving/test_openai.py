"""The server as OpenAI's own client sees it, with tiny.en and the sample recordings."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from whisper.utils import WriteSRT, WriteVTT

from tests.support.real_models import SAMPLES, sample, saved, vector_pack
from tests.support.serving_parts import Serving, serving, tiny, wav
from whisper_sae_steer.serving.config import ServeConfig
from whisper_sae_steer.serving.model import load_model


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving(ServeConfig(model="tiny.en", workers=2)) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Serving) -> openai.OpenAI:
    return openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0)


def speech() -> Any:
    return (SAMPLES / "speech.ogg").open("rb")


@pytest.fixture(scope="module")
def heard() -> list[Any]:
    """What the library itself writes."""
    return list(tiny().transcribe(sample("speech"), language="en")[0])


@pytest.fixture(scope="module")
def with_words() -> list[Any]:
    return list(tiny().transcribe(sample("speech"), language="en", word_timestamps=True)[0])


def text_of(segments: list[Any]) -> str:
    return "".join(segment.text for segment in segments).strip()


def test_json_and_text(client: openai.OpenAI, heard: list[Any]) -> None:
    answer = client.audio.transcriptions.create(file=speech(), model="whisper-1")
    assert answer.text == text_of(heard)
    assert answer.usage is not None
    assert answer.usage.to_dict() == {"type": "duration", "seconds": 10.0}
    plain = client.audio.transcriptions.create(file=speech(), model="tiny.en", response_format="text")
    assert plain == text_of(heard) + "\n"


def test_subtitles_are_those_of_whispers_writers(client: openai.OpenAI, heard: list[Any]) -> None:
    names = ("start", "end", "text")
    result = {"segments": [{name: getattr(segment, name) for name in names} for segment in heard]}
    formats: list[tuple[Any, Any]] = [("srt", WriteSRT), ("vtt", WriteVTT)]
    for name, writer in formats:
        written = io.StringIO()
        writer("").write_result(result, written)
        got: Any = client.audio.transcriptions.create(file=speech(), model="tiny.en", response_format=name)
        assert got == written.getvalue()
        assert "-->" in got


def test_verbose_json_has_words_and_what_the_gate_says(client: openai.OpenAI, with_words: list[Any]) -> None:
    answer = client.audio.transcriptions.create(
        file=speech(),
        model="tiny.en",
        language="en",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert (answer.language, answer.duration, answer.text) == ("english", 10.0, text_of(with_words))
    assert answer.segments is not None
    for got, expected in zip(answer.segments, with_words, strict=True):
        same = ("start", "end", "text", "tokens", "avg_logprob", "no_speech_prob", "seek")
        extra = ("speech_prob", "hallucination_risk")
        for name in (*same, *extra):
            assert getattr(got, name) == pytest.approx(getattr(expected, name)), name
        assert "words" not in got.to_dict()
    words = [(word.word.strip(), word.start, word.end) for segment in with_words for word in segment.words]
    assert [(word.word, word.start, word.end) for word in answer.words or ()] == [
        (word, pytest.approx(start), pytest.approx(end)) for word, start, end in words
    ]


@pytest.mark.parametrize("words", [False, True])
def test_what_filter_risk_leaves_out_is_beside_the_transcript(
    client: openai.OpenAI, heard: list[Any], with_words: list[Any], words: bool
) -> None:
    if words:
        risks = [word.hallucination_risk for segment in with_words for word in segment.words]
    else:
        risks = [segment.hallucination_risk for segment in heard]
    asked: dict[str, Any] = {"file": speech(), "model": "tiny.en", "response_format": "verbose_json"}
    if words:
        asked["timestamp_granularities"] = ["word", "segment"]
    risk = max(risks)
    answer = client.audio.transcriptions.create(**asked, extra_body={"filter_risk": risk}).to_dict()
    left_out: Any = answer["filtered"]
    assert max(segment["hallucination_risk"] for segment in left_out) == pytest.approx(risk, abs=1e-4)
    whole = text_of(with_words if words else heard).split()
    assert sorted(f"{answer['text']} {' '.join(s['text'] for s in left_out)}".split()) == sorted(whole)
    assert len(left_out) == 1
    assert len(left_out[0]["text"].split()) == (1 if words else len(whole))
    asked["file"] = speech()
    answer = client.audio.transcriptions.create(**asked, extra_body={"filter_risk": 1}).to_dict()
    assert (answer["text"], answer["filtered"]) == (text_of(with_words if words else heard), [])


def test_a_stream_ends_with_what_filter_risk_has_left_out(client: openai.OpenAI, heard: list[Any]) -> None:
    events = client.audio.transcriptions.create(
        file=speech(), model="tiny.en", stream=True, extra_body={"filter_risk": 1e-9}
    )
    (done,) = [event.to_dict() for event in events]
    filtered: Any = done["filtered"]
    assert (done["text"], [s["text"] for s in filtered]) == ("", [s.text for s in heard])


def test_alpha_0_neither_steers_nor_labels(client: openai.OpenAI) -> None:
    expected = list(tiny().transcribe(sample("speech"), language="en", steer_alpha=0)[0])
    answer = client.audio.transcriptions.create(
        file=speech(), model="tiny.en", response_format="verbose_json", extra_body={"steer_alpha": 0}
    )
    assert answer.segments is not None
    assert [(s.tokens, s.avg_logprob) for s in answer.segments] == [
        (s.tokens, s.avg_logprob) for s in expected
    ]
    assert all("hallucination_risk" not in s.to_dict() for s in answer.segments)


def test_stream_gives_each_segment_when_it_is_there_and_the_whole_at_the_end(
    client: openai.OpenAI,
) -> None:
    with (SAMPLES / "gap.ogg").open("rb") as file:
        events = list(client.audio.transcriptions.create(file=file, model="tiny.en", stream=True))
    *deltas, done = events
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert done.type == "transcript.text.done"
    texts = [event.delta for event in deltas if event.type == "transcript.text.delta"]
    assert "".join(texts) == done.text
    assert done.text.startswith("The train to the coast")
    assert done.text.endswith("to the harbor this evening.")
    assert len(deltas) == 2  # nothing from the gap between the sentences
    first: dict[str, Any] = deltas[0].to_dict()
    assert first["speech_prob"] > 0.9
    assert first["hallucination_risk"] < 0.1
    assert first["start"] < first["end"] <= 10


def test_requests_at_once_on_one_model_have_their_own_alpha(tmp_path: Path) -> None:
    pack = saved(vector_pack("tiny.en"), tmp_path)  # changes every window a little
    config = ServeConfig(model="tiny.en", compute_type="int8", cpu_threads=1, workers=2, pack=str(pack))

    with serving(config, load_model(config)) as server:
        client = openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0)

        def logprob(alpha: float) -> float:
            answer = client.audio.transcriptions.create(
                file=speech(),
                model="tiny.en",
                response_format="verbose_json",
                extra_body={"steer_alpha": alpha},
            )
            assert answer.segments
            return answer.segments[0].avg_logprob

        alone = {alpha: logprob(alpha) for alpha in (0.0, 1.0)}
        assert alone[0.0] != alone[1.0]
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(logprob, (1.0, 0.0, 1.0))) == [alone[1.0], alone[0.0], alone[1.0]]


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny.en", "whisper-1"]
    assert client.models.retrieve("tiny.en").object == "model"
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("large-v3")
    assert error.value.code == "model_not_found"


def test_refusals_are_the_clients_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.audio.transcriptions.create(file=("a.wav", b""), model="tiny.en")
    assert (error.value.code, error.value.param) == ("invalid_audio", "file")
    with pytest.raises(openai.BadRequestError, match="English only"):
        client.audio.translations.create(  # pyright: ignore[reportDeprecated]
            file=speech(), model="tiny.en"
        )


def test_metrics_count_what_was_done(client: openai.OpenAI, server: Serving) -> None:
    registry = server.app.state.engine.metrics.registry

    def value(name: str, **labels: str) -> float:
        return registry.get_sample_value(name, labels or {"model": "tiny.en"}) or 0.0

    names = ("whisper_audio_seconds_total", "whisper_segments_total", "whisper_windows_total")
    names += ("whisper_hallucination_risk_count",)
    steered = value("whisper_windows_steered_total")
    before = [value(name) for name in names]
    client.audio.transcriptions.create(file=speech(), model="tiny.en")
    assert [value(name) - old for name, old in zip(names, before, strict=True)] == [10.0, 1.0, 1.0, 1.0]
    assert value("whisper_processing_seconds_total") > 0
    assert value("whisper_windows_steered_total") == steered
    windows = value("whisper_windows_total")
    client.audio.transcriptions.create(file=("a.wav", wav(2)), model="tiny.en")
    assert value("whisper_windows_total") == windows  # passed over: nothing in it may be speech
    client.audio.transcriptions.create(
        file=("a.wav", wav(2)), model="tiny.en", extra_body={"skip_gaps": "false"}
    )
    assert value("whisper_windows_steered_total") == steered + 1
    labels = {"endpoint": "/v1/audio/transcriptions", "status": "200"}
    assert value("whisper_requests_total", **labels) >= 2
