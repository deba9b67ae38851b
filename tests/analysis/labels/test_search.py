"""Feature search, against scikit-learn, scipy and statsmodels, and on planted features."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.stats import fisher_exact
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve
from statsmodels.stats.multitest import multipletests

from tests.support.analysis_parts import make_store, sparse_features
from whisper_sae_steer.analysis.labels import search
from whisper_sae_steer.analysis.labels.association import find_features, group_tests, halves
from whisper_sae_steer.analysis.labels.search import window_maxima
from whisper_sae_steer.analysis.labels.thresholds import Sweep
from whisper_sae_steer.analysis.results import plain
from whisper_sae_steer.analysis.store.activations import Window
from whisper_sae_steer.cli import main
from whisper_sae_steer.errors import AnalysisError

LABELS = np.repeat(["cat", "dog", "rain"], [6, 8, 10])


@pytest.fixture
def features() -> csr_matrix:
    """Few distinct values, so that ties are common; feature 3 is dead."""
    features = sparse_features(300, 12, 4).toarray()
    features[:, 3] = 0
    return csr_matrix(np.round(features, 1))


@pytest.fixture
def is_label() -> NDArray[np.bool_]:
    return np.random.default_rng(1).random(300) < 0.2


def test_best_f1_and_average_precision_are_scikit_learns(
    features: csr_matrix, is_label: NDArray[np.bool_]
) -> None:
    best = Sweep(features).best(is_label)
    for feature, column in enumerate(features.toarray().T):
        assert best.average_precision[feature] == pytest.approx(average_precision_score(is_label, column))
        if feature == 3:
            assert best.f1[feature] == 0
            assert np.isinf(best.threshold[feature])
            continue
        precision, recall, thresholds = precision_recall_curve(is_label, column)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        assert best.f1[feature] == pytest.approx(f1[:-1][thresholds > 0].max())
        chosen = f1_score(is_label, column >= best.threshold[feature])
        assert chosen == pytest.approx(best.f1[feature])


def test_of_equally_good_thresholds_the_highest_is_taken() -> None:
    features = csr_matrix(np.array([[3.0], [2.0], [1.0], [0.0]]))
    best = Sweep(features).best(np.array([True, False, True, False]))  # F1: 2/3, 1/2, 4/5
    assert (best.threshold[0], best.f1[0]) == (1, pytest.approx(0.8))
    best = Sweep(features).best(np.array([True, False, False, True]))  # 2/3, 1/2, 2/5
    assert best.threshold[0] == 3


def test_group_tests_are_fishers_exact_test_of_the_highest_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat([f"g{i}" for i in range(12)], 5)
    labels = np.repeat(["a"] * 4 + ["b"] * 8, 5)
    values = rng.random((60, 6)) * (rng.random((60, 6)) < 0.3) + (labels == "a")[:, None] * [
        0,
        0,
        0,
        0,
        0.5,
        1,
    ]
    values[:, 0] = 0
    p = group_tests(csr_matrix(values), labels, groups, ["a", "b"])
    means = values.reshape(12, 5, 6).mean(1)  # groups sort as g0, g1, g10, g11, g2 …: the test doesn't mind
    marked = np.arange(12) < 4
    for row, is_label in enumerate((marked, ~marked)):
        for feature in range(6):
            cut = np.sort(means[:, feature])[::-1][is_label.sum() - 1]
            high = (means[:, feature] >= cut) & (means[:, feature] > 0)
            table = [[(high & is_label).sum(), (high & ~is_label).sum()],
                     [(~high & is_label).sum(), (~high & ~is_label).sum()]]  # fmt: skip
            assert p[row, feature] == pytest.approx(fisher_exact(table, "greater")[1])


def planted() -> tuple[csr_matrix, NDArray[np.str_], NDArray[np.str_]]:
    """Two windows a group; feature 7 marks dog, feature 2 rain, 9 is dead, the rest is noise."""
    labels = np.repeat(LABELS, 2)
    groups = np.repeat([f"g{i}" for i in range(len(LABELS))], 2)
    values = sparse_features(len(labels), 20, 3).toarray() * 0.5
    values[:, [2, 7, 9]] = 0
    values[labels == "dog", 7] = np.linspace(1, 2, 16)
    values[labels == "rain", 2] = 3
    return csr_matrix(values), labels, groups


def test_planted_features_are_found_and_survive() -> None:
    found = find_features(*planted())
    dog = next(label for label in found.labels if label.label == "dog")
    best = dog.features[0]
    assert (best.feature, best.fitted_f1, best.average_precision) == (7, 1, 1)
    assert 0 < best.threshold <= 2
    assert best.f1 > 0.7
    assert (dog.fitted_groups, dog.held_back_groups, dog.survivors) == (4, 4, 1)
    assert found.survivors == 2
    assert (found.alive, found.features, found.groups) == (19, 20, 24)


def test_correction_is_holms_over_all_features_and_labels() -> None:
    features, labels, groups = planted()
    found = find_features(features, labels, groups, top=20)
    alive = np.flatnonzero(features.toarray().any(0))
    p = group_tests(features[:, alive], labels, groups, ["cat", "dog", "rain"])
    corrected = np.asarray(multipletests(p.ravel(), method="holm")[1], float).reshape(p.shape)
    assert found.tests == p.size == 57
    for number, label in enumerate(found.labels):
        assert label.survivors == (corrected[number] <= 0.05).sum()
        for f in label.features:
            place = alive.tolist().index(f.feature)
            assert (f.p, f.p_holm) == (p[number, place], corrected[number, place])


def test_figures_are_of_groups_that_chose_nothing() -> None:
    features, labels, groups = planted()
    first = halves(labels, groups)
    assert not set(groups[first]) & set(groups[~first])
    found = find_features(features, labels, groups)
    for label in found.labels:
        for f in label.features:
            column = features[:, [f.feature]].toarray().ravel()
            is_label = labels == label.label
            assert f.fitted_f1 == pytest.approx(f1_score(is_label[first], column[first] >= f.threshold))
            assert f.f1 == pytest.approx(f1_score(is_label[~first], column[~first] >= f.threshold))
            area = average_precision_score(is_label[~first], column[~first])
            assert f.average_precision == pytest.approx(area)


def test_a_label_of_few_groups_cannot_survive_and_one_of_one_group_is_left_out() -> None:
    features, labels, groups = planted()
    labels[groups == "g0"] = "bird"
    labels[np.isin(groups, ["g1", "g2"])] = "cow"
    found = find_features(features, labels, groups)
    assert found.left_out == ("bird",)
    assert {label.label: label.can_survive for label in found.labels} == {
        "cat": True, "cow": False, "dog": True, "rain": True
    }  # fmt: skip


def test_noise_survives_in_few_searches_of_many() -> None:
    """The smallest p times the number of tests, Holm's first step, is at most 0.05 in 5% of searches."""
    rng = np.random.default_rng(0)
    groups, names = np.array([f"g{i}" for i in range(40)]), ["a", "b", "c", "d"]
    survived = 0
    for seed in range(100):
        labels = rng.permutation(np.repeat(names, 10))
        survived += group_tests(sparse_features(40, 30, 3, seed), labels, groups, names).min() * 120 <= 0.05
    assert survived <= 9  # expected 5 at most; more than 9 has a probability of 3% then


def test_window_maxima() -> None:
    store_features = csr_matrix(np.array([[1, 0], [2, 0], [0, 0], [0, 3], [0.5, 4]], np.float32))

    def window(first: int, frames: int) -> Window:
        return Window("", "", 0, "", "", "", "", "", "", first, frames)

    found = window_maxima(store_features, [window(0, 2), window(2, 1), window(3, 2)])
    np.testing.assert_array_equal(found.toarray(), [[2, 0], [0, 0], [0.5, 4]])


def store_with_dogs(path: Path) -> None:
    labels = [*LABELS.tolist()]
    values = sparse_features(len(labels) * 5, 20, 3).toarray() * 0.5
    values[:, 7] = np.repeat(LABELS == "dog", 5) * np.tile([0, 0, 1, 2, 0], len(labels))
    make_store(path, csr_matrix(values), domains=["sound"] * len(labels), lengths=5, labels=labels)


@pytest.mark.parametrize(("level", "recall"), [("window", 1.0), ("frame", 0.4)])
def test_command(tmp_path: Path, level: str, recall: float) -> None:
    store_with_dogs(tmp_path / "store")
    out = tmp_path / "out"
    assert main(["analyze", "search", str(tmp_path / "store"), "--level", level, "--out", str(out)]) == 0
    result = json.loads((out / "search.json").read_text())
    dog = next(label for label in result["search"]["labels"] if label["label"] == "dog")
    assert dog["features"][0]["feature"] == 7
    assert dog["features"][0]["recall"] == pytest.approx(recall)
    assert (out / "search.svg").read_text().count("dog") >= 1
    assert "Feature search" in (out / "report.html").read_text()


def test_a_dead_sae_is_no_error(tmp_path: Path) -> None:
    make_store(tmp_path / "store", csr_matrix((300, 8), dtype=np.float32), groups=["a", "b"] * 3)
    result = run(tmp_path, "--by", "domain")
    assert result.search.alive == result.search.survivors == 0
    assert all(not label.features for label in result.search.labels)
    assert "nan" not in json.dumps(plain(result), allow_nan=False)
    assert search.text(result)
    assert search.section(result)


@pytest.mark.parametrize(
    ("store", "arguments", "says"),
    [
        ({"labels": "dog"}, [], "the same label"),
        ({"domains": ("speech", "music")}, [], "no label has two recordings"),
        ({}, ["--by", "language"], "no recording has a language"),
        ({}, ["--top", "0"], "--top must be at least 1"),
    ],
)
def test_what_cannot_be_searched(
    tmp_path: Path, store: dict[str, str], arguments: list[str], says: str
) -> None:
    make_store(tmp_path / "store", **store)  # pyright: ignore[reportArgumentType]
    with pytest.raises(AnalysisError, match=says):
        run(tmp_path, *arguments)


def run(folder: Path, *arguments: str) -> search.SearchResult:
    parser = argparse.ArgumentParser()
    search.add_arguments(parser)
    return search.run(parser.parse_args([str(folder / "store"), *arguments]))
