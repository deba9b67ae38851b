"""Quality of an SAE on frames, against scikit-learn and NumPy on all frames at once."""

import weakref
from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score
from sklearn.metrics.pairwise import cosine_similarity
from torch import Tensor

from whisper_sae_steer.errors import CalibrationError, SAEFormatError
from whisper_sae_steer.sae.autoencoder import SAE, SAEConfig, calibrate_threshold
from whisper_sae_steer.training import quality
from whisper_sae_steer.training.quality import Quality, highest_cosines, measure

WIDTH, FEATURES, K = 12, 40, 5


@pytest.fixture
def frames() -> Tensor:
    """Far from the origin, so that sums of squares lose the variance in float32."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(WIDTH, WIDTH, generator=generator)
    return torch.randn(600, WIDTH, generator=generator) @ mixing + 100 * torch.randn(
        WIDTH, generator=generator
    )


@pytest.fixture
def batchtopk(frames: Tensor) -> SAE:
    generator = torch.Generator().manual_seed(1)
    sae = SAE(SAEConfig(WIDTH, FEATURES, "batchtopk", k=K))
    rows = torch.nn.functional.normalize(torch.randn(FEATURES, WIDTH, generator=generator), dim=-1)
    for parameter, value in ((sae.W_dec, rows), (sae.W_enc, rows.T), (sae.b_dec, frames.mean(0))):
        parameter.data.copy_(value)
    return sae


@pytest.fixture
def sae(batchtopk: SAE, frames: Tensor) -> SAE:
    calibrate_threshold(batchtopk, frames[:300])
    return batchtopk


@torch.no_grad()
def test_figures_are_those_of_all_frames_at_once(sae: SAE, frames: Tensor):
    found = measure(sae, frames.split(97))
    features, reconstruction = sae(frames)
    active = (features > 0).numpy()
    share = active.mean(0)
    explained = r2_score(frames.double(), reconstruction.double(), multioutput="variance_weighted")
    assert found.explained_variance == pytest.approx(explained, rel=1e-4)
    assert found.fvu == pytest.approx(1 - explained, rel=1e-4)
    assert (found.frames, found.features, found.k) == (600, FEATURES, K)
    assert found.l0 == active.sum() / 600
    assert found.threshold_transfer == pytest.approx(found.l0 / K)
    assert found.dead == (share == 0).sum()
    assert found.dense == (share > 0.1).sum() > 0
    expected, _ = np.histogram(np.log10(share[share > 0]), quality.FREQUENCY_EDGES)
    assert found.frequency.counts == tuple(expected)
    cosines = cosine_similarity(sae.W_dec.numpy())
    np.fill_diagonal(cosines, -1)
    expected, _ = np.histogram(cosines.max(1), quality.COSINE_EDGES)
    assert found.cosine.counts == tuple(expected)


@torch.no_grad()
def test_training_rule_is_that_of_batchtopk(batchtopk: SAE, frames: Tensor):
    reconstruction = batchtopk(frames, use_threshold=False).reconstruction
    explained = r2_score(frames.double(), reconstruction.double(), multioutput="variance_weighted")
    calibrate_threshold(batchtopk, frames)
    found = measure(batchtopk, [frames])
    assert found.rule_fvu == pytest.approx(1 - explained, rel=1e-4)
    assert found.rule_l0 == K == found.l0


def close(one: Quality, other: Quality) -> bool:
    assert one.fvu == pytest.approx(other.fvu, rel=1e-6)
    return replace(one, fvu=0, rule_fvu=0, rule_l0=0) == replace(other, fvu=0, rule_fvu=0, rule_l0=0)


def test_batches_and_their_dtype_change_nothing(sae: SAE, frames: Tensor, monkeypatch: pytest.MonkeyPatch):
    rounded = frames.half()
    whole = measure(sae, [rounded])
    assert close(measure(sae, rounded.float().split(1)), whole)
    assert close(measure(sae, [rounded[:0], *rounded.split(250)]), whole)
    monkeypatch.setattr(quality, "CELLS", 7 * FEATURES)  # seven frames at a time
    assert close(measure(sae, [rounded]), whole)


def test_no_batch_is_kept(sae: SAE, frames: Tensor):
    seen: list[weakref.ref[Tensor]] = []

    def batches() -> Iterator[Tensor]:
        for batch in frames.split(50):
            copied = batch.clone()
            seen.append(weakref.ref(copied))
            yield copied
            del copied
            assert sum(ref() is not None for ref in seen) <= 1

    assert measure(sae, batches()).frames == 600
    assert len(seen) == 12


def test_dead_dense_and_doubled_features():
    sae = SAE(SAEConfig(2, 4))
    sae.W_enc.data = torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 0]])
    sae.W_dec.data = torch.tensor([[1.0, 0], [0, 1], [0.0, -1], [2.0, 0]])
    sae.threshold[3] = 4.5
    x = torch.zeros(20, 2)
    x[:, 0] = 1
    x[:3, 1] = 1.0
    x[7, 0] = 5
    found = measure(sae, [x], dense_above=0.15)
    assert (found.dead, found.dense, found.twins) == (1, 1, 2)
    assert (found.dead_share, found.dense_share) == (0.25, 0.25)
    assert found.l0 == (20 + 3 + 1) / 20
    assert (found.k, found.threshold_transfer, found.rule_fvu, found.rule_l0) == (None,) * 4
    assert sum(found.frequency.counts) == 3
    # only frame 7 is not explained: features 0 and 3 write 5 + 10 where 5 is due
    variance = float((x - x.mean(0)).square().sum())
    assert found.fvu == pytest.approx(100 / variance)
    assert measure(sae, [x], dense_above=0.149).dense == 2
    assert asdict(found)["frequency"]["edges"][0] == -7


def test_training_rule_with_too_few_positives():
    sae = SAE(SAEConfig(2, 2, k=2))
    sae.W_enc.data = sae.W_dec.data = torch.eye(2)
    x = torch.tensor([[1.0, -1.0], [2.0, 1.0]])
    found = measure(sae, [x])
    assert (found.rule_l0, found.l0) == (1.5, 1.5)
    assert found.rule_fvu == pytest.approx(1 / 2.5)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_highest_cosines_in_any_chunks(chunk: int):
    rows = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    rows[4] = 3 * rows[0]
    rows[5] = 0
    cosines = cosine_similarity(rows.numpy())
    np.fill_diagonal(cosines, -2)
    np.testing.assert_allclose(highest_cosines(rows, chunk).numpy(), cosines.max(1), atol=1e-6)
    assert not len(highest_cosines(rows[:1]))


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "no frames"),
        ([torch.zeros(0, WIDTH)], "no frames"),
        ([torch.full((3, WIDTH), 7.0)], "all frames are the same"),
        ([torch.ones(3, WIDTH + 1)], "must be"),
        ([torch.ones(WIDTH)], "must be"),
        ([torch.randn(3, WIDTH), torch.full((1, WIDTH), torch.nan)], "not finite"),
        ([torch.full((1, WIDTH), torch.inf, dtype=torch.float16)], "not finite"),
    ],
)
def test_frames_that_tell_nothing_are_refused(sae: SAE, batches: list[Tensor], message: str):
    with pytest.raises(CalibrationError, match=message):
        measure(sae, batches)


def test_an_sae_without_a_threshold_is_refused(batchtopk: SAE, frames: Tensor):
    with pytest.raises(SAEFormatError, match="no threshold"):
        measure(batchtopk, [frames])
