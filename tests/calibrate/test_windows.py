"""Calibration windows: mixing, splitting, planning and the folder of encoded windows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support.calibration_parts import clip, names
from tests.support.real_models import SAMPLES, weights
from whisper_sae_steer.audio.clips import Clip, select
from whisper_sae_steer.audio.mixing import mix
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.audio.units import SAMPLE_RATE, WINDOW_SAMPLES
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.calibrate.windows import (
    MAX_WINDOWS,
    SHORT_SECONDS,
    CalibrationWindow,
    encode,
    held_back,
    loudest,
    plan,
    words_in_noise,
)
from whisper_sae_steer.models.taps import WindowEncoder

SPEECH = SAMPLES / "speech.ogg"


def gaussian(samples: int, size: float, seed: int) -> NDArray[np.float32]:
    return (size * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def added(mixed: NDArray[np.float32], speech: NDArray[np.float32], gain: float) -> NDArray[np.float64]:
    """What mixing added to the speech, before the gain."""
    return mixed.astype(np.float64) / 10 ** (gain / 20) - speech


@pytest.mark.parametrize("snr", [20.0, 10.0, 5.0, 0.0, -5.0])
@pytest.mark.parametrize("gain", [0.0, -20.0, -40.0])
@pytest.mark.parametrize("length", [3000, 16_000, 50_000])
def test_mix_reaches_snr_and_gain(snr: float, gain: float, length: int):
    speech, noise = gaussian(16_000, 0.05, 0), gaussian(length, 0.002, 1)
    mixed = mix(speech, noise, snr, gain)
    assert mixed.dtype == np.float32
    assert mixed.shape == speech.shape
    noise_there = added(mixed, speech, gain)
    power = np.mean(speech.astype(np.float64) ** 2)
    assert 10 * np.log10(power / np.mean(noise_there**2)) == pytest.approx(snr, abs=0.01)
    repeated = np.tile(noise, 6)[:16_000].astype(np.float64)
    np.testing.assert_allclose(noise_there / noise_there.std(), repeated / repeated.std(), atol=2e-3)


def test_loud_mixture_is_turned_down_as_a_whole():
    speech, noise = gaussian(8000, 0.5, 0), gaussian(8000, 0.5, 1)
    mixed = mix(speech, noise, 0.0)
    assert np.abs(mixed).max() == pytest.approx(1)
    quiet = mix((speech / 100).astype(np.float32), noise, 0.0)
    np.testing.assert_allclose(mixed / mixed.std(), quiet / quiet.std(), atol=1e-5)


def test_silent_noise_leaves_the_speech():
    speech = gaussian(8000, 0.05, 0)
    np.testing.assert_array_equal(mix(speech, np.zeros(100, np.float32), 0.0), speech)
    assert not mix(np.zeros(100, np.float32), speech, 0.0).any()


@pytest.mark.parametrize(("at", "start"), [(0, 0), (20_000, 12_000), (47_000, 32_000)])
def test_loudest_piece_surrounds_the_burst(at: int, start: int):
    audio = gaussian(48_000, 1e-3, 0)
    audio[at : at + 800] += 0.5
    piece = loudest(audio, 1.0)
    assert len(piece) == SAMPLE_RATE
    index = int(np.flatnonzero(audio == piece[0])[0])
    assert np.array_equal(audio[index : index + SAMPLE_RATE], piece)
    assert abs(index - start) <= SAMPLE_RATE // 10


def test_loudest_of_something_shorter_is_all_of_it():
    audio = gaussian(800, 0.1, 0)
    assert np.array_equal(loudest(audio, 1.0), audio)


def test_a_quarter_is_held_back():
    assert np.mean([held_back(f"speaker/{i}") for i in range(4000)]) == pytest.approx(0.25, abs=0.02)


def test_clips_that_select_takes_are_held_back_as_often():
    every = [clip(f"{i}.wav", "speech", group=f"speaker/{i}") for i in range(2000)]
    assert np.mean([held_back(c.group) for c in select(every, 500)]) == pytest.approx(0.25, abs=0.05)


@pytest.fixture
def clips() -> tuple[list[Clip], list[Clip]]:
    groups = [*names("recording", False, 6), *names("recording", True, 2)]
    noise = [clip(f"noise/{i}", group=groups[i // 2], seconds=70.0) for i in range(16)]
    return noise, [clip(f"speech/{i}", "speech", seconds=70.0) for i in range(30)]


def test_plan_is_the_same_each_time_and_has_unique_keys(clips: tuple[list[Clip], list[Clip]]):
    recipes = plan(*clips, synthetic=2, seed=3)
    keys = [recipe.key for recipe in recipes]
    assert keys == [recipe.key for recipe in plan(*clips, synthetic=2, seed=3)]
    assert keys != [recipe.key for recipe in plan(*clips, synthetic=2, seed=4)]
    assert len(set(keys)) == len(keys) == 16 * 3 + 30 * 3 + 2


def test_plan_takes_noise_from_the_same_part(clips: tuple[list[Clip], list[Clip]]):
    noisy = [recipe for recipe in plan(*clips, synthetic=0, seed=0) if recipe.noise is not None]
    assert len({recipe.snr for recipe in noisy}) > 2
    parts: set[bool] = set()
    for recipe in noisy:
        assert recipe.clip is not None
        assert recipe.noise is not None
        assert held_back(recipe.clip.group) == held_back(recipe.noise.group)
        parts.add(held_back(recipe.clip.group))
    assert parts == {True, False}


def test_plan_has_a_short_piece_of_each_utterance(clips: tuple[list[Clip], list[Clip]]):
    short = [recipe.short for recipe in plan(*clips, synthetic=0, seed=0) if recipe.short]
    assert len(short) == 30
    assert SHORT_SECONDS[0] <= min(short) < max(short) <= SHORT_SECONDS[1]
    word = clip("word", "speech", seconds=SHORT_SECONDS[0])
    assert [recipe.short for recipe in plan([], [word], 0, 0)] == [0], "a word is as short itself"


def test_words_in_noise_are_the_same_each_time(clips: tuple[list[Clip], list[Clip]]):
    recipes = words_in_noise(*clips, seed=3)
    assert [r.key for r in recipes] == [r.key for r in words_in_noise(*clips, seed=3)]
    assert {r.key for r in recipes}.isdisjoint(r.key for r in plan(*clips, synthetic=0, seed=3))
    assert len({r.key for r in recipes}) == 30
    for recipe in recipes:
        assert recipe.clip is not None
        assert recipe.noise is not None
        assert held_back(recipe.clip.group) == held_back(recipe.noise.group)
        assert SHORT_SECONDS[0] <= recipe.short <= SHORT_SECONDS[1]
        assert recipe.at is not None
        assert 0 <= recipe.at <= WINDOW_SAMPLES - recipe.short * SAMPLE_RATE
    assert words_in_noise([], clips[1], seed=3) == []


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.3, 1), (30.0, 1), (60.9, 2), (61.1, 3), (5000.0, MAX_WINDOWS)]
)
def test_plan_cuts_long_recordings(seconds: float, expected: int):
    starts = [recipe.start for recipe in plan([clip("a", seconds=seconds)], [], 0, 0)]
    assert starts == [i * WINDOW_SAMPLES for i in range(expected)]
    speech = plan([], [clip("a", "speech", seconds=seconds)], 0, 0)
    assert {recipe.start for recipe in speech} == {0}


def test_plan_reads_unknown_lengths_from_the_file(tmp_path: Path):
    write_wav(tmp_path / "long.wav", np.zeros(40 * SAMPLE_RATE))
    recordings = [clip("long", path=tmp_path / "long.wav", seconds=None), clip("lost", seconds=None)]
    assert [(r.key, r.start) for r in plan(recordings, [], 0, 0)] == [
        ("long@0", 0),
        (f"long@{WINDOW_SAMPLES}", WINDOW_SAMPLES),
        ("lost@0", 0),
    ]


class CountingEncoder:
    """Encodes a window as its first sample, and stops at the ``limit``-th."""

    workers = 1

    def __init__(self, limit: int | None = None):
        self.lengths: list[int] = []
        self.limit = limit

    def __call__(self, audio: Sequence[NDArray[np.float32]]) -> torch.Tensor:
        if len(self.lengths) == self.limit:
            raise KeyboardInterrupt
        self.lengths.append(len(audio[0]))
        return torch.full((1, 1500, 4), float(audio[0][0]))


def encoded(
    encoder: Any, nonspeech: Sequence[Clip], speech: Sequence[Clip], folder: Path
) -> list[CalibrationWindow]:
    return encode(encoder, plan(nonspeech, speech, 2, 0), folder)


def facts(windows: Sequence[CalibrationWindow]) -> list[tuple[object, ...]]:
    return [(w.key, w.held_back, w.content, w.speech.tobytes(), w.frames()[0, 0].item()) for w in windows]


@pytest.fixture
def recordings(tmp_path: Path) -> list[Clip]:
    """Noise of 2 and 65 s, a file that is no audio, and one shorter than its manifest says."""
    write_wav(tmp_path / "short.wav", gaussian(2 * SAMPLE_RATE, 0.1, 0))
    write_wav(tmp_path / "long.wav", gaussian(65 * SAMPLE_RATE, 0.1, 1))
    (tmp_path / "broken.wav").write_text("not audio")
    return [
        clip("short", path=tmp_path / "short.wav", seconds=None),
        clip("broken", path=tmp_path / "broken.wav", seconds=None),
        clip("long", path=tmp_path / "long.wav", seconds=None),
        clip("cut", path=tmp_path / "short.wav", seconds=59.0),
    ]


def test_encode_skips_what_it_cannot_read(
    recordings: list[Clip], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    encoder = CountingEncoder()
    windows = encoded(encoder, recordings, [], tmp_path / "work")
    keys = ["short@0", "long@0", "long@480000", "long@960000", "cut@0"]
    assert [w.key for w in windows[:5]] == keys
    assert [w.content for w in windows[:5]] == [100, 1500, 1500, 250, 100]
    assert encoder.lengths[:5] == [32_000, 480_000, 480_000, 80_000, 32_000]
    assert [w.source for w in windows[5:]] == ["synthetic", "synthetic"]
    assert not any(w.is_speech or w.speech.any() for w in windows)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped:")]
    assert len(lines) == 2
    assert "broken.wav can't be decoded" in lines[0]
    assert "shorter than its manifest says" in lines[1]


def test_interrupted_encode_goes_on(recordings: list[Clip], tmp_path: Path):
    whole = encoded(CountingEncoder(), recordings, [], tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        encoded(CountingEncoder(limit=3), recordings, [], tmp_path / "parts")
    assert len(list((tmp_path / "parts").iterdir())) == 3
    rest = CountingEncoder()
    continued = encoded(rest, recordings, [], tmp_path / "parts")
    assert len(rest.lengths) == len(whole) - 3
    assert facts(continued) == facts(whole)
    again = encoded(CountingEncoder(limit=0), recordings, [], tmp_path / "parts")
    assert facts(again) == facts(whole)


def test_clips_of_one_recording_stay_together(tmp_path: Path):
    write_wav(tmp_path / "a.wav", gaussian(SAMPLE_RATE, 0.1, 0))
    groups = [*names("recording", True, 1), *names("recording", False, 1)]
    clips = [clip(f"{i}", path=tmp_path / "a.wav", group=groups[i % 2]) for i in range(8)]
    windows = encoded(CountingEncoder(), clips, [], tmp_path / "work")
    assert [w.held_back for w in windows[:8]] == [True, False] * 4


def test_speech_windows_know_where_speech_is(tmp_path: Path):
    (group,) = names("speaker", False, 1)
    write_wav(tmp_path / "noise.wav", gaussian(3 * SAMPLE_RATE, 0.05, 0))
    speech = clip("utterance", "speech", path=SPEECH, text="the train", group=group, seconds=10.0)
    noise = clip("noise", path=tmp_path / "noise.wav", group=group)
    encoder = CountingEncoder()
    windows = encoded(encoder, [noise], [speech], tmp_path / "work")[1:4]
    plain, noisy, short = windows
    assert noisy.key.startswith("utterance+noise@")
    assert all(w.is_speech for w in windows)
    assert plain.content == noisy.content == 500
    np.testing.assert_array_equal(plain.speech, noisy.speech)  # as heard in the clean recording
    heard = np.flatnonzero(plain.speech)
    assert abs(heard[0] - 50) < 15  # speech lasts from 1.0 to 7.43 s
    assert abs(heard[-1] - 371) < 15
    assert plain.speech[heard[0] : heard[-1]].mean() > 0.8
    assert SHORT_SECONDS[0] * 50 <= short.content <= SHORT_SECONDS[1] * 50
    assert short.speech.any()
    assert [w.reference for w in windows] == ["the train", "the train", ""]


def test_a_word_lies_somewhere_in_a_window_of_noise(tmp_path: Path):
    (group,) = names("speaker", False, 1)
    write_wav(tmp_path / "noise.wav", gaussian(3 * SAMPLE_RATE, 0.05, 0))
    speech = clip("utterance", "speech", path=SPEECH, text="the train", group=group, seconds=10.0)
    noise = clip("noise", path=tmp_path / "noise.wav", group=group)
    encoder: Any = Mock(workers=1, return_value=torch.zeros(1, 1500, 4))
    (recipe,) = words_in_noise([noise], [speech], 0)
    (window,) = encode(encoder, [recipe], tmp_path / "work")
    ((audio,),) = encoder.call_args.args
    assert recipe.at is not None
    start, length = recipe.at, int(recipe.short * SAMPLE_RATE)
    heard = np.flatnonzero(window.speech) * 320
    assert start - 800 <= heard.min() <= heard.max() <= start + length + 800
    assert window.content == 1500
    assert window.is_speech
    assert window.reference == ""
    word = loudest(load_audio(SPEECH), recipe.short)
    rest = np.delete(audio, slice(start, start + length))
    assert 10 * np.log10(np.mean(word**2) / np.mean(rest**2)) == pytest.approx(recipe.snr, abs=0.1)
    assert np.corrcoef(word, audio[start : start + length])[0, 1] > 0.85


def test_long_speech_has_no_reference(tmp_path: Path):
    speech = clip("long", "speech", path=SAMPLES / "gap.ogg", text="all of it", seconds=97.0)
    windows = encoded(CountingEncoder(), [], [speech], tmp_path / "work")
    assert windows[0].content == 1500
    assert windows[0].reference == ""


def test_frames_beyond_float16_are_kept_whole(tmp_path: Path):
    """Blocks of large models write more than 65,504 into single channels."""
    (recipe,) = plan([], [], 1, 0)
    frames = torch.randn(1, 1500, 4, generator=torch.Generator().manual_seed(0))
    encoder: Any = Mock(workers=1, return_value=frames)
    for largest, dtype in ((65_000.0, np.float16), (70_000.0, np.float32)):
        frames[0, 7, 2] = -largest
        (window,) = encode(encoder, [recipe], tmp_path / f"{largest}")
        assert np.load(window.path)["frames"].dtype == dtype
        torch.testing.assert_close(window.frames(), frames[0], rtol=2**-11, atol=1e-7)


def test_windows_hold_the_encoders_frames(tmp_path: Path):
    encoder = WindowEncoder(weights("tiny.en"), threads=1)
    (window,) = encode(encoder, plan([], [], 1, 0), tmp_path)
    ((audio,),) = ([recipe.synthetic] for recipe in plan([], [], 1, 0))
    assert audio is not None
    torch.testing.assert_close(window.frames(), encoder([audio])[0], rtol=1e-3, atol=1e-3)
    assert window.frames().dtype == torch.float32


def test_windows_come_in_the_order_of_their_recipes_from_several_threads(tmp_path: Path):
    recipes = plan([], [], 12, 0)
    here = encode(WindowEncoder(weights("tiny.en"), threads=1), recipes, tmp_path / "one")
    encoder = WindowEncoder(weights("tiny.en"), threads=3, parallel=True)
    windows = encode(encoder, recipes, tmp_path / "three")
    assert encoder.workers == 3
    assert [w.key for w in windows] == [w.key for w in here] == [recipe.key for recipe in recipes]
    for one, other in zip(windows, here, strict=True):
        torch.testing.assert_close(one.frames(), other.frames(), rtol=1e-2, atol=1e-2)
