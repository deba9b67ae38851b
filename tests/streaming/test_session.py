"""Live sessions on tiny.en: the same words as offline, none for noise, whatever the size of the chunks."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.real_models import sample, truth
from whisper_sae_steer.errors import AlphaError, AudioError
from whisper_sae_steer.faster import WhisperModel
from whisper_sae_steer.reports import metrics
from whisper_sae_steer.streaming import StreamingTranscriber, StreamSegment, Update
from whisper_sae_steer.streaming.agreement import Word, agreed, continues_at, sentences
from whisper_sae_steer.streaming.decoder import StreamDecoder, StreamWindow

RATE = 16_000
SPEECH = sample("speech")
TEXT = truth("speech")["speech"][0]["text"]


@pytest.fixture(scope="module")
def model() -> WhisperModel:
    return WhisperModel("tiny.en", compute_type="int8", cpu_threads=1)


def noise(seconds: float) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 0.02, round(seconds * RATE)).astype(np.float32)


def beeps(seconds: float) -> NDArray[np.float32]:
    """What Whisper hears as speech."""
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * 500 * time) * (time % 0.25 < 0.12)).astype(np.float32)


def updates(model: WhisperModel, audio: NDArray[np.float32], chunk: float, **options: Any) -> list[Update]:
    session = StreamingTranscriber(model, **options)
    size = round(chunk * RATE)
    found = [session.feed(audio[i : i + size]) for i in range(0, len(audio), size)]
    assert session.seconds == pytest.approx(len(audio) / RATE)
    return [*found, session.finish()]


def final(found: list[Update]) -> list[StreamSegment]:
    return [segment for update in found for segment in update.final]


def words_of(segments: list[StreamSegment]) -> list[str]:
    return metrics.normalise("".join(segment.text for segment in segments), "en").split()


def w(text: str, start: float = 0.0) -> list[Word]:
    """Words of a third of a second."""
    return [Word(start + i / 3, start + (i + 1) / 3, f" {word}", 1.0) for i, word in enumerate(text.split())]


# --- agreement -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("previous", "current", "count"),
    [
        ("", "a b", 0),
        ("the cat", "the cat sat", 2),
        ("The cat. Sat", "the cat sat on", 3),  # neither case nor punctuation counts
        ("the cat sat", "the dog sat", 1),
        ("the cat", "the", 1),
    ],
)
def test_agreement_is_the_longest_common_prefix(previous: str, current: str, count: int):
    assert agreed(w(previous), w(current)) == count


@pytest.mark.parametrize(
    ("committed", "hypothesis", "index"),
    [
        ("", "a b", 0),
        ("a b", "", 0),
        ("the cat", "the cat sat", 2),
        ("the cat sat", "the cad sat on", 3),  # misread
        ("the cat sat", "cat sat on", 2),  # its start was cut off
        ("no no", "no no no", 2),
        ("the cat", "the the cat sat", 3),
    ],
)
def test_a_hypothesis_goes_on_where_the_final_text_ends(committed: str, hypothesis: str, index: int):
    assert continues_at(w(committed), w(hypothesis)) == index


def test_of_equally_similar_places_the_nearest_in_time_counts():
    committed = w("one", start=3)
    assert continues_at(committed, w("two three", start=3.4)) == 0  # all of it comes later
    assert continues_at(committed, w("won two", start=3)) == 1


def test_sentences_end_with_punctuation_or_before_a_pause():
    words = [*w('He said: "No." Then'), *w("left the", start=5)]
    found = ["".join(word.text for word in stretch) for stretch in sentences(words)]
    assert found == [' He said: "No."', " Then", " left the"]
    assert list(sentences([])) == []


# --- sessions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [0.02, 10.0])
def test_the_words_are_those_of_the_offline_transcript(model: WhisperModel, chunk: float):
    found = updates(model, SPEECH, chunk)
    offline = "".join(segment.text for segment in model.transcribe(SPEECH)[0])
    assert words_of(final(found)) == metrics.normalise(offline, "en").split()
    assert metrics.normalise(TEXT, "en").split() == words_of(final(found))


def test_final_segments_follow_each_other_and_lie_where_the_speech_is(model: WhisperModel):
    found = updates(model, SPEECH, 0.5)
    segments = final(found)
    (spoken,) = truth("speech")["speech"]
    assert [segment.id for segment in segments] == list(range(len(segments)))
    assert segments[0].start == pytest.approx(spoken["start"], abs=0.6)
    assert segments[-1].end == pytest.approx(spoken["end"], abs=0.6)
    for before, after in pairwise(segments):
        assert before.start < before.end <= after.start + 0.3
    for segment in segments:
        assert "".join(word.text for word in segment.words) == segment.text
        assert segment.speech_prob is not None
        assert segment.speech_prob > 0.9
        assert segment.hallucination_risk is not None
        assert segment.hallucination_risk < 0.2
    # text comes while people speak: partial first, final long before the end
    first_partial = next(i for i, update in enumerate(found) if update.partial)
    first_final = next(i for i, update in enumerate(found) if update.final)
    assert first_partial < first_final < len(found) / 2
    assert found[-1].partial == []


def test_a_gap_of_noise_is_passed_without_text(model: WhisperModel):
    second = sample("gap")[round(91.2 * RATE) :]
    audio = np.concatenate([SPEECH, noise(6), second])
    found = updates(model, audio, 1.0)
    expected = [*truth("speech")["speech"], truth("gap")["speech"][1]]
    assert words_of(final(found)) == metrics.normalise(" ".join(e["text"] for e in expected), "en").split()
    ended = [i for i, update in enumerate(found) if update.final and i < 15]
    assert max(ended) <= 11  # 3 s after the last word at 7.4 s all of it is final
    assert not any(update.partial for update in found[11:16])


@pytest.mark.parametrize("chunk", [0.4, 20.0])
def test_a_pause_ends_a_session_that_asks_for_it(model: WhisperModel, chunk: float):
    second = sample("gap")[round(91.5 * RATE) :]
    (spoken,) = truth("speech")["speech"]
    audio = np.concatenate([SPEECH[: round(spoken["end"] * RATE)], noise(1) / 10, second]).astype(np.float32)
    session, found, fed = StreamingTranscriber(model, pause=0.5), list[Update](), 0
    assert session.speech == []
    while not session.finished:
        piece = audio[fed : fed + round(chunk * RATE)]
        found.append(session.feed(piece))
        fed += len(piece)
    assert words_of(final(found)) == metrics.normalise(TEXT, "en").split()
    assert session.speech[0].start == pytest.approx(spoken["start"], abs=0.2)
    assert session.speech[0].end == pytest.approx(spoken["end"], abs=0.2)
    begins = fed - len(session.rest)
    assert spoken["end"] < begins / RATE < spoken["end"] + 0.7
    np.testing.assert_array_equal(session.rest, audio[begins:fed])
    with pytest.raises(ValueError, match="finished"):
        session.feed(noise(1))


def test_a_prompt_is_what_was_said_before(model: WhisperModel, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    write = StreamDecoder.write

    def watched(decoder: StreamDecoder, window: StreamWindow, before: str) -> Any:
        said.append(before)
        return write(decoder, window, before)

    monkeypatch.setattr(StreamDecoder, "write", watched)
    updates(model, SPEECH[: 3 * RATE], 3.0, prompt="trains and boats")
    assert set(said) == {"trains and boats"}


@pytest.mark.parametrize("sound", [noise, beeps])
def test_nothing_is_decoded_where_nobody_speaks(
    model: WhisperModel, sound: Any, monkeypatch: pytest.MonkeyPatch
):
    decoded: list[str] = []
    generate = model.model.generate

    def watched(*args: Any, **kwargs: Any) -> Any:
        decoded.append("once")
        return generate(*args, **kwargs)

    monkeypatch.setattr(model.model, "generate", watched)
    found = updates(model, sound(10), 2.0)
    assert found == [Update([], [])] * 6
    assert decoded == []
    unsteered = updates(model, sound(4), 2.0, steer_alpha=0)
    assert decoded
    assert all(s.speech_prob is None and s.hallucination_risk is None for s in final(unsteered))


def test_a_pause_is_not_encoded_again_and_again(model: WhisperModel, monkeypatch: pytest.MonkeyPatch):
    """Only once, a moment after the last word: then the text is final, and nobody speaks any more."""
    encoded, encode = list[int](), model.encode

    def counted(features: NDArray[np.float32]) -> Any:
        encoded.append(1)
        return encode(features)

    monkeypatch.setattr(model, "encode", counted)
    session, counts = StreamingTranscriber(model), list[int]()
    audio = np.concatenate([SPEECH, 0.05 * noise(8)])
    for begin in range(0, len(audio), RATE):
        session.feed(audio[begin : begin + RATE])
        counts.append(len(encoded))
    spoken = round(truth("speech")["speech"][0]["end"])
    assert counts[spoken] > spoken
    assert counts[-1] - counts[spoken] <= 1


def test_what_is_written_for_noise_without_steering_is_not_written_with_it(model: WhisperModel):
    room = sample("gap")[20 * RATE : 28 * RATE]
    assert [segment.text for segment in final(updates(model, room, 8.0, steer_alpha=0))] == [" You"]
    assert final(updates(model, room, 8.0)) == []


def test_what_the_decoder_leaves_behind_is_asked_for(model: WhisperModel):
    """Here tiny.en and base write the first line and stop: offline the window moves on to the rest."""
    found = updates(model, np.concatenate([beeps(8), SPEECH]), 18.0, steer_alpha=0)
    assert words_of(final(found))[-4:] == TEXT.lower().strip(".").split()[-4:]


def test_speech_without_a_pause_outlasts_the_buffer(model: WhisperModel):
    """It is cut where a sentence ends, and no word is lost or doubled there."""
    spoken = SPEECH[RATE : round(7.6 * RATE)]
    audio = np.tile(spoken, 3)
    session = StreamingTranscriber(model)
    segments: list[StreamSegment] = []
    for i in range(0, len(audio), 3 * RATE):
        segments += session.feed(audio[i : i + 3 * RATE]).final
        assert len(session._buffer) <= 18 * RATE
    segments += session.finish().final
    expected = metrics.normalise(" ".join([TEXT] * 3), "en").split()
    found = words_of(segments)
    errors = metrics.word_errors(" ".join(expected), " ".join(found))
    assert errors is not None
    assert errors.rate < 0.05


def test_the_same_chunks_give_the_same_updates_in_threads_too(model: WhisperModel):
    def run(alpha: float) -> list[Update]:
        return updates(model, SPEECH[: 4 * RATE], 2.0, steer_alpha=alpha)

    alone = [run(1.0), run(0.0)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, [1.0, 0.0, 1.0])) == [*alone, alone[0]]


def test_memory_stays_flat_over_noise(model: WhisperModel):
    """Four minutes, in chunks of 10 s: what is held does not depend on how long the session is."""
    session, ten = StreamingTranscriber(model), noise(10)
    held: list[int] = []
    tracemalloc.start()
    try:
        for _ in range(24):
            assert session.feed(ten) == Update([], [])
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert abs(held[-1] - held[5]) < 100_000  # the audio of those 3 minutes is 11 MB
    assert session.seconds == 240


def test_a_chunk_may_be_of_any_length_and_is_copied(model: WhisperModel):
    chunk = SPEECH.copy()
    session = StreamingTranscriber(model, min_chunk=5)
    assert session.feed(np.zeros(0, np.float32)) == Update([], [])
    session.feed(chunk[: 4 * RATE])
    chunk[:] = 0  # as a sound card's driver does
    session.feed(SPEECH[4 * RATE :])
    assert words_of(session.finish().final) == metrics.normalise(TEXT, "en").split()
    assert session.finish() == Update([], [])


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (np.zeros(10, np.int16), "int16"),
        (np.zeros((2, 10), np.float32), "shape"),
        (np.array([0, np.nan], np.float32), "NaN"),
        (np.array([0, 32767], np.float32), "within ±1"),
        ([0.0, 0.1], "array"),
    ],
)
def test_bad_chunks_are_refused_and_the_session_goes_on(model: WhisperModel, chunk: Any, message: str):
    session = StreamingTranscriber(model)
    with pytest.raises(AudioError, match=message):
        session.feed(chunk)
    assert session.seconds == 0
    assert session.finish() == Update([], [])
    with pytest.raises(ValueError, match="finished"):
        session.feed(noise(1))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steer_alpha": float("nan")}, AlphaError, "from 0 to 100"),
        ({"steer_alpha": -1.0}, AlphaError, "from 0 to 100"),
        ({"steer_alpha": 1e38}, AlphaError, "from 0 to 100"),
        ({"language": "xx"}, ValueError, "'xx'"),
        ({"language": "de"}, ValueError, "'de'"),  # an English-only model
        ({"task": "sing"}, ValueError, "sing"),
        ({"min_chunk": 0}, ValueError, "min_chunk"),
        ({"min_chunk": 31}, ValueError, "min_chunk"),
        ({"pause": 0}, ValueError, "pause"),
        ({"pause": 11}, ValueError, "pause"),
        ({"pause": 1, "steer_alpha": 0}, ValueError, "gate"),
    ],
)
def test_bad_options_are_refused(model: WhisperModel, options: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        StreamingTranscriber(model, **options)


def test_the_language_is_detected_from_the_first_words():
    session = StreamingTranscriber(WhisperModel("base", compute_type="int8", cpu_threads=1))
    assert session.language is None
    session.feed(noise(2))
    assert session.language is None
    found = [session.feed(SPEECH), session.finish()]
    assert session.language == "en"
    assert words_of(final(found)) == metrics.normalise(TEXT, "en").split()
