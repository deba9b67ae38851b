from pathlib import Path

import numpy as np
import pytest

from tests.support.hard_cases import RATE, Audio, decibels, made
from whisper_sae_steer.audio.clips import Clip, read_manifest
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.bench.hard.conditions import jobs
from whisper_sae_steer.bench.hard.material import HardRecording, material, trimmed
from whisper_sae_steer.errors import ManifestError


def spoken(clip: Clip) -> Audio:
    return trimmed(load_audio(clip.path))


def power(audio: Audio) -> float:
    return float(np.mean(audio.astype(np.float64) ** 2))


def gap(recording: HardRecording) -> Audio:
    """Of a recording with one gap."""
    ((start, end),) = recording.gaps
    return recording.audio[round(start * RATE) : round(end * RATE)]


def test_single_words_are_the_clips_themselves_each_word_in_turn(talk: Path) -> None:
    recordings = made(talk, "single", count=9)
    texts = [recording.speech[0].text for recording in recordings]
    assert (sorted(texts[:3]), texts[3]) == (["no", "stop", "yes"], "yes")
    for recording in recordings:
        np.testing.assert_array_equal(recording.audio, load_audio(recording.speech[0].path))


def test_a_reply_lies_between_pauses_and_noise_under_all(talk: Path) -> None:
    levels: set[int | None] = set()
    for seed in range(4):
        recordings = made(talk, "reply", seed, count=9)
        assert len(recordings) == 4
        for recording in recordings:
            ((before,), (word,), (after,)) = recording.parts
            assert [len(clip.text.split()) for clip in (before, word, after)] == [5, 1, 5]
            assert before != after
            silent = np.zeros(4 * RATE, np.float32)
            pieces = [spoken(before), silent, spoken(word), silent, spoken(after)]
            edges = np.cumsum([len(piece) for piece in pieces]) / RATE
            assert recording.gaps == ((edges[0], edges[1]), (edges[2], edges[3]))
            noise = recording.audio - np.concatenate(pieces)
            level = decibels(power(noise)) if noise.any() else None
            levels.add(None if level is None else round(level))
            assert level is None or level == pytest.approx(round(level), abs=0.1)
            assert not noise.any() or abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.02
    assert levels == {None, -65, -55, -45}


def test_a_sound_after_speech_ends_the_recording(talk: Path) -> None:
    for recording in made(talk, "sound-after-speech", count=8):
        ((clip,), after) = recording.parts
        (bark,) = recording.background
        assert (after, bark.class_) == ((), "dog-bark")
        voice, size = spoken(clip), len(spoken(bark))
        np.testing.assert_array_equal(recording.audio[: len(voice)], voice)
        assert recording.gaps == ((len(voice) / RATE, len(recording.audio) / RATE),)
        pause, sound = gap(recording)[:-size], gap(recording)[-size:]
        assert 1 * RATE <= len(pause) <= 10 * RATE
        assert not pause.any()
        assert -15.1 <= decibels(power(sound) / power(voice)) <= 0


def test_tails_end_an_utterance_and_a_dictation_in_turn(talk: Path) -> None:
    recordings = made(talk, "tails", count=16)
    silent = [not gap(recording).any() for recording in recordings]
    for form in (silent[::2], silent[1::2]):
        assert 0 < sum(form) < len(form)
    for recording in recordings:
        assert recording.parts[1] == ()
        assert recording.gaps[0][1] == len(recording.audio) / RATE
        if gap(recording).any():
            ratio = power(gap(recording)) / power(spoken(recording.speech[0]))
            assert -31.5 < decibels(ratio) < -4.5
    for short in recordings[::2]:
        (clip,) = short.speech
        np.testing.assert_array_equal(short.audio[: -len(gap(short))], spoken(clip))
        assert 1 <= len(gap(short)) / RATE <= 3
    for dictation in recordings[1::2]:
        assert {clip.group for clip in dictation.speech} == {"talker"}
        assert len(set(dictation.speech)) == len(dictation.speech) > 9
        end, length = dictation.gaps[0]
        assert 28 <= end <= 29.5
        assert 31 <= length <= 32
        pauses = len(dictation.speech) - 1
        paused = end - sum(len(spoken(clip)) for clip in dictation.speech) / RATE
        assert 0.2 * pauses <= paused <= 0.5 * pauses


def test_heads_begin_with_sound_or_silence(talk: Path) -> None:
    recordings = made(talk, "heads", count=8)
    assert {bool(gap(recording).any()) for recording in recordings} == {True, False}
    for recording in recordings:
        (before, (clip,)) = recording.parts
        assert (before, recording.gaps[0][0]) == ((), 0)
        assert 1 <= len(gap(recording)) / RATE <= 3
        np.testing.assert_array_equal(recording.audio[len(gap(recording)) :], spoken(clip))


def test_what_a_manifest_lacks_for_scenes(talk: Path, manifest: Path) -> None:
    clips = read_manifest(talk)
    given = material([clip for clip in clips if clip.class_ not in ("dog-bark", "sentence")])
    for condition in ("reply", "music-gaps", "paragraphs", "remarks", "joined"):
        with pytest.raises(ManifestError, match=f"condition {condition}: no fitting speech"):
            jobs(condition, given, 1)
    with pytest.raises(ManifestError, match="sound-after-speech: no sound of the classes human-nonverbal,"):
        jobs("sound-after-speech", given, 1)[0].make()
    with pytest.raises(ManifestError, match="tails: no speaker whose sentences"):
        jobs("tails", material(read_manifest(manifest)), 2)[1].make()
    with pytest.raises(ManifestError, match="condition single: no fitting speech"):
        jobs("single", material(read_manifest(manifest)), 1)
