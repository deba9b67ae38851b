"""What is an item, and what was said in it, with tiny.en; every event is checked against OpenAI's types."""

from collections.abc import Generator
from time import process_time

import numpy as np
import pytest
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from tests.support.real_models import sample
from tests.support.realtime_parts import TRANSCRIPTION, Session, g711, no_turns, pcm, session, spoken, words
from tests.support.serving_parts import Serving, serving, until
from whisper_sae_steer.serving import sessions
from whisper_sae_steer.serving.config import ServeConfig
from whisper_sae_steer.serving.engine import ServingEngine
from whisper_sae_steer.serving.realtime.settings import CHUNK_SECONDS, default_settings

FIRST, FIRST_TEXT = spoken("speech")
SECOND, SECOND_TEXT = spoken("gap", 1)
ROOM = sample("gap")[40 * 16_000 :]


@pytest.fixture(scope="module")
def server() -> Generator[Serving]:
    with serving(ServeConfig()) as running:
        yield running


def noise(seconds: float) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 0.02, round(seconds * 16_000)).astype(np.float32)


def assert_said(client: Session, number: int, text: str, wrong: int = 0) -> None:
    """One item of those completed: its words, which its deltas have, too."""
    completed = client.of(TRANSCRIPTION + "completed")[number]
    deltas = [d for d in client.of(TRANSCRIPTION + "delta") if d["item_id"] == completed["item_id"]]
    assert "".join(delta["delta"] for delta in deltas) == completed["transcript"]
    assert Levenshtein.distance(words(completed["transcript"]), words(text)) <= wrong, completed["transcript"]
    assert all(delta["speech_prob"] > 0.9 and delta["hallucination_risk"] < 0.5 for delta in deltas)


@pytest.mark.parametrize("kind", ["audio/pcm", "audio/pcmu", "audio/pcma"])
def test_speech_is_an_item_with_its_words(server: Serving, kind: str):
    audio = np.concatenate([ROOM[:16_000], FIRST, ROOM[: 2 * 16_000]])
    encoded = {
        "audio/pcm": lambda: pcm(audio),
        "audio/pcmu": lambda: g711(audio, "pcm_mulaw"),
        "audio/pcma": lambda: g711(audio, "pcm_alaw"),
    }
    with session(server) as client:
        assert client.receive()["session"]["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}
        if kind != "audio/pcm":
            shown = client.update(audio={"input": {"format": {"type": kind}}})
            assert shown["audio"]["input"]["format"]["type"] == kind
        client.append(encoded[kind]())
        completed = client.until(TRANSCRIPTION + "completed")
    left_out = ("session.", TRANSCRIPTION)
    kinds = [event["type"] for event in client.events if not event["type"].startswith(left_out)]
    assert kinds == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    # at 8 kHz the plain library, too, reads "glow" for "close"
    assert_said(client, 0, FIRST_TEXT, wrong=kind != "audio/pcm")
    (started,), (stopped,) = (
        client.of(f"input_audio_buffer.speech_{what}") for what in ("started", "stopped")
    )
    assert started["audio_start_ms"] == pytest.approx(1000 - 300, abs=200)
    assert stopped["audio_end_ms"] == pytest.approx(1000 + 1000 * len(FIRST) / 16_000 + 500, abs=200)
    item = client.of("conversation.item.added")[0]["item"]
    assert item["id"] == started["item_id"] == stopped["item_id"] == completed["item_id"]
    length = (stopped["audio_end_ms"] - started["audio_start_ms"]) / 1000
    assert completed["usage"] == {"type": "duration", "seconds": pytest.approx(length)}
    assert completed["segments"][0]["start"] == pytest.approx(1, abs=0.5)
    assert completed["segments"][-1]["end"] == pytest.approx(1 + len(FIRST) / 16_000, abs=0.5)


@pytest.mark.parametrize("piece", [960, 10**6])
def test_two_turns_are_two_items_however_they_are_sent(server: Serving, piece: int):
    gap = ROOM[16_000 : 3 * 16_000]
    audio = np.concatenate([ROOM[:16_000], FIRST, gap, SECOND, ROOM[: 2 * 16_000]])
    with session(server) as client:
        client.append(pcm(audio), piece)
        client.until(TRANSCRIPTION + "completed", 2)
    assert_said(client, 0, FIRST_TEXT)
    assert_said(client, 1, SECOND_TEXT, wrong=2)  # it also reads "dogs is" for "boxes"
    first, second = client.of("input_audio_buffer.committed")
    assert (first["previous_item_id"], second["previous_item_id"]) == (None, first["item_id"])
    assert client.of("conversation.item.added")[1]["previous_item_id"] == first["item_id"]
    begins = 3 + len(FIRST) / 16_000
    started = client.of("input_audio_buffer.speech_started")[1]
    assert started["audio_start_ms"] == pytest.approx(1000 * begins - 300, abs=250)
    stopped = client.of("input_audio_buffer.speech_stopped")[1]
    assert stopped["audio_end_ms"] == pytest.approx(1000 * (begins + len(SECOND) / 16_000) + 500, abs=250)


def first_words(engine: ServingEngine, silence: float, speech: NDArray[np.float32]) -> float:
    """Seconds from where speech begins to its first final text.

    By the clock of the audio and the processor time of the last step, whatever else the machine does.
    """
    transcriber = default_settings(engine, engine.name).transcriber(engine)
    audio = np.concatenate([ROOM[: round(silence * 16_000)], speech])
    step, fed = round(CHUNK_SECONDS * 16_000), 0
    while True:
        begun = process_time()
        update = transcriber.feed(audio[fed : fed + step])
        fed += step
        if update.final:
            return fed / 16_000 - silence + process_time() - begun


def test_the_first_words_come_in_about_a_second_and_a_half(server: Serving):
    """Two transcripts that disagree about the first word take another half a second."""
    engine: ServingEngine = server.app.state.engine
    until(lambda: engine._jobs.taken == 0)
    seconds = [first_words(engine, 1 + phase, FIRST) for phase in (0, 0.1, 0.2, 0.3, 0.4)]
    assert np.median(seconds) < 1.6
    assert max(seconds) < 2.3


def test_a_pause_shorter_than_the_silence_that_was_asked_for_ends_no_turn(server: Serving):
    audio = np.concatenate([ROOM[:8000], FIRST, ROOM[:16_000], SECOND, ROOM[: 3 * 16_000]])
    turns = {"type": "server_vad", "silence_duration_ms": 1800, "prefix_padding_ms": 0}
    with session(server) as client:
        client.receive()
        client.update(audio={"input": {"turn_detection": turns}})
        client.append(pcm(audio))
        client.until(TRANSCRIPTION + "completed")
    assert_said(client, 0, f"{FIRST_TEXT} {SECOND_TEXT}", wrong=2)


def test_noise_and_silence_are_no_items(server: Serving):
    with session(server) as client:
        client.append(pcm(np.concatenate([noise(4), np.zeros(3 * 16_000, np.float32)])))
        client.send("input_audio_buffer.clear")
        client.until("input_audio_buffer.cleared")
    assert client.kinds() == ["session.created", "input_audio_buffer.cleared"]


def test_what_the_client_commits_is_an_item(server: Serving):
    with session(server) as client:
        client.receive()
        assert client.update(audio=no_turns())["audio"]["input"]["turn_detection"] is None
        client.append(pcm(noise(2)))
        client.send("input_audio_buffer.commit")
        assert client.until(TRANSCRIPTION + "completed")["transcript"] == ""
        client.append(pcm(FIRST))
        client.send("input_audio_buffer.commit")
        client.append(pcm(SECOND))
        client.send("input_audio_buffer.commit")
        client.until(TRANSCRIPTION + "completed", 2)
    assert not [kind for kind in client.kinds() if "speech_" in kind]
    assert_said(client, 1, FIRST_TEXT, wrong=1)
    assert_said(client, 2, SECOND_TEXT, wrong=2)
    ids = [event["item_id"] for event in client.of("input_audio_buffer.committed")]
    assert [e["previous_item_id"] for e in client.of("input_audio_buffer.committed")] == [None, *ids[:-1]]
    usage = [event["usage"]["seconds"] for event in client.of(TRANSCRIPTION + "completed")]
    assert usage == pytest.approx([2, len(FIRST) / 16_000, len(SECOND) / 16_000], abs=0.01)


def test_a_commit_ends_a_turn_at_once(server: Serving):
    with session(server) as client:
        client.append(pcm(FIRST))
        client.send("input_audio_buffer.commit")
        client.until(TRANSCRIPTION + "completed")
    assert_said(client, 0, FIRST_TEXT, wrong=1)
    assert not client.of("input_audio_buffer.speech_stopped")


def test_what_is_cleared_is_never_transcribed(server: Serving):
    with session(server) as client:
        client.receive()
        client.update(audio=no_turns())
        client.append(pcm(FIRST[:32_000]))
        client.send("input_audio_buffer.clear")
        client.until("input_audio_buffer.cleared")
        client.append(pcm(SECOND))
        client.send("input_audio_buffer.commit")
        client.until(TRANSCRIPTION + "completed")
    assert_last_word(client, "evening")
    assert "train" not in client.of(TRANSCRIPTION + "completed")[0]["transcript"]


def assert_last_word(client: Session, word: str) -> None:
    assert words(client.of(TRANSCRIPTION + "completed")[-1]["transcript"])[-1] == word


def test_new_settings_hear_what_nobody_spoke_in_again(server: Serving):
    """No word is lost whose beginning came just before an update."""
    with session(server) as client:
        client.receive()
        client.append(pcm(np.concatenate([ROOM[:16_000], FIRST[:1600]])))
        client.update(steer_alpha=0.5)
        client.append(pcm(np.concatenate([FIRST[1600:], ROOM[: 2 * 16_000]])))
        client.until(TRANSCRIPTION + "completed")
    assert_said(client, 0, FIRST_TEXT)


def test_without_a_worker_the_item_fails_and_the_session_goes_on(
    server: Serving, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sessions, "BUSY_SECONDS", 0.2)
    engine: ServingEngine = server.app.state.engine
    until(lambda: engine._jobs.taken == 0)  # those of sessions before
    with session(server) as client:
        client.receive()
        client.update(audio=no_turns())
        while engine._jobs.take():
            pass
        try:
            client.append(pcm(noise(1)))
            failed = client.until(TRANSCRIPTION + "failed")
        finally:
            engine._jobs.taken = 0
        assert failed["error"]["code"] == "server_busy"
        assert failed["error"]["type"] == "rate_limit_error"
        client.append(pcm(noise(1)))
        client.send("input_audio_buffer.commit")
        completed = client.until(TRANSCRIPTION + "completed")
    assert client.of("input_audio_buffer.committed")[1]["previous_item_id"] == failed["item_id"]
    assert completed["item_id"] != failed["item_id"]
