"""The timeline of a recording: where somebody speaks, and where text would be made up."""

from collections.abc import Generator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.real_models import sample, truth
from tests.support.serving_parts import ModelAsTold, Serving, refusal, serving, tiny, wav
from whisper_sae_steer.serving.config import ServeConfig
from whisper_sae_steer.serving.timeline import timeline_of

PATH = "/v1/audio/timeline"


@pytest.fixture(scope="module")
def server() -> Generator[Serving]:
    with serving(ServeConfig(max_audio_seconds=60)) as running:
        yield running


def ask(server: Serving, file: bytes, **headers: str) -> httpx.Response:
    return httpx.post(server.url + PATH, files={"file": ("a.wav", file)}, headers=headers, timeout=30)


def test_probabilities_follow_the_speech_over_more_than_one_window(server: Serving):
    audio = np.concatenate([np.zeros(26 * 16_000, np.float32), sample("speech")])
    answer = ask(server, wav(samples=(audio * 32767).astype(np.int16)))
    assert answer.status_code == 200
    found = answer.json()
    assert (found["duration"], found["step"]) == (36.0, 0.1)
    speech, risk = np.array(found["speech_prob"]), np.array(found["hallucination_risk"])
    assert len(speech) == len(risk) == 360
    (spoken,) = truth("speech")["speech"]
    inside = slice(round(10 * spoken["start"]) + 265, round(10 * spoken["end"]) + 255)
    # the gate is fitted on the surest moment of a window, and not sure of every second of a sentence
    assert speech[inside].mean() > 0.8
    assert risk[inside].mean() < 0.25
    assert speech[:255].max() < 0.1
    assert risk[:255].min() > 0.9


def test_each_value_is_what_a_segment_of_a_second_around_it_is_labelled():
    audio = sample("speech")[: 16_000 * 3 + 1]
    model = tiny()
    found = list(timeline_of(model, audio))
    assert len(found) == 31  # the last sample begins another
    assert model.steerer is not None
    with model.steering():
        features = np.zeros((80, 3000), np.float32)
        mel = model.feature_extractor(audio)[:, :-1]
        features[:, : mel.shape[1]] = mel
        encoded: Any = model.encode(features)
    assert found[17] == model.steerer.label_stretch(encoded.batch.scores[0], 1.25, 2.25)


@pytest.mark.parametrize(
    ("file", "status"), [(b"", 400), (b"no audio", 415), (wav(61), 413)], ids=["empty", "text", "long"]
)
def test_bad_uploads_are_refused_as_for_transcripts(server: Serving, file: bytes, status: int):
    assert refusal(ask(server, file))[0] == status


def test_without_a_pack_there_is_no_timeline():
    with serving(ServeConfig(), ModelAsTold()) as server:
        assert refusal(ask(server, wav()))[0] == 409


def test_the_key_is_asked_for():
    with serving(ServeConfig(api_key="sesame"), ModelAsTold()) as server:
        assert refusal(ask(server, wav()))[0] == 401
        assert refusal(ask(server, wav(), Authorization="Bearer sesame"))[0] == 409
