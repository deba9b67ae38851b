"""The operator against a float64 reference that loops over frames, and what it must leave alone."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.support.small_pack import WIDTH, small_pack
from whisper_sae_steer.errors import AlphaError, PackError
from whisper_sae_steer.steering.operator import Operator, check_alpha
from whisper_sae_steer.steering.pack import Features, SteeringPack

Array = NDArray[np.float64]


def frames(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed))


def reference_features(features: Features, frame: Array) -> Array:
    pre = features.rows.double().numpy() @ frame + features.bias.double().numpy()
    return np.where(pre > features.threshold.double().numpy(), pre, 0.0)


def reference_scores(pack: SteeringPack, window: Array) -> Array:
    weight, bias = pack.gate_weight.double().numpy(), float(pack.gate_bias)
    logits = np.array([weight @ reference_features(pack.gate, frame) + bias for frame in window])
    half = pack.metadata.gate_smoothing // 2
    return np.array([logits[max(0, t - half) : t + half + 1].mean() for t in range(len(logits))])


def reference(pack: SteeringPack, window: Array, alpha: float) -> Array:
    """h + α g(h) δ(h) for one window [T, d], as DESIGN's formulas say."""
    meta, directions = pack.metadata, pack.directions.double().numpy()
    coefficients = pack.coefficients.double().numpy() * meta.alpha_unit
    scores = reference_scores(pack, window)
    if meta.gate == "window":
        scores = np.full_like(scores, scores.max())
    result = window.copy()
    for t, frame in enumerate(window):
        opened = min(1.0, max(0.0, (meta.levels.threshold - scores[t]) / meta.levels.ramp))
        if meta.gate == "none":
            opened = 1.0
        strength = coefficients
        if meta.strategy == "suppress":
            strength = coefficients * reference_features(pack.steer, frame)
        for f, direction in enumerate(directions):
            result[t] += alpha * opened * strength[f] * direction
    return result


STRATEGIES = ["suppress", "additive", "direction"]
GATES = ["window", "frame", "none"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("alpha", [1.0, 3.0, -0.5])
@pytest.mark.parametrize("length", [1, 7, 40])
def test_every_strategy_and_gate_equals_the_reference(strategy: str, gate: str, alpha: float, length: int):
    pack = small_pack(strategy, gate, threshold=9.0, ramp=12.0)
    h = frames(3, length)
    expected = np.stack([reference(pack, window, alpha) for window in h.double().numpy()])
    edited = h.clone()
    scores, _ = Operator(pack).apply_(edited, alpha)
    torch.testing.assert_close(edited.double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)
    assert not torch.equal(edited, h)
    wanted = np.stack([reference_scores(pack, window) for window in h.double().numpy()])
    torch.testing.assert_close(scores.double(), torch.from_numpy(wanted), rtol=1e-4, atol=1e-4)


def test_suppress_removes_what_its_features_wrote():
    """One feature whose encoder row is its decoder direction: suppression at α = 1 empties it."""
    direction = torch.zeros(1, WIDTH)
    direction[0, 2] = 1
    features = Features(torch.tensor([4]), direction, torch.zeros(1), torch.tensor([0.5]))
    pack = small_pack("suppress", "none", alpha_unit=1.0)
    pack = pack._replace(steer=features, directions=direction, coefficients=-torch.ones(1))
    h = torch.zeros(1, 3, WIDTH)
    h[0, :, 2] = torch.tensor([4.0, 0.4, -3.0])
    Operator(pack).apply_(h, 1.0)
    torch.testing.assert_close(h[0, :, 2], torch.tensor([0.0, 0.4, -3.0]))


def bits(h: Tensor) -> bytes:
    return h.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_shut_window_keeps_every_bit(strategy: str, dtype: torch.dtype):
    h = frames(4, 30).to(dtype)
    h[:, ::3, 0] = -0.0
    plain = small_pack(strategy, "window")
    scores = Operator(plain, dtype=dtype).scores(h)
    highest = scores.amax(1)
    shut = highest.argmax()
    pack = small_pack(strategy, "window", threshold=float(highest[shut]))
    edited = h.clone()
    Operator(pack, dtype=dtype).apply_(edited, 5.0)
    assert bits(edited[shut]) == bits(h[shut])
    assert all(bits(edited[i]) != bits(h[i]) for i in range(4) if i != shut)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_frames_above_the_threshold_keep_every_bit(strategy: str):
    h = frames(2, 60)
    h[:, :, 1] = -0.0
    pack = small_pack(strategy, "frame", threshold=0.0, ramp=1e-3, gate_smoothing=1)
    steering = Operator(pack)
    edited = h.clone()
    scores, _ = steering.apply_(edited, 4.0)
    shut = scores >= 0
    assert 0 < shut.sum() < shut.numel()
    assert bits(edited[shut]) == bits(h[shut])
    if strategy != "suppress":
        assert (edited[~shut] != h[~shut]).any(-1).all()


def test_windows_do_not_influence_each_other():
    steering, batch = Operator(small_pack("suppress", threshold=3.0)), frames(5, 20)
    together = batch.clone()
    steering.apply_(together, 1.0)
    for i in range(5):
        alone = batch[i : i + 1].clone()
        steering.apply_(alone, 1.0)
        torch.testing.assert_close(together[i], alone[0], rtol=1e-5, atol=1e-5)


def test_editing_reaches_shared_memory_and_strided_views():
    pack = small_pack(gate="none")
    array = frames(1, 8).numpy()
    before = array.copy()
    Operator(pack).apply_(torch.from_numpy(array), 1.0)
    expected = reference(pack, before[0].astype(np.float64), 1.0)
    np.testing.assert_allclose(array[0], expected, rtol=1e-4, atol=1e-4)
    strided = torch.from_numpy(before.copy()).permute(0, 2, 1).contiguous().permute(0, 2, 1)
    Operator(pack).apply_(strided, 1.0)
    np.testing.assert_allclose(strided[0].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_gradients_are_not_recorded():
    h = frames(1, 8)
    assert not Operator(small_pack(gate="none")).apply_(h, 1.0).scores.requires_grad
    assert not h.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_close(dtype: torch.dtype):
    pack, h = small_pack("additive", "none"), frames(2, 20)
    half = h.to(dtype)
    expected = np.stack([reference(pack, window, 1.0) for window in half.double().numpy()])
    scores, _ = Operator(pack, dtype=dtype).apply_(half, 1.0)
    assert scores.dtype == torch.float32
    assert half.dtype == dtype
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(half.double(), torch.from_numpy(expected), rtol=tolerance, atol=4 * tolerance)


def test_another_width_is_refused():
    h = torch.zeros(1, 5, WIDTH + 1)
    with pytest.raises(PackError, match="width 6, not 7"):
        Operator(small_pack()).apply_(h, 1.0)
    assert not h.any()


@pytest.mark.parametrize("alpha", [0, 1, 100, -0.0, True, Fraction(1, 2), np.float32(0.5), torch.tensor(3.0)])
def test_an_alpha_from_0_to_100(alpha: Any):
    value = check_alpha(alpha)
    assert type(value) is float
    assert value == float(alpha)


BAD_ALPHAS = [
    *(math.nan, math.inf, -math.inf, -1.0, -1e-9, 100.1, 1e38, 10**400),
    *(None, "loud", [1.0], 1j, torch.ones(2)),
]


@pytest.mark.parametrize("alpha", BAD_ALPHAS, ids=str)
def test_an_alpha_that_is_no_strength(alpha: Any):
    with pytest.raises(AlphaError, match="steer_alpha must be a number from 0 to 100"):
        check_alpha(alpha)
