"""Stability: IoU against scikit-learn, coverage by hand, and stores that can't be compared."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from sklearn.metrics import jaccard_score

from tests.support.analysis_parts import make_sae, make_store, sparse_features
from whisper_sae_steer.analysis.likeness import stability
from whisper_sae_steer.analysis.likeness.comparison import decoder_cosine, find_duplicates, match
from whisper_sae_steer.analysis.store.activations import ActivationStore
from whisper_sae_steer.analysis.store.common_frames import common_frames
from whisper_sae_steer.analysis.store.overlap import firing, iou
from whisper_sae_steer.cli import main
from whisper_sae_steer.errors import AnalysisError


def columns(*numbers: list[int]) -> csr_matrix:
    """Features by the frames of 8 that each fires on, values that differ."""
    dense = np.zeros((8, len(numbers)), np.float32)
    for feature, frames in enumerate(numbers):
        dense[frames, feature] = 0.5 + feature
    return csr_matrix(dense)


def spans_of(store: ActivationStore, other: ActivationStore):
    return common_frames(store.windows, other.windows)


def test_iou_is_the_jaccard_score():
    a, b = sparse_features(120, 9, 3, seed=1), sparse_features(120, 7, 2, seed=2)
    expected = [[jaccard_score(a[:, [i]].toarray() > 0, b[:, [j]].toarray() > 0) for j in range(7)]
                for i in range(9)]  # fmt: skip
    np.testing.assert_allclose(iou(firing(a), firing(b)), expected, rtol=1e-6)


def test_best_matches_by_hand(tmp_path: Path):
    # of a: 0 = b0 exactly; 1 shares 2 of 4 frames with b1 (not above 0.5); 2 is dead; 3 shares 3 of 4 with b1
    a = columns([0, 1], [2, 3, 4], [], [3, 4, 5, 6])
    b = columns([0, 1], [3, 4, 5])
    store = make_store(tmp_path / "a", a, domains=["speech"] * 2, lengths=4)
    in_b, in_a, pairs = match(a, b, spans_of(store, store))
    assert in_b.best == (1.0, 0.5, None, 0.75)
    assert in_b.partner == (0, 1, None, 1)
    assert in_b.alive == 3
    assert in_b.coverage == pytest.approx(2 / 3)
    assert in_b.of_firings == pytest.approx(6 / 9)
    assert in_a.best == (1.0, 0.75)
    assert in_a.partner == (0, 3)
    assert (pairs.pairs, pairs.coverage, pairs.partner) == (2, 1.0, (0, None, None, 1))
    assert pairs.mean_iou == pytest.approx(0.875)
    thresholds = dict(zip(stability.THRESHOLDS, in_b.curve, strict=True))
    assert (thresholds[0.45], thresholds[0.7], thresholds[0.75]) == pytest.approx((1, 2 / 3, 1 / 3))
    strata = [(stratum.features, stratum.coverage) for stratum in in_b.by_rate]
    assert strata == [(0, None), (0, None), (0, None), (0, None), (3, pytest.approx(2 / 3))]


def test_one_to_one_has_the_highest_sum(tmp_path: Path):
    a, b = sparse_features(300, 30, 4, seed=1), sparse_features(300, 20, 4, seed=2)
    store = make_store(tmp_path / "a", a)
    *_, pairs = match(a, b, spans_of(store, store))
    score = iou(firing(a), firing(b))
    best = score[linear_sum_assignment(-score)]
    assert pairs.mean_iou == pytest.approx(best.mean(), rel=1e-5)
    used = [partner for partner in pairs.partner if partner is not None]
    assert len(used) == len(set(used)) == pairs.pairs == 20


def test_chance_is_far_below_what_is_the_same(tmp_path: Path):
    a = sparse_features(3000, 40, 4)
    a.data *= np.random.default_rng(5).random(a.nnz) > 0.1  # the other fires on nine in ten of its frames
    b = sparse_features(3000, 40, 4)
    store = make_store(tmp_path / "a", a, lengths=500)
    found, *_ = match(a, b, spans_of(store, store))
    assert found.coverage == 1
    assert found.chance == 0
    assert found.partner == tuple(range(40))
    single = make_store(tmp_path / "b", a, domains=["speech"], lengths=3000)
    assert match(a, b, spans_of(single, single))[0].chance is None


def test_windows_are_cut_to_what_both_have(tmp_path: Path):
    whole = sparse_features(300, 20, 3)
    lengths = [49, 50, 48, 50, 50, 50]
    kept = np.concatenate([np.arange(50 * i, 50 * i + length) for i, length in enumerate(lengths)])
    one = make_store(tmp_path / "a", whole)
    other = make_store(tmp_path / "b", whole[kept], lengths=lengths, model="hubert")
    found, *_ = match(whole, whole[kept], spans_of(one, other))
    assert {best for best in found.best if best is not None} == {1.0}
    # a piece of a frame or two that the other encoder can't take
    shorter = [window for window in one.windows if window.clip != "5.wav"]
    last = one.windows[5]._replace(frames=2)
    assert len(common_frames([*shorter, last], shorter).frames) == 5


def test_other_recordings_are_refused(tmp_path: Path):
    one = make_store(tmp_path / "a")
    longer = make_store(tmp_path / "b", lengths=[50, 53, 50, 50, 50, 50])
    with pytest.raises(AnalysisError, match=r"other audio: 1\.wav at 0 s has 50 and 53 frames"):
        stability.stability([(one, "sae"), (longer, "sae")])
    fewer = make_store(tmp_path / "c", domains=["speech", "music"])
    with pytest.raises(AnalysisError, match=r"2\.wav at 0 s has 50 and 0 frames"):
        stability.stability([(one, "sae"), (fewer, "sae")])
    with pytest.raises(AnalysisError, match="no window in common"):
        common_frames([], one.windows[:0])


def test_duplicates_by_hand():
    found = find_duplicates(columns([0, 1], [0, 1], [1, 2, 3], [2, 3], [7], []), "mine", "block.1")
    assert (found.alike, found.copies, found.features) == (2, 1, 6)
    assert [(twins.a, twins.b) for twins in found.top] == [(0, 1), (2, 3)]
    assert found.top[1].iou == pytest.approx(2 / 3, abs=1e-4)
    assert found.closest.coverage == pytest.approx(4 / 5)
    assert found.closest.best[4:] == (0, None)
    assert found.closest.partner[4:] == (None, None)


def test_a_dead_sae_is_refused(tmp_path: Path):
    store = make_store(tmp_path / "a", {"live": sparse_features(300, 8, 2), "dead": np.zeros((300, 8))})
    with pytest.raises(AnalysisError, match="no feature of dead fires"):
        stability.stability([(store, "live"), (store, "dead")])


def test_directions_are_compared_where_activations_are_the_same(tmp_path: Path):
    features = sparse_features(300, 40, 4)
    shuffled = np.random.default_rng(0).permutation(40)
    store = make_store(tmp_path / "a", {"one": features})
    other = make_store(tmp_path / "b", {"two": features[:, shuffled]}, sae=make_sae(seed=0))
    result = stability.stability([(store, "one"), (other, "two")])
    (pair,) = result.pairs
    assert pair.kind == "same activations"
    assert pair.one_to_one.partner == tuple(np.argsort(shuffled))
    cosine = decoder_cosine(make_sae(), make_sae())
    assert pair.cosine is not None
    assert pair.cosine.mean_best == pytest.approx(1)
    assert pair.cosine.shared == 1
    expected = cosine[shuffled, np.arange(40)].mean()  # the same firing, but directions of other features
    assert pair.cosine.of_pairs == pytest.approx(expected, rel=1e-5)
    layer = make_store(tmp_path / "c", {"two": features}, taps={"block.1": np.zeros((300, 12))})
    (pair,) = stability.stability([(store, "one"), (layer, "two")]).pairs
    assert (pair.kind, pair.cosine) == ("other layer", None)
    model = replace(layer, fingerprint="0" * 32)
    assert stability.stability([(store, "one"), (model, "two")]).pairs[0].kind == "other model"


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    saes = {f"seed{i}": sparse_features(300, 30, 4, seed=i // 2) for i in range(4)}
    make_store(tmp_path / "store", saes)
    given = [f"{tmp_path / 'store'}:{name}" for name in saes]
    for count, pairs in ((1, 0), (2, 1), (4, 6)):  # duplicates alone, curves, a matrix
        out = tmp_path / f"out{count}"
        assert main(["analyze", "stability", *given[:count], "--out", str(out)]) == 0
        result = json.loads((out / "stability.json").read_text())
        assert (len(result["pairs"]), len(result["duplicates"])) == (pairs, count)
        assert (out / "stability.svg").read_text().endswith("</svg>\n")
    assert result["pairs"][0]["a_in_b"]["coverage"] == 1
    page = (tmp_path / "out2" / "report.html").read_text()
    assert "100.0% of the 30 live features of seed0 are found in seed1 (0.0% by chance)" in page
    assert "seed0" in capsys.readouterr().out
    assert main(["analyze", "stability", given[0], given[0], "--out", str(tmp_path)]) == 2
    assert "given twice" in capsys.readouterr().err
