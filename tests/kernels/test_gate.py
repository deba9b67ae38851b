"""The gate: smoothing at the edges, and how far it opens."""

import pytest
import torch
from torch import Tensor

from whisper_sae_steer.kernels import openness, smooth


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


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
    scores = torch.tensor([[-9.0, -2.0, -1.0, 0.0, 1.0, 1.999, 2.0, 2.001, 50.0]])
    gate = openness(scores, "frame", 2.0, 4.0)
    assert gate.shape == (1, 9)
    expected = torch.tensor([1.0, 1.0, 0.75, 0.5, 0.25, 0.00025, 0.0, 0.0, 0.0])
    torch.testing.assert_close(gate[0], expected, rtol=1e-3, atol=0)
    assert (gate[0, 6:] == 0).all()


def test_window_gate_looks_at_the_highest_score():
    scores = torch.tensor([[-5.0, -4.0, -3.0], [-5.0, -1.0, -3.0], [-5.0, 0.0, -3.0], [-5.0, 7.0, -3.0]])
    gate = openness(scores, "window", 0.0, 2.0)
    assert gate.flatten().tolist() == [1.0, 0.5, 0.0, 0.0]
    assert gate.shape == (4, 1)


def test_no_gate_is_always_open():
    gate = openness(torch.full((2, 5), 100.0), "none", 0.0, 1.0)
    assert gate.shape == (2, 1)
    assert (gate == 1).all()
