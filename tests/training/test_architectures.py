"""What each architecture selects, what it makes small, and its gradients."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from whisper_sae_steer.errors import ConfigError
from whisper_sae_steer.sae.autoencoder import SAEConfig
from whisper_sae_steer.training.architectures import ARCHITECTURES, TrainingSAE
from whisper_sae_steer.training.architectures.base import GRADIENT_NORM, geometric_median
from whisper_sae_steer.training.architectures.jumprelu import JumpReLUSAE
from whisper_sae_steer.training.config import ArchitectureName, TrainConfig

D, FEATURES, K = 16, 64, 4
CONFIG = TrainConfig(d_sae=FEATURES, k=K, steps=100)
NAMES: list[ArchitectureName] = ["topk", "batchtopk", "jumprelu", "matryoshka"]


def make(name: ArchitectureName, **options: object) -> tuple[TrainingSAE, Tensor]:
    """An SAE at its start, with frames it was initialised from."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(200, D, generator=generator) * 5 + 2
    sae = ARCHITECTURES[name](D, replace(CONFIG, architecture=name, **options))
    sae.initialise(frames, generator)
    if isinstance(sae, JumpReLUSAE):  # away from the activation it was taken from
        sae.log_threshold.data += 1e-3
    return sae, frames


@pytest.mark.parametrize("name", NAMES)
def test_start(name: ArchitectureName):
    sae, frames = make(name)
    x = frames * sae.scale
    assert float(x.norm(dim=-1).mean()) == pytest.approx(D**0.5, rel=1e-5)
    assert float(sae.variance) == pytest.approx(float((x - x.mean(0)).square().sum(-1).mean()), rel=1e-5)
    torch.testing.assert_close(sae.w_dec.norm(dim=-1), torch.ones(FEATURES))
    assert torch.equal(sae.w_enc, sae.w_dec)


def dense_code(sae: TrainingSAE, frames: Tensor, name: str) -> Tensor:
    """Features [N, F] of raw frames by the definition of the architecture, in float64."""
    x = (frames * sae.scale).double()
    pre = (x - sae.b_dec) @ sae.w_enc.double().T + sae.b_enc
    if name == "topk":
        kept = torch.zeros_like(pre, dtype=torch.bool).scatter(1, pre.topk(K).indices, True)
    elif name == "jumprelu":
        kept = pre > sae.thresholds()
    else:
        kept = pre >= pre.flatten().topk(K * len(x)).values[-1]
    return pre * (kept & (pre > 0))


@pytest.mark.parametrize("name", ["topk", "batchtopk", "jumprelu"])
def test_loss_is_the_share_of_variance_unexplained(name: ArchitectureName):
    sae, frames = make(name)
    losses = sae(frames, step=0)
    code = dense_code(sae, frames, name)
    x = (frames * sae.scale).double()
    error = x - (code @ sae.w_dec.double() + sae.b_dec)
    expected = float(error.square().sum(-1).mean().detach() / sae.variance)
    assert float(losses.fvu) == pytest.approx(expected, rel=1e-4)
    assert float(losses.l0) == pytest.approx(float((code > 0).sum(-1).double().mean()))
    assert float(losses.aux) == 0
    if name != "jumprelu":
        assert float(losses.l0) == K
        assert float(losses.total.detach()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["topk", "batchtopk"])
def test_gradients_are_those_of_the_dense_loss(name: ArchitectureName):
    sae, frames = make(name)
    kept = dense_code(sae, frames, name).detach() > 0
    x = frames * sae.scale
    pre = (x - sae.b_dec) @ sae.w_enc.T + sae.b_enc
    loss = (x - ((pre * kept) @ sae.w_dec + sae.b_dec)).square().sum(-1).mean() / sae.variance
    parameters = list(sae.parameters())
    expected = torch.autograd.grad(loss, parameters)
    found = torch.autograd.grad(sae(frames, step=0).total, parameters)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_matryoshka_averages_the_loss_of_every_prefix():
    sae, frames = make("matryoshka", prefixes=(0.25, 0.5, 1.0))
    code = dense_code(sae, frames, "matryoshka")
    x = (frames * sae.scale).double()
    shares = [
        (x - (code[:, :m] @ sae.w_dec[:m].double() + sae.b_dec)).square().sum(-1).mean() / sae.variance
        for m in (16, 32, 64)
    ]
    losses = sae(frames, step=0)
    assert float(losses.total.detach()) == pytest.approx(float(sum(shares)) / 3, rel=1e-4)
    assert float(losses.fvu) == pytest.approx(float(shares[-1]), rel=1e-4)
    losses.total.backward()
    assert sae.w_dec.grad is not None
    assert sae.w_dec.grad.any(1).sum() > FEATURES / 2


def test_jumprelu_thresholds_learn_by_the_papers_estimators():
    sae, frames = make("jumprelu", sparsity_share=0.0)
    threshold, width = sae.thresholds().detach(), float(sae.bandwidth)  # type: ignore[arg-type]
    x = frames * sae.scale
    pre = ((x - sae.b_dec) @ sae.w_enc.T + sae.b_enc).detach()
    inside = (pre - threshold).abs() < width / 2
    assert inside.any(0).all()
    code = pre * (pre > threshold)
    error = x - (code @ sae.w_dec + sae.b_dec).detach()
    upstream = -2 * error @ sae.w_dec.detach().T / len(x) / sae.variance
    l0 = (pre > threshold).float().sum(-1).mean()
    by_error = -(threshold / width) * (upstream * inside).sum(0)
    by_sparsity = 2 * (l0 / K - 1) / K * -(inside.float().sum(0) / width / len(x))
    (found,) = torch.autograd.grad(sae(frames, step=0).total, [sae.log_threshold])  # type: ignore[list-item]
    torch.testing.assert_close(found, (by_error + by_sparsity) * threshold, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_dead_features_learn_from_the_residual(name: ArchitectureName):
    sae, frames = make(name, dead_after=1000)
    dead = torch.tensor([2, 5, 50])
    sae.since_fired[dead] = 1001
    x = frames * sae.scale
    error = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    loss = sae.aux_loss(x, error)
    acts = ((x - sae.b_dec) @ sae.w_enc[dead].T + sae.b_enc[dead]).relu()
    expected = (error - acts @ sae.w_dec[dead]).square().sum() / error.square().sum()
    torch.testing.assert_close(loss, expected)
    for gradient in torch.autograd.grad(loss, [sae.w_enc, sae.b_enc, sae.w_dec]):
        reached = gradient.flatten(1).any(1) if gradient.dim() > 1 else gradient != 0
        assert reached.nonzero()[:, 0].tolist() == dead.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_a_step_keeps_rows_unit_and_counts(name: ArchitectureName):
    sae, frames = make(name)
    fired = dense_code(sae, frames, name).any(0)
    sae(frames, step=0).total.backward()
    sae.before_step()
    assert sae.w_dec.grad is not None
    parallel = (sae.w_dec.grad * sae.w_dec).sum(-1) / sae.w_dec.grad.norm()
    torch.testing.assert_close(parallel, torch.zeros(FEATURES), atol=1e-5, rtol=0)
    gradients = torch.cat([p.grad.flatten() for p in sae.parameters() if p.grad is not None])
    assert float(gradients.norm()) == pytest.approx(GRADIENT_NORM, rel=1e-3)
    torch.optim.Adam(sae.parameters(), lr=0.1).step()
    sae.after_step(frames=200)
    torch.testing.assert_close(sae.w_dec.norm(dim=-1), torch.ones(FEATURES))
    assert torch.equal(sae.since_fired, torch.where(fired, 0, 200))


@pytest.mark.parametrize("name", ["batchtopk", "jumprelu", "matryoshka"])
def test_finished_sae_takes_raw_frames(name: ArchitectureName):
    sae, frames = make(name)
    sae(frames, step=0)
    sae.after_step(len(frames))
    finished = sae.finished(SAEConfig(d_in=D, d_sae=FEATURES, k=K), frames)
    pre = (frames * sae.scale - sae.b_dec) @ sae.w_enc.T + sae.b_enc
    expected = torch.where(pre > sae.thresholds(), pre, 0)
    torch.testing.assert_close(finished.encode(frames) * sae.scale, expected, rtol=1e-4, atol=1e-5)
    reconstruction = (expected @ sae.w_dec + sae.b_dec) / sae.scale
    torch.testing.assert_close(finished(frames).reconstruction, reconstruction, rtol=1e-4, atol=1e-4)


def test_finished_topk_has_the_threshold_that_keeps_k():
    sae, frames = make("topk")
    finished = sae.finished(SAEConfig(d_in=D, d_sae=FEATURES, k=K), frames)
    assert float((finished.encode(frames) > 0).sum(-1).float().mean()) == pytest.approx(K, abs=0.01)


def test_threshold_is_the_running_mean_of_the_smallest_kept():
    sae, frames = make("batchtopk")
    smallest: list[float] = []
    for step in range(3):
        sae(frames[step * 50 : step * 50 + 50], step)
        code = dense_code(sae, frames[step * 50 : step * 50 + 50], "batchtopk")
        smallest.append(float(code[code > 0].min()))
        sae.after_step(50)
    expected = smallest[0]
    for value in smallest[1:]:
        expected += 0.01 * (value - expected)
    assert float(sae.threshold) == pytest.approx(expected, rel=1e-5)


def test_schedules():
    config = TrainConfig(
        steps=100, lr=1.0, warmup_share=0.1, decay_share=0.5, k=10, k_start=50, sparsity_share=0.2
    )
    assert [config.lr_at(step, 100) for step in (0, 4, 9, 30, 75, 99)] == [0.1, 0.5, 1, 1, 0.5, 0.02]
    fewer = config.steps_if_falling_from(20)
    assert fewer == 40  # the fall takes half of them
    assert [config.lr_at(step, fewer) for step in (19, 20, 30, 39)] == [1, 1, 0.5, 0.05]
    assert [config.k_at(step) for step in (0, 9, 19, 99)] == [48, 30, 10, 10]
    assert TrainConfig(k=7).k_at(0) == 7
    assert config.features(100) == 800


@pytest.mark.parametrize(
    "options", [{"k": 0}, {"steps": 0}, {"batch_size": -1}, {"prefixes": (0.5,)}, {"prefixes": ()}]
)
def test_options_that_make_no_sense(options: dict[str, object]):
    with pytest.raises(ConfigError):
        replace(CONFIG, **options)


def test_fewer_features_than_k():
    with pytest.raises(ConfigError, match="8 features are fewer than k = 50"):
        TrainConfig(d_sae=8).features(4)


def test_geometric_median_withstands_outliers():
    points = torch.cat(
        [torch.randn(99, 3, generator=torch.Generator().manual_seed(0)), torch.full((1, 3), 1e6)]
    )
    assert float(geometric_median(points, 100).norm()) < 0.5
    assert float(points.mean(0).norm()) > 1000
