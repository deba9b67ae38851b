"""Mean log-mel around activations, its words, the excerpts and how they are written."""

import argparse
import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.sparse import csr_matrix

from tests.support.analysis_parts import make_store, sparse_features
from whisper_sae_steer.analysis.meaning import mel
from whisper_sae_steer.analysis.meaning.mel import MelConfig, interpret
from whisper_sae_steer.analysis.meaning.sound import (
    activation_seconds,
    band_hz,
    course_word,
    describe_sound,
    mean_mels,
)
from whisper_sae_steer.analysis.results import Analysis, write_result
from whisper_sae_steer.analysis.store.activations import Window
from whisper_sae_steer.analysis.store.excerpts import (
    Excerpt,
    count_recordings,
    excerpt_audio,
    player,
    top_excerpts,
)
from whisper_sae_steer.audio.writing import write_wav
from whisper_sae_steer.errors import AnalysisError, AudioError


def windows(lengths: list[int], groups: list[str]) -> list[Window]:
    firsts = np.cumsum([0, *lengths[:-1]]).tolist()
    return [
        Window(f"{i}.wav", f"/{i}.wav", 30.0 * i, "sound", f"label{i}", "s", group, "", "", first, frames)
        for i, (group, first, frames) in enumerate(zip(groups, firsts, lengths, strict=True))
    ]


def without(features: csr_matrix, dead: int) -> csr_matrix:
    dense = features.toarray()
    dense[:, dead] = 0
    return csr_matrix(dense)


def test_mean_mels_are_weighted_means_inside_windows():
    rng = np.random.default_rng(0)
    lengths, offsets = [7, 30, 13], [-9, -2, 0, 1, 5]
    numbers = np.repeat(np.arange(3), lengths)
    features = sparse_features(50, 6, 2)
    features = without(features, 3)
    log_mel = rng.normal(size=(50, 80)).astype(np.float16)
    means = mean_mels(features, log_mel, numbers, offsets)
    dense, exact = features.toarray(), log_mel.astype(np.float64)
    for f in range(6):
        for i, offset in enumerate(offsets):
            total, weight = np.zeros(80), 0.0
            for row in range(50):
                there = row + offset
                if 0 <= there < 50 and numbers[there] == numbers[row]:
                    total += dense[row, f] * exact[there]
                    weight += dense[row, f]
            expected = total / weight - exact.mean(0) if weight else np.zeros(80)
            np.testing.assert_allclose(means[f, i], expected, atol=1e-4)
    assert not means[3].any()


def test_an_offset_that_leaves_every_window_is_zero():
    features = csr_matrix(np.array([[0.0], [0], [2], [0]]))
    means = mean_mels(features, np.ones((4, 80), np.float16), np.array([0, 0, 1, 1]), [-1, 1])
    assert not means[0, 0].any()
    np.testing.assert_allclose(means, 0, atol=1e-6)  # every frame is the mean


OFFSETS = list(range(-24, 25, 2))


def sound_like(spectrum: NDArray[np.float64], course: NDArray[np.float64]) -> NDArray[np.float32]:
    return ((course[:, None] + spectrum) / 40).astype(np.float32)


def test_sound_in_words():
    at = np.array(OFFSETS)
    low, flat = np.zeros(80), np.zeros(80)
    low[5:9] = 20
    still = np.zeros(len(at))
    hz = band_hz()
    found = describe_sound(sound_like(low, still + 5), OFFSETS)
    assert found.words == "loud low sustained"
    assert (found.low_hz, found.high_hz) == (round(hz[5], 1), round(hz[8], 1))
    assert found.low_hz <= found.peak_hz <= found.high_hz
    assert found.level_db == pytest.approx(5 + 20 * 4 / 80, abs=0.01)
    assert describe_sound(sound_like(flat, np.where(at >= 0, 10.0, 0)), OFFSETS).words == "loud broad onset"
    assert describe_sound(sound_like(flat, np.where(at < 0, 10.0, 0)), OFFSETS).words.endswith("broad end")
    assert describe_sound(sound_like(flat, np.full(len(at), -8.0)), OFFSETS).words == "quiet broad sustained"
    burst = np.where(np.abs(at) < 9, 9.0, 0)
    assert describe_sound(sound_like(low - low[::-1], burst), OFFSETS).words == "loud low burst"
    assert course_word(rise=-3.5, contrast=0) == "end"


def test_bands_are_whispers():
    hz = band_hz()
    assert hz.shape == (80,)
    assert (np.diff(hz) > 0).all()
    assert 20 < hz[0] < 60
    assert 7600 < hz[-1] < 8000


def test_length_of_activations_ends_with_the_window():
    features = csr_matrix(np.array([[1, 0, 0], [1, 0, 0], [1, 0, 2], [0, 0, 0], [3, 0, 1]]))
    seconds = activation_seconds(features, np.array([0, 0, 1, 1, 1]))
    np.testing.assert_allclose(seconds, [0.02 * 4 / 3, 0, 0.02])


def test_excerpts_are_the_strongest_frame_of_each_group():
    lengths, groups = [200, 40, 100, 150], ["a", "b", "a", "c"]
    features = sparse_features(490, 5, 2, seed=3)
    features = without(features, 4)
    known = windows(lengths, groups)
    found = top_excerpts(features, known, count=2)
    dense = features.toarray()
    for f in range(4):
        best = {
            group: max(dense[w.rows, f].max() for w in known if w.group == group) for group in set(groups)
        }
        assert [e.value for e in found[f]] == pytest.approx(sorted(best.values(), reverse=True)[:2], abs=1e-4)
        for excerpt in found[f]:
            window = known[int(excerpt.clip.removesuffix(".wav"))]
            frame = round((excerpt.peak - window.start) / 0.02 - 0.5)
            assert dense[window.first + frame, f] == pytest.approx(excerpt.value, abs=1e-4)
            assert excerpt.seconds == pytest.approx(min(2.0, window.frames * 0.02))
            assert window.start <= excerpt.start <= excerpt.peak <= excerpt.start + excerpt.seconds
            assert excerpt.start + excerpt.seconds <= window.start + window.frames * 0.02 + 1e-6
    assert found[4] == []
    assert count_recordings(features, known).tolist() == [3, 3, 3, 3, 0]


def test_sound_of_an_excerpt(tmp_path: Path):
    path = tmp_path / "tone.wav"
    t = np.arange(48_000) / 16_000
    write_wav(path, np.where(t < 1, 0, 0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32))
    excerpt = Excerpt("tone.wav", str(path), 1.5, 1.0, 2.0, 3.0, 'a "tone" <b>', "sound")
    audio = excerpt_audio(excerpt)
    assert len(audio) == 16_000
    assert np.abs(np.fft.rfft(audio)).argmax() == 440
    shown = player(excerpt)
    assert "data:audio/ogg;base64," in shown
    assert "&lt;b&gt;" in shown
    with pytest.raises(AudioError, match="shorter than when it was encoded"):
        excerpt_audio(excerpt._replace(start=7.0))
    assert "no such file" in player(excerpt._replace(path=str(tmp_path / "gone.wav")))


def test_result_and_page(tmp_path: Path):
    features = without(sparse_features(300, 8, 3), 5)
    store = make_store(tmp_path / "store", features, labels=["x", "x", "y", "y", "z", "z"])
    out = tmp_path / "out"
    args = argparse.Namespace(store=store.path, sae=None, features=[], excerpts=2, out=out)
    result = mel.run(args)
    write_result(cast(Analysis, mel), "mel", result, out)
    saved = json.loads((out / "mel.json").read_text())
    assert [one["feature"] for one in saved["features"]] == list(range(8))
    dead = saved["features"][5]
    assert (dead["rate"], dead["max"], dead["sound"], dead["excerpts"]) == (0, 0, None, [])
    dense = features.toarray()
    for one in result.features:
        assert one.rate == pytest.approx((dense[:, one.feature] > 0).mean(), abs=1e-6)
        assert one.max == pytest.approx(dense[:, one.feature].max(), abs=1e-3)
        assert one.recordings == (6 if one.feature != 5 else 0)
        assert len(one.excerpts) == (2 if one.feature != 5 else 0)
    means = load_file(out / "mel.safetensors")
    assert means["difference"].shape == (8, 25, 80)
    assert sorted(result.shown) == [0, 1, 2, 3, 4, 6, 7]  # all that fire; the dead one can't be shown
    assert "no such file" in (out / "report.html").read_text()  # the recordings don't exist, and it says so
    asked = interpret(store, "sae", out, MelConfig(features=(5, 2)))
    assert asked.shown == [5, 2]
    assert "dead" in "\n".join(mel.text(asked))
    with pytest.raises(AnalysisError, match="no feature 8: sae has 0 to 7"):
        interpret(store, "sae", out, MelConfig(features=(8,)))


def test_store_without_a_feature_that_fires(tmp_path: Path):
    store = make_store(tmp_path / "store", np.zeros((300, 4), np.float32))
    result = interpret(store, "sae", tmp_path / "out")
    write_result(cast(Analysis, mel), "mel", result, tmp_path / "out")
    assert result.shown == []
    assert "0 of 4 features fire" in mel.text(result)[0]
