"""Unlearning: planted redundancy is counted, other labels are kept, and what was stopped goes on."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold

from tests.support.analysis_parts import make_store, sparse_features
from whisper_sae_steer.analysis.labels import unlearn as command
from whisper_sae_steer.analysis.labels.unlearning import ErasureStep, Unlearned, descend, unlearn
from whisper_sae_steer.analysis.results import plain
from whisper_sae_steer.analysis.store.labelling import LabelledUnits
from whisper_sae_steer.calibrate.selection import FrameSample, fit_logistic
from whisper_sae_steer.cli import main
from whisper_sae_steer.errors import AnalysisError

N, F = 600, 24
LABELS = np.repeat(["cat", "dog", "rain"], N // 3)
GROUPS = np.array([f"g{i // 10}" for i in range(N)])
UNITS = LabelledUnits(csr_matrix((N, N)), LABELS, GROUPS)


def planted() -> csr_matrix:
    """Dog is marked by 3, 7 and 11, each enough alone. Feature 4 tells rain from cat; it fires on half of
    the dogs too, so it says nothing about them. Feature 9 is dead, the rest is noise."""
    rng = np.random.default_rng(0)
    values = (rng.random((N, F)) < 0.2) * rng.random((N, F))
    values[:, [3, 4, 7, 9, 11]] = 0
    values[np.ix_(LABELS == "dog", [3, 7, 11])] = 1 + rng.random((N // 3, 3))
    values[LABELS == "rain", 4] = 1
    values[np.flatnonzero(LABELS == "dog")[::2], 4] = 1
    return csr_matrix(values.astype(np.float32))


def test_planted_redundancy_of_three_takes_three() -> None:
    found = unlearn(planted(), UNITS, "dog")
    assert found.before.balanced_accuracy == 1
    assert found.fisher is not None
    assert found.fisher.gone.erased == 3
    assert found.fisher.halved.erased == 3
    assert set(found.first[:3]) == {3, 7, 11}
    assert (found.alive, found.features, found.units, found.groups) == (F - 1, F, 200, 20)
    accuracies = {step.erased: step.balanced_accuracy for step in found.fisher.curve}
    assert accuracies[0] == accuracies[1] == accuracies[2] == 1
    assert accuracies[3] < 0.55


def test_other_labels_keep_their_own_features() -> None:
    found = unlearn(planted(), UNITS, "dog")
    assert found.fisher is not None
    assert found.random is not None
    assert found.others_before == found.fisher.gone.others == 1
    assert found.random.gone.erased > 3
    assert found.random.gone.others is not None


def test_a_step_is_a_classifier_on_what_is_left() -> None:
    features = planted()
    found = unlearn(features, UNITS, "rain")
    assert found.fisher is not None
    step = next(step for step in found.fisher.curve if step.erased == 1)
    without = csr_matrix(features[:, [i for i in range(F) if i != 4]])
    is_rain, predicted = LABELS == "rain", np.zeros(N, bool)
    for fit, test in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(features, LABELS, GROUPS):
        model = fit_logistic(FrameSample(csr_matrix(without[fit]), is_rain[fit]))
        predicted[test] = without[test] @ model.weight + model.bias > 0
    assert step.balanced_accuracy == pytest.approx(balanced_accuracy_score(is_rain, predicted))
    low, high = step.interval
    assert low <= step.balanced_accuracy <= high


@pytest.mark.parametrize("needed", [1, 2, 3, 7, 40, 50])
def test_descent_finds_where_a_curve_falls(needed: int) -> None:
    tried: list[int] = []

    def step(count: int) -> ErasureStep:
        tried.append(count)
        return ErasureStep(count, 0.9 if count < needed else 0.5, (0, 1))

    curve = descend(step, ErasureStep(0, 0.9, (0, 1)), 50, (0.7, 0.55))
    assert min(s.erased for s in curve if s.balanced_accuracy <= 0.55) == needed
    assert len(tried) == len(set(tried)) <= 14
    assert [s.erased for s in curve] == sorted(s.erased for s in curve)


def test_a_label_that_cannot_be_told_apart_is_not_erased() -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(LABELS)
    found = unlearn(sparse_features(N, F, 3), UNITS._replace(labels=labels), "dog")
    assert found.before.balanced_accuracy <= 0.55
    assert found.fisher is None
    assert found.random is None


def test_with_two_labels_there_are_no_others() -> None:
    both = LABELS != "cat"
    found = unlearn(csr_matrix(planted()[both]), UNITS.take(both), "dog")
    assert found.others_before is None
    assert found.fisher is not None
    assert found.fisher.gone.others is None


def test_command_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path / "store")
    done: list[str] = []

    def stopped(features: csr_matrix, units: LabelledUnits, label: str, *rest: object) -> Unlearned:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(label)
        return unlearn(features, units, label)

    arguments = ["analyze", "unlearn", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(command, "unlearn", stopped)
        assert main(arguments) == 130
    assert done == ["cat"]
    (kept,) = (tmp_path / "out" / "unlearn").iterdir()
    before = kept.read_text()
    assert main(arguments) == 0
    assert kept.read_text() == before
    assert len(list((tmp_path / "out" / "unlearn").iterdir())) == 3
    first = (tmp_path / "out" / "unlearn.json").read_text()
    monkeypatch.setattr(command, "unlearn", lambda *_: pytest.fail("made again"))
    assert main(arguments) == 0
    assert (tmp_path / "out" / "unlearn.json").read_text() == first
    labels = {label["label"]: label for label in json.loads(first)["labels"]}
    assert labels["dog"]["fisher"]["gone"]["erased"] == 3
    assert "Unlearning" in (tmp_path / "out" / "report.html").read_text()


def test_damaged_work_and_other_arguments_are_made_anew(tmp_path: Path) -> None:
    store(tmp_path / "store")
    result = run(tmp_path, "--labels", "dog")
    (kept,) = (tmp_path / "out" / "unlearn").iterdir()
    kept.write_text("{")
    assert plain(run(tmp_path, "--labels", "dog")) == plain(result)
    run(tmp_path, "--labels", "dog", "--chance", "0.6")
    assert len(list((tmp_path / "out" / "unlearn").iterdir())) == 2


def test_a_dead_sae_has_nothing_to_erase(tmp_path: Path) -> None:
    make_store(tmp_path / "store", csr_matrix((300, 8), dtype=np.float32))
    result = run(tmp_path, "--folds", "2")
    assert [label.before.balanced_accuracy for label in result.labels] == [0.5] * 3
    assert "nothing to erase" in command.text(result)[0]
    json.dumps(plain(result), allow_nan=False)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "0 of 3 labels have 5 recordings"),
        (
            ["--folds", "2", "--labels", "owl"],
            "can't erase owl; labels of recordings enough: music, sound, speech",
        ),
        (["--chance", "0.4"], "--chance must be at least 0.5"),
    ],
)
def test_what_cannot_be_unlearned(tmp_path: Path, arguments: list[str], says: str) -> None:
    make_store(tmp_path / "store")
    with pytest.raises(AnalysisError, match=says):
        run(tmp_path, *arguments)


def store(path: Path) -> None:
    """One window of ten frames a group."""
    labels: NDArray[np.str_] = LABELS[::10]
    make_store(path, planted(), domains=["sound"] * len(labels), lengths=10, labels=labels.tolist())


def run(folder: Path, *arguments: str) -> command.UnlearnResult:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    parser.add_argument("--out", type=Path)
    return command.run(parser.parse_args([str(folder / "store"), "--out", str(folder / "out"), *arguments]))
