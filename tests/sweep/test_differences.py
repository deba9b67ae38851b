"""Differences of settings seed by seed, against SciPy's paired test."""

import pytest
from scipy.stats import ttest_rel

from whisper_sae_steer.sweep.audio import DomainFigures
from whisper_sae_steer.sweep.differences import SeedDifference, differences
from whisper_sae_steer.sweep.features import SharedFeatures
from whisper_sae_steer.sweep.results import Sweep, SweptSAE, SweptSetting
from whisper_sae_steer.training import TrainConfig

FIRST, OTHER = [0.10, 0.13, 0.11], [0.14, 0.15, 0.16]


def setting(name: str, fvus: list[float], tap: str = "tap", gate_auc: float | None = None) -> SweptSetting:
    saes = tuple(
        SweptSAE(seed, "", fvu, 50, 100, 5, 0, 0, gate_auc, {"speech": DomainFigures(2 * fvu, 9)}, None)
        for seed, fvu in enumerate(fvus)
    )
    pairs = tuple(SharedFeatures(fvu, None, fvu) for fvu in fvus)
    return SweptSetting(name, name, tap, TrainConfig(), "", saes, pairs if len(saes) > 1 else ())


def test_the_interval_is_that_of_a_paired_test():
    result = Sweep({}, (setting("a", FIRST), setting("b", OTHER), setting("c", FIRST, "other")))
    ((compared, told),) = differences(result)
    assert compared.name == "b"
    expected = ttest_rel(OTHER, FIRST).confidence_interval(0.95)
    assert told["fvu"].low == pytest.approx(expected.low)
    assert told["fvu"].high == pytest.approx(expected.high)
    assert told["fvu_speech"].value == pytest.approx(2 * told["fvu"].value)
    assert told["dead_share"] == SeedDifference(0, 0, 0, 3)
    assert told["found"].n == 3
    assert "gate_auc" not in told
    assert "of_firings" not in told


@pytest.mark.parametrize(("low", "high", "differs"), [(0.1, 0.2, True), (-2, -1, True), (-1, 1, False)])
def test_a_difference_is_one_if_its_interval_leaves_zero_out(low: float, high: float, differs: bool):
    assert SeedDifference(0, low, high, 3).differs is differs


def test_one_seed_has_no_interval():
    assert differences(Sweep({}, (setting("a", [0.1]), setting("b", [0.2])))) == []


def test_a_figure_that_one_setting_lacks_is_left_out():
    result = Sweep({}, (setting("a", FIRST, gate_auc=0.9), setting("b", OTHER)))
    ((_, told),) = differences(result)
    assert "gate_auc" not in told
