"""The gate: features, smoothing at the edges, and how far it opens."""

import pytest
import torch
from torch import Tensor

from tests.support.small_pack import WIDTH, small_pack
from whisper_sae_steer.steering.gate import activations, openness, smooth


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_activations_are_jumprelu():
    features, h = small_pack().gate, random(2, 7, WIDTH)
    pre = torch.einsum("btd,fd->btf", h.double(), features.rows.double()) + features.bias
    expected = torch.where(pre > features.threshold, pre, 0.0)
    torch.testing.assert_close(activations(features, h).double(), expected, rtol=1e-5, atol=1e-5)
    assert 0 < (expected > 0).float().mean() < 1


def test_a_feature_at_its_threshold_is_silent():
    features = small_pack().gate
    h = random(1, WIDTH)
    value = torch.nn.functional.linear(h, features.rows, features.bias)[0]
    exactly = features._replace(threshold=value.clamp_min(0))
    assert not activations(exactly, h).any()


@pytest.mark.parametrize("frames", [1, 2, 5, 25, 75])
@pytest.mark.parametrize("length", [1, 2, 24, 100])
def test_smoothing_is_the_mean_of_the_frames_there_are(frames: int, length: int):
    scores = random(3, length)
    smoothed = smooth(scores, frames)
    assert smoothed.shape == scores.shape
    for t in range(length):
        first = t - frames // 2
        near = scores[:, max(0, first) : first + frames].double().mean(1)
        torch.testing.assert_close(smoothed[:, t].double(), near, rtol=1e-5, atol=1e-6)


def test_one_frame_is_not_smoothed():
    scores = random(2, 9)
    assert smooth(scores, 1) is scores
    assert smooth(scores, 0) is scores


def test_frame_gate_follows_a_ramp():
    metadata = small_pack(gate="frame", threshold=2.0, ramp=4.0).metadata
    scores = torch.tensor([[-9.0, -2.0, -1.0, 0.0, 1.0, 1.999, 2.0, 2.001, 50.0]])
    gate = openness(scores, metadata)
    assert gate.shape == (1, 9, 1)
    expected = torch.tensor([1.0, 1.0, 0.75, 0.5, 0.25, 0.00025, 0.0, 0.0, 0.0])
    torch.testing.assert_close(gate[0, :, 0], expected, rtol=1e-3, atol=0)
    assert (gate[0, 6:] == 0).all()


def test_window_gate_looks_at_the_highest_score():
    metadata = small_pack(gate="window", threshold=0.0, ramp=2.0).metadata
    scores = torch.tensor([[-5.0, -4.0, -3.0], [-5.0, -1.0, -3.0], [-5.0, 0.0, -3.0], [-5.0, 7.0, -3.0]])
    gate = openness(scores, metadata)
    assert gate.flatten().tolist() == [1.0, 0.5, 0.0, 0.0]
    assert gate.shape == (4, 1, 1)


def test_no_gate_is_always_open():
    gate = openness(torch.full((2, 5), 100.0), small_pack(gate="none").metadata)
    assert gate.shape == (2, 1, 1)
    assert (gate == 1).all()
