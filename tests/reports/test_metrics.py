import warnings

import jiwer
import numpy as np
import pytest

from whisper_sae_steer.reports import metrics
from whisper_sae_steer.reports.metrics import WordErrors, bootstrap_difference, wilson, word_errors


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 40), (1, 1), (199, 398)])
def test_wilson_is_the_score_interval(k: int, n: int) -> None:
    rate = wilson(k, n)
    z = 1.959963984540054
    centre, half = (k + z * z / 2) / (n + z * z), z / (n + z * z) * np.sqrt(k * (n - k) / n + z * z / 4)
    assert rate.rate == k / n
    assert rate.low == pytest.approx(centre - half, abs=1e-12)
    assert rate.high == pytest.approx(centre + half, abs=1e-12)


def test_wilson_of_nothing() -> None:
    assert np.isnan(wilson(0, 0).rate)


def test_bootstrap_is_paired_weighted_and_repeatable() -> None:
    rng = np.random.default_rng(1)
    before = rng.integers(0, 4, 200)
    same = bootstrap_difference(before, before)
    assert (same.value, same.low, same.high, same.n) == (0, 0, 0, 200)
    words = rng.integers(5, 30, 200)
    shifted = bootstrap_difference(before + 1, before, words)
    assert shifted.value == pytest.approx(200 / words.sum())
    assert shifted.low < shifted.value < shifted.high
    assert shifted.high - shifted.low < 0.02
    assert shifted == bootstrap_difference(before + 1, before, words)
    assert shifted != bootstrap_difference(before + 1, before, words, seed=1)


def test_bootstrap_agrees_with_the_normal_interval() -> None:
    rng = np.random.default_rng(2)
    before, after = rng.random(500) < 0.7, rng.random(500) < 0.2
    change = after.astype(float) - before
    half = 1.96 * change.std() / np.sqrt(500)
    got = bootstrap_difference(after, before)
    assert got.value == pytest.approx(change.mean())
    assert got.low == pytest.approx(change.mean() - half, abs=0.006)
    assert got.high == pytest.approx(change.mean() + half, abs=0.006)


def test_bootstrap_of_nothing() -> None:
    assert np.isnan(bootstrap_difference([], []).value)
    assert np.isnan(bootstrap_difference([1.0], [0.0], [0]).value)


def test_bootstrap_of_one_clip_has_no_width() -> None:
    assert bootstrap_difference([3], [1], [8]) == (0.25, 0.25, 0.25, 1)


def test_bootstrap_leaves_out_resamples_without_weight() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = bootstrap_difference([0, 3, 0], [0, 1, 0], [0, 8, 0])
    assert got == (0.25, 0.25, 0.25, 3)


def test_bootstrap_of_many_clips_is_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    after, before, words = rng.integers(0, 4, 100), rng.integers(0, 4, 100), rng.integers(5, 30, 100)
    at_once = bootstrap_difference(after, before, words)
    monkeypatch.setattr(metrics, "_DRAWN_AT_ONCE", 150)
    assert bootstrap_difference(after, before, words) == pytest.approx(at_once)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("", "", False),
        (" ... ...", "", False),
        ("[Music]", "", False),
        ("♪♪", "", False),
        ("Thank you.", "", True),
        ("スタッフの方が", "", True),
        ("9", "", True),
        ("Спасибо", "ru", True),
        (" !?", "ru", False),
    ],
)
def test_has_text(text: str, language: str, expected: bool) -> None:
    assert metrics.has_text(text, language) is expected
    assert (metrics.characters(text, language) > 0) is expected


def test_characters_counts_letters_and_digits() -> None:
    assert metrics.characters("Thank you, 2!") == len("thankyou2")


def test_window_definitions() -> None:
    def raw(no_speech_prob: float, avg_logprob: float):
        return metrics.RawWindow(text="", no_speech_prob=no_speech_prob, avg_logprob=avg_logprob)

    assert metrics.not_flagged(raw(0.49, -2))
    assert not metrics.not_flagged(raw(0.5, 0))
    assert metrics.kept(raw(0.59, -2))
    assert metrics.kept(raw(0.9, -0.9))
    assert not metrics.kept(raw(0.6, -1))


def test_word_errors_are_jiwers_after_the_normaliser() -> None:
    reference, hypothesis = "MISTER SMITH HAS NINETY NINE CATS", "Mr. Smith had 99 big cats!"
    errors = word_errors(reference, hypothesis)
    assert errors == WordErrors(substitutions=1, deletions=0, insertions=1, words=5)
    assert errors is not None
    assert errors.rate == jiwer.wer("mr smith has 99 cats", "mr smith had 99 big cats")
    assert word_errors("Grüß Gott!", "grüß gott", "de") == WordErrors(0, 0, 0, 2)
    assert word_errors("good day", "") == WordErrors(0, 2, 0, 2)
    assert word_errors("[noise]", "thank you") is None


def test_total() -> None:
    assert metrics.total([WordErrors(1, 2, 3, 10), WordErrors(0, 1, 0, 5)]) == (1, 3, 3, 15)
    assert metrics.total([WordErrors(1, 2, 3, 10)]).rate == 0.6
    assert np.isnan(metrics.total([]).rate)


def test_auc() -> None:
    assert metrics.auc([0.9, 0.8], [0.1, 0.2]) == 1
    assert metrics.auc([0.5], [0.5]) == 0.5
    assert metrics.auc([0.1, 0.7], [0.2, 0.6]) == 0.5
    assert metrics.auc([], [0.2]) is None
