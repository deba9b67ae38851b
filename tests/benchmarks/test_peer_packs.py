"""Packs of published recipes: what is steered away from, with which features, and how far."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.peers import packs
from tests.support.calibration_parts import random_sae, window
from tests.support.real_models import weights
from tests.support.small_whisper import small_whisper
from whisper_sae_steer.bench.peers.catalogue import RECIPES, PeerRecipe
from whisper_sae_steer.calibrate.attribution import SilenceObjective
from whisper_sae_steer.calibrate.directions import EditEvidence
from whisper_sae_steer.calibrate.windows import CalibrationWindow
from whisper_sae_steer.steering.operator import Operator
from whisper_sae_steer.steering.pack import SteeringPack, read_pack, save_pack

WIDTH = 16
BY_NAME = {recipe.name: recipe for recipe in RECIPES}


@pytest.fixture(scope="module")
def sae() -> Any:
    return random_sae(WIDTH)


def frames(towards: Tensor, seed: int) -> Tensor:
    noise = torch.randn(1500, WIDTH, generator=torch.Generator().manual_seed(seed))
    return noise + 3 * towards


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> list[CalibrationWindow]:
    """Speech lies along the first axis; of the rest, what text is invented for along the second."""
    folder = tmp_path_factory.mktemp("windows")
    axes = torch.eye(WIDTH)
    spoken = [window(folder, f"s{i}", frames(axes[0], i), speech=slice(0, 1500)) for i in range(4)]
    bad = [window(folder, f"bad{i}", frames(axes[1], 10 + i), content=900) for i in range(4)]
    good = [window(folder, f"good{i}", frames(axes[2], 20 + i), content=900) for i in range(4)]
    return spoken + bad + good


@pytest.fixture(scope="module")
def evidence(sae: Any, windows: list[CalibrationWindow]) -> dict[str, EditEvidence]:
    objective = SilenceObjective(small_whisper().float())
    other = [w for w in windows if not w.is_speech]
    invented = {w.key for w in other if w.key.startswith("bad")}
    return {
        "speech": packs.against(sae, objective, windows),
        "invented": packs.against(sae, objective, packs.mark(other, invented)),
    }


def vector(pack: SteeringPack) -> Tensor:
    return (pack.coefficients[:, None] * pack.directions).sum(0) * pack.metadata.alpha_unit


def build(recipe: PeerRecipe, evidence: EditEvidence, norm: float = 5.0) -> SteeringPack:
    return packs.build_pack(recipe, weights("tiny.en"), evidence, norm)


def test_the_contrast_is_the_difference_of_means(
    evidence: dict[str, EditEvidence], windows: list[CalibrationWindow]
) -> None:
    def mean(name: str, content: int) -> Tensor:
        return torch.stack([w.frames()[:content].mean(0) for w in windows if w.key.startswith(name)]).mean(0)

    both = torch.stack([mean("bad", 900), mean("good", 900)]).mean(0)
    expected = {"speech": both - mean("s", 1500), "invented": mean("good", 900) - mean("bad", 900)}
    for unwanted, difference in expected.items():
        pack = build(BY_NAME["contrast"], evidence[unwanted], norm=5.0)
        torch.testing.assert_close(vector(pack), 5 * difference / difference.norm(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("unwanted", ["speech", "invented"])
def test_features_lead_away_from_what_is_unwanted(
    evidence: dict[str, EditEvidence], sae: Any, unwanted: str
) -> None:
    found = evidence[unwanted]
    # labels of the sample say False for what is unwanted
    mean = torch.from_numpy(np.asarray(found.sample.features[~found.sample.is_speech].mean(0))).ravel()
    ones = build(PeerRecipe("ones", "", 12, False, ()), found)
    means = build(PeerRecipe("means", "", 12, True, ()), found)
    rows = {tuple(row.tolist()): i for i, row in enumerate(sae.W_dec.detach())}
    ids = [rows[tuple(row.tolist())] for row in means.directions]
    assert len(ids) == len(set(ids)) == 12
    torch.testing.assert_close(means.coefficients.abs().double(), mean[ids].double())
    torch.testing.assert_close(ones.coefficients, means.coefficients.sign())
    unlike = np.asarray(found.sample.features[found.sample.is_speech].mean(0)).ravel()
    pointing = (mean.numpy() - unlike)[ids] * means.coefficients.numpy()
    assert (pointing[:6] < 0).all(), "what fires more on the unwanted is taken away"


def test_packs_are_ungated_static_and_travel(evidence: dict[str, EditEvidence], tmp_path: Path) -> None:
    for recipe in RECIPES:
        pack = build(recipe, evidence["invented"])
        save_pack(pack, tmp_path / "pack.safetensors")
        read = read_pack(tmp_path / "pack.safetensors")
        h = torch.randn(2, 30, WIDTH, generator=torch.Generator().manual_seed(1))
        edited = h.clone()
        Operator(read).apply_(edited, 0.5)
        torch.testing.assert_close(edited, h + 0.5 * vector(pack), rtol=1e-4, atol=1e-4)
        assert len(pack.coefficients) == min(recipe.features or 1, 48)
        assert (pack.metadata.gate, pack.metadata.fingerprint) == ("none", weights("tiny.en").fingerprint)
