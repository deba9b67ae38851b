"""Ranking and sparse probing, against direct formulas, scikit-learn's own pipeline and planted features."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from tests.support.analysis_parts import make_store, sparse_features
from whisper_sae_steer.analysis.labels import probe
from whisper_sae_steer.analysis.labels.probing import ProbeScore, Probing, probe_curve, score
from whisper_sae_steer.analysis.labels.ranking import (
    Ranking,
    best_first,
    fisher_scores,
    l1_scores,
    random_scores,
)
from whisper_sae_steer.analysis.store.labelling import (
    LabelledUnits,
    sampled_frames,
    whole_windows,
    with_groups,
)
from whisper_sae_steer.analysis.store.sparse import product
from whisper_sae_steer.calibrate.selection import FrameSample, fisher_importance
from whisper_sae_steer.cli import main
from whisper_sae_steer.errors import AnalysisError

N, F = 240, 30
LABELS = np.tile(["cat", "dog", "rain"], N // 3)
GROUPS = np.repeat([f"g{i}" for i in range(20)], N // 20)
UNITS = LabelledUnits(csr_matrix((N, N)), LABELS, GROUPS)


@pytest.fixture
def features() -> csr_matrix:
    """Feature 7 marks dog, 2 marks rain, 5 is dead, the rest is noise."""
    values = sparse_features(N, F, 4).toarray() * 0.5
    values[:, [2, 5, 7]] = 0
    values[LABELS == "dog", 7] = 2
    values[LABELS == "rain", 2] = 1
    return csr_matrix(values)


@pytest.fixture
def dense() -> NDArray[np.float32]:
    noise = np.random.default_rng(3).normal(size=(N, 6))
    noise[:, 0] += 2 * (LABELS == "dog")
    return noise.astype(np.float32)


def test_fisher_score_is_the_formula(features: csr_matrix) -> None:
    scores = fisher_scores(features, LABELS)
    for feature, column in enumerate(features.toarray().T.astype(np.float64)):
        parts = [column[name == LABELS] for name in ("cat", "dog", "rain")]
        means = np.array([part.mean() for part in parts])
        expected = ((means - means.mean()) ** 2).sum() / (sum(part.var() for part in parts) + 1e-9)
        assert scores[feature] == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_fisher_score_of_two_labels_is_half_of_calibrations(features: csr_matrix) -> None:
    is_dog = LABELS == "dog"
    values = csr_matrix(features[:, [0, 1, 2, 3, 4, 6]])
    expected = np.abs(fisher_importance(FrameSample(values, is_dog)))
    np.testing.assert_allclose(2 * fisher_scores(values, is_dog.astype(str)), expected, rtol=1e-4)


@pytest.mark.parametrize("ranking", [fisher_scores, l1_scores])
def test_planted_features_come_first(ranking: Ranking, features: csr_matrix) -> None:
    scores = ranking(features, LABELS)
    assert set(best_first(scores)[:2].tolist()) == {2, 7}
    assert scores[5] == 0


def test_random_scores_are_of_features_that_fire(features: csr_matrix) -> None:
    scores = random_scores(features, LABELS)
    assert best_first(scores)[-1] == 5
    assert scores[5] == 0
    assert len(set(scores.tolist())) == F


def by_hand(values: NDArray[np.float32], scaler: MaxAbsScaler | StandardScaler) -> NDArray[np.str_]:
    predicted = LABELS.copy()
    splitter = StratifiedGroupKFold(4, shuffle=True, random_state=0)
    for fit, test in splitter.split(values, LABELS, GROUPS):
        model = make_pipeline(scaler, LogisticRegression(max_iter=500, tol=1e-3))
        predicted[test] = model.fit(values[fit], LABELS[fit]).predict(values[test])
    return predicted


def test_probes_are_scikit_learns_pipeline(features: csr_matrix, dense: NDArray[np.float32]) -> None:
    found = probe_curve(features, dense, UNITS, ks=[1, 2, 5, 100], folds=4)
    assert [(p.ranking, p.k) for p in found.points] == [
        (ranking, k) for ranking in ("fisher", "l1", "random") for k in (1, 2, 5)
    ]
    for values, scaler, scored in (
        (features.toarray(), MaxAbsScaler(), found.everything),
        (dense, StandardScaler(), found.dense),
        (features.toarray()[:, [2, 7]], MaxAbsScaler(), at(found, "fisher", 2)),
    ):
        predicted = by_hand(values, scaler)
        assert scored.accuracy == pytest.approx(accuracy_score(LABELS, predicted), abs=2 / N)
        assert scored.balanced_accuracy == pytest.approx(
            balanced_accuracy_score(LABELS, predicted), abs=2 / N
        )
    assert (found.alive, found.features, found.width, found.groups) == (F - 1, F, 6, 20)


def test_two_planted_features_do_all_and_one_does_two_thirds(
    features: csr_matrix, dense: NDArray[np.float32]
) -> None:
    found = probe_curve(features, dense, UNITS, ks=[1, 2])
    assert at(found, "fisher", 1).accuracy == pytest.approx(2 / 3)
    assert at(found, "fisher", 2).accuracy == 1
    assert found.everything.accuracy == 1
    assert found.majority.balanced_accuracy == pytest.approx(1 / 3)
    assert at(found, "random", 2).accuracy < 0.5


def test_scores_are_scikit_learns() -> None:
    predicted = np.random.default_rng(0).permutation(LABELS)
    found = score(UNITS, predicted)
    assert found.accuracy == pytest.approx(accuracy_score(LABELS, predicted))
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(LABELS, predicted))
    for name, recall in found.recall.items():
        assert recall == pytest.approx(recall_score(name == LABELS, predicted == name))


def test_intervals_are_of_groups_not_units() -> None:
    """Groups that are right or wrong as a whole: the interval is that of 20 units, not of 240."""
    right = np.isin(GROUPS, [f"g{i}" for i in range(10)])
    low, high = score(UNITS, np.where(right, LABELS, "no")).accuracy_interval
    # of 20 groups half are right: binomial 95% interval 0.3 … 0.7
    assert (low, high) == (pytest.approx(0.3, abs=0.05), pytest.approx(0.7, abs=0.05))


def test_units_of_a_store(tmp_path: Path) -> None:
    features = sparse_features(100, 8, 3)
    store = make_store(tmp_path, features, domains=("speech", "music"), lengths=[30, 70])
    windows = whole_windows(store, "domain")
    np.testing.assert_allclose(
        product(windows.mean, features), [features[:30].mean(0).A1, features[30:].mean(0).A1], rtol=1e-5
    )
    frames = store.frames("encoder_output").astype(np.float32)
    np.testing.assert_allclose(
        windows.of(frames.astype(np.float16))[1], frames[30:].mean(0), rtol=1e-3, atol=1e-4
    )
    sampled = sampled_frames(store, "domain", 40)
    assert sampled.labels.tolist() == ["speech"] * 30 + ["music"] * 40
    rows = sampled.mean.indices
    assert len(set(rows.tolist())) == 70
    np.testing.assert_array_equal(product(sampled.mean, features), features[rows].toarray())


def test_labels_of_few_groups_are_left_out() -> None:
    labels = np.where(np.isin(GROUPS, ["g0", "g1"]), "bird", LABELS)
    kept = with_groups(UNITS._replace(labels=labels), 5)
    assert kept.left_out == ("bird",)
    assert len(kept.units.labels) == N - 24
    with pytest.raises(AnalysisError, match="0 of 4 labels have 30 recordings"):
        with_groups(UNITS._replace(labels=labels), 30)


def test_command(tmp_path: Path) -> None:
    store_with_labels(tmp_path / "store")
    out = tmp_path / "out"
    command = [
        "analyze",
        "probe",
        str(tmp_path / "store"),
        "--folds",
        "3",
        "--k",
        "1",
        "2",
        "--level",
        "window",
    ]
    assert main([*command, "--out", str(out)]) == 0
    result = json.loads((out / "probe.json").read_text())
    best = next(p for p in result["probing"]["points"] if (p["ranking"], p["k"]) == ("fisher", 1))
    assert best["score"]["accuracy"] == 1
    assert result["probing"]["counts"] == {"dog": 9, "rain": 9}
    assert "Sparse probing" in (out / "report.html").read_text()


def test_phones_from_alignments(tmp_path: Path) -> None:
    """Each phone of 5 frames has a feature of its own; the gap has none and isn't probed."""
    rows = np.tile(np.repeat([0, 1, 2, 3], 5), 9)
    values = np.zeros((180, 6))
    values[np.arange(180), rows] = 1
    taps = {"encoder_output": values}
    make_store(tmp_path / "store", csr_matrix(values), domains=["speech"] * 9, lengths=20, taps=taps)
    lines = [
        f"{i} 1 {0.1 * p} 0.1 {phone}\n" for i in range(9) for p, phone in enumerate(("AA", "B", "sil", "K"))
    ]
    (tmp_path / "all.ctm").write_text("".join(lines))
    result = run(tmp_path, "--alignments", str(tmp_path), "--k", "1", "2", "3")
    assert result.probing.counts == {"AA": 45, "B": 45, "K": 45}
    assert (result.target, result.unit, result.probing.everything.accuracy) == ("phone", "frame", 1)
    assert at(result.probing, "fisher", 2).recall == {"AA": 1, "B": 1, "K": 1}
    assert probe.enough(result.probing, "fisher") == 2
    assert "Accuracy of each phone" in "".join(probe.section(result))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "0 of 3 labels have 5 recordings"),
        (["--by", "language"], "no recording has a language"),
        (["--folds", "1"], "--folds must be at least 2"),
        (["--k", "0"], "--k must be at least 1"),
    ],
)
def test_what_cannot_be_probed(tmp_path: Path, arguments: list[str], says: str) -> None:
    make_store(tmp_path / "store")
    with pytest.raises(AnalysisError, match=says):
        run(tmp_path, *arguments)


def test_a_dead_sae_tells_nothing(tmp_path: Path) -> None:
    make_store(tmp_path / "store", csr_matrix((300, 8), dtype=np.float32))
    result = run(tmp_path, "--folds", "2")
    assert result.probing.alive == 0
    assert result.probing.everything.balanced_accuracy == pytest.approx(1 / 3)
    assert probe.section(result)


def store_with_labels(path: Path) -> None:
    values = sparse_features(18 * 5, 20, 3).toarray() * 0.5
    values[:, 7] = np.repeat(np.arange(18) % 2, 5)
    make_store(path, csr_matrix(values), domains=["sound"] * 18, lengths=5, labels=["rain", "dog"] * 9)


def at(probing: Probing, ranking: str, k: int) -> ProbeScore:
    return next(p.score for p in probing.points if (p.ranking, p.k) == (ranking, k))


def run(folder: Path, *arguments: str) -> probe.ProbeResult:
    parser = argparse.ArgumentParser()
    probe.add_arguments(parser)
    return probe.run(parser.parse_args([str(folder / "store"), *arguments]))
