"""The speech map: nothing that is spoken is passed over, however quiet; what is left out leaves its time."""

import numpy as np
import pytest
from faster_whisper.audio import pad_or_trim
from faster_whisper.feature_extractor import FeatureExtractor
from numpy.typing import NDArray

from tests.support.real_models import sample, truth
from whisper_sae_steer.audio.units import SAMPLE_RATE
from whisper_sae_steer.steering import speech_map
from whisper_sae_steer.steering.parts import find_parts
from whisper_sae_steer.steering.speech_map import Passage, find_excerpt, find_passages, speech_probabilities

RNG = np.random.default_rng(0)


def faint(seconds: float) -> NDArray[np.float32]:
    """Noise of −80 dBFS."""
    return (1e-4 * RNG.standard_normal(round(seconds * SAMPLE_RATE))).astype(np.float32)


def word() -> NDArray[np.float32]:
    """About half a second of the sample, from the middle of its speech."""
    span = truth("speech")["speech"][0]
    start = round((span["start"] + 1) * SAMPLE_RATE)
    return sample("speech")[start : start + SAMPLE_RATE // 2]


def test_ordinary_speech_stays_as_it_is():
    assert find_excerpt(sample("speech")) is None
    assert find_excerpt(np.concatenate([sample("speech"), faint(8)])) is None


@pytest.mark.parametrize("audio", [np.zeros(0, np.float32), np.zeros(5 * SAMPLE_RATE, np.float32), faint(20)])
def test_nothing_is_left_where_nobody_speaks(audio: NDArray[np.float32]):
    heard = find_excerpt(audio)
    assert heard is None if not len(audio) else heard is not None and not heard.passages
    assert heard is None or not len(heard.taken_from(audio))


@pytest.mark.parametrize("decibels", [-20, -50, -60])
def test_a_quiet_word_is_heard_behind_a_loud_sentence(decibels: int):
    """Without the even loudness Silero misses two of three words at −60 dBFS."""
    quiet = word() * 10 ** (decibels / 20) / np.sqrt(np.mean(word() ** 2))
    audio = np.concatenate([sample("speech"), faint(6), quiet.astype(np.float32), faint(6)])
    start = len(sample("speech")) + 6 * SAMPLE_RATE
    assert any(p.onset <= start + 2000 and p.offset >= start + 6000 for p in find_passages(audio))


def test_sentences_keep_their_times():
    spoken = truth("gap")["speech"]
    heard = find_excerpt(sample("gap"))
    assert heard is not None
    taken = heard.taken_from(sample("gap"))
    assert len(heard.passages) == len(spoken)
    for passage, span in zip(heard.passages, spoken, strict=True):
        assert passage.start <= span["start"] * SAMPLE_RATE < span["end"] * SAMPLE_RATE <= passage.end
    place = 0
    for passage in heard.passages:
        middle = (passage.end - passage.start) // 2
        moment = (place + middle) / SAMPLE_RATE
        time, _ = heard.span(moment, moment)
        assert time == pytest.approx((passage.start + middle) / SAMPLE_RATE, abs=2e-3)
        np.testing.assert_array_equal(
            taken[place : place + 2 * middle], sample("gap")[passage.start :][: 2 * middle]
        )
        place += passage.end - passage.start + speech_map.JOINT_SAMPLES
    joint = heard.passages[0].end - heard.passages[0].start
    assert not taken[joint : joint + speech_map.JOINT_SAMPLES].any()


def test_a_word_between_two_pauses_stays_with_its_neighbours():
    sentence = sample("speech")
    audio = np.concatenate([sentence, faint(3), word(), faint(3), sentence, faint(9), sentence])
    assert len(find_passages(audio)) == 2


def test_the_gate_is_asked_about_moments_the_detector_is_not_certain_of(monkeypatch: pytest.MonkeyPatch):
    heard = np.zeros(1000, np.float32)
    heard[[100, 110, 150, 400]] = speech_map.THRESHOLD  # three moments and, far from them, one
    heard[700:720], heard[800] = speech_map.CERTAIN, speech_map.THRESHOLD
    monkeypatch.setattr(speech_map, "speech_probabilities", lambda _: heard)
    audio = np.arange(1000 * speech_map.FRAME_SAMPLES, dtype=np.float32)
    asked: list[tuple[float, float]] = []

    def hears_nobody(samples: NDArray[np.float32]) -> bool:
        asked.append((samples[0], samples[-1] + 1))
        return len(asked) < 3

    passages = find_passages(audio, hears_nobody)
    frames = [(100, 151), (400, 401), (800, 801)]
    pad = speech_map.PAD_SAMPLES
    assert asked == [(start * 512 - pad, end * 512 + pad) for start, end in frames]
    (passage,) = passages  # the last moment is a reply to the one before
    assert (passage.onset, passage.offset) == (700 * 512, pytest.approx(801 * 512, abs=320))


def test_the_joint_is_found_in_the_mel():
    heard = find_excerpt(sample("gap"))
    assert heard is not None
    mel = FeatureExtractor()(heard.taken_from(sample("gap")))[:, : 2 * 1500]
    parts = find_parts(pad_or_trim(mel))
    assert len(parts) == len(heard.passages) == 2
    joint = (heard.passages[0].end - heard.passages[0].start) / 320
    assert joint - 50 <= parts[0].end <= joint + 2  # the silence around it may lie below what a mel shows
    assert joint + 23 <= parts[1].start <= joint + 75


def test_a_segment_lies_in_the_passages_of_which_it_covers_a_word_or_more():
    rate = SAMPLE_RATE
    passages = [Passage(0, 2 * rate, 0, rate), Passage(10 * rate, 12 * rate, 11 * rate, 12 * rate)]
    heard = speech_map.Excerpt(passages)
    # the second passage begins at 2.5 s of the excerpt, its speech at 3.5 s
    spans = {
        (0.5, 0.9): (0.5, 0.9),
        (0.0, 1.6): (0.0, 1.0),
        (0.0, 3.0): (0.0, 1.0),  # ended where the next begins
        (0.0, 3.6): (0.0, 1.0),  # a moment later
        (0.9, 3.8): (11.0, 11.3),  # begun where the one before ended
        (1.2, 4.5): (11.0, 12.0),
        (3.6, 9.0): (11.1, 12.0),
        (0.2, 4.0): (0.2, 11.5),
        (0.9, 1.1): (0.9, 1.0),  # too short for a word
        (3.4, 3.6): (11.0, 11.1),
        (1.1, 1.9): (1.0, 1.0),  # where nobody speaks
        (2.6, 3.3): (11.0, 11.0),
    }
    assert {span: heard.span(*span) for span in spans} == spans


def test_a_word_lies_in_one_passage():
    rate = SAMPLE_RATE
    passages = [Passage(0, 2 * rate, 0, rate), Passage(10 * rate, 12 * rate, 11 * rate, 12 * rate)]
    heard = speech_map.Excerpt(passages)
    words = {
        (0.7, 3.8): (0.7, 1.0),  # stretched over what lies between
        (0.9, 3.8): (11.0, 11.3),
        (0.9, 0.95): (0.9, 0.95),
        (3.4, 3.6): (11.0, 11.1),
    }
    assert {word: heard.word_span(*word) for word in words} == words


def test_long_recordings_are_heard_in_blocks(monkeypatch: pytest.MonkeyPatch):
    whole = find_passages(sample("gap"))
    monkeypatch.setattr(speech_map, "BLOCK_FRAMES", 300)
    assert len(speech_probabilities(sample("gap"))) == -(-len(sample("gap")) // speech_map.FRAME_SAMPLES)
    blocks = find_passages(sample("gap"))  # the detector is less sure where it begins to listen
    assert len(blocks) <= len(whole) + 3
    assert all(any(b.onset <= w.onset + 2000 and b.offset >= w.offset - 2000 for b in blocks) for w in whole)
