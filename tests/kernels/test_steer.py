"""The steering ops against float64: the torch reference here, the Triton kernels in its interpreter.

Most inputs are small multiples of 1/4, which every dtype and order of sums holds exactly: so results must
be equal to the last bit, and features meet their thresholds exactly all the time.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from tests.support.ahead_of_time import compiled
from tests.support.interpreter import INTERPRETED, every_device, every_dtype, run_interpreted
from whisper_sae_steer import kernels
from whisper_sae_steer.kernels.dispatch import use_triton

SHAPES = [(2, 20, 48, 9), (1, 17, 6, 33), (3, 5, 130, 1), (1, 33, 64, 300), (1, 1, 16, 16)]
"""windows, frames, width, features"""

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def test_the_kernels_in_tritons_interpreter():
    """This file again, and the operator through the kernels: a part, for each takes a second there."""
    run_interpreted(
        "kernels/test_steer.py", "steering/test_operator.py", only="test_steer or 7-3.0 or every_bit"
    )


@pytest.mark.skipif(not INTERPRETED, reason="what runs below is the reference")
def test_the_kernels_are_what_runs():
    assert use_triton("feature_scores", torch.zeros(1))


class Problem(NamedTuple):
    """Frames, the features that look at them, and what they write."""

    h: Tensor
    rows: Tensor
    bias: Tensor
    threshold: Tensor
    weight: Tensor
    gate_bias: Tensor
    directions: Tensor
    strength: Tensor

    def to(self, device: str, dtype: torch.dtype = torch.float32) -> "Problem":
        """Strengths stay float32."""
        cast = {name: t.to(device, dtype) for name, t in self._asdict().items()}
        return Problem(**{**cast, "strength": self.strength.to(device)})

    @property
    def scoring(self) -> tuple[Tensor, ...]:
        return self.h, self.rows, self.bias, self.threshold, self.weight, self.gate_bias

    def steered(self, h: Tensor) -> Tensor:
        return kernels.steer_selected(h, self.rows, self.bias, self.threshold, self.directions, self.strength)


def problem(shape: tuple[int, int, int, int], seed: int = 0) -> Problem:
    """Sparse multiples of 1/4; strengths 0, a half, 1 and 2, by frame."""
    batch, frames, width, features = shape
    generator = torch.Generator().manual_seed(seed)

    def quarters(*size: int, most: int = 4) -> Tensor:
        return torch.randint(-most, most + 1, size, generator=generator) / 4

    def sparse(*size: int) -> Tensor:
        return quarters(*size) * (torch.rand(*size, generator=generator) < 6 / size[-1])

    strength = torch.tensor([0.0, 0.5, 1.0, 2.0])[torch.randint(0, 4, (batch, frames), generator=generator)]
    return Problem(
        quarters(batch, frames, width), sparse(features, width), quarters(features),
        quarters(features, most=3).abs(), quarters(features), quarters(), sparse(width, features).T, strength,
    )  # fmt: skip


def expected_activations(p: Problem) -> Tensor:
    pre = torch.einsum("btd,fd->btf", p.h.double(), p.rows.double()) + p.bias.double()
    return torch.where(pre > p.threshold.double(), pre, 0.0)


def expected_scores(p: Problem) -> Tensor:
    return (expected_activations(p) * p.weight.double()).sum(-1) + p.gate_bias.double()


def expected_selected(p: Problem) -> Tensor:
    delta = torch.einsum("btf,fd->btd", expected_activations(p), p.directions.double())
    return torch.where(p.strength[..., None] == 0, p.h.double(), p.h.double() + p.strength[..., None] * delta)


def bits(x: Tensor) -> bytes:
    return x.cpu().contiguous().view(torch.uint8).numpy().tobytes()


def close(found: Tensor, expected: Tensor) -> None:
    """Exactly, but for the reference's sums in half precision."""
    if found.device.type == "cpu" and not INTERPRETED:
        eps = torch.finfo(found.dtype).eps
        torch.testing.assert_close(found.double(), expected, rtol=4 * eps, atol=4 * eps)
    else:
        assert torch.equal(found.cpu(), expected.to(found.dtype))


@every_device
@every_dtype
@every_shape
def test_scores_with_features_at_their_thresholds(
    device: str, dtype: torch.dtype, shape: tuple[int, int, int, int]
):
    p = problem(shape)
    expected = expected_scores(p)
    pre = torch.einsum("btd,fd->btf", p.h, p.rows) + p.bias
    assert (pre == p.threshold).any() or pre.numel() < 300
    scores = kernels.feature_scores(*p.to(device, dtype).scoring)
    assert scores.dtype == torch.float32
    assert scores.shape == shape[:2]
    if device == "cpu" and not INTERPRETED and dtype != torch.float32:
        torch.testing.assert_close(scores.double(), expected, rtol=0.02, atol=0.02)
    else:
        assert torch.equal(scores.cpu().double(), expected)


@every_device
@every_dtype
@every_shape
def test_selected_edits_with_every_strength(
    device: str, dtype: torch.dtype, shape: tuple[int, int, int, int]
):
    p = problem(shape)
    placed = p.to(device, dtype)
    h = placed.h.clone()
    assert placed.steered(h) is h
    close(h, expected_selected(p))


@every_device
@every_dtype
def test_static_edits_with_every_strength(device: str, dtype: torch.dtype):
    for shape in SHAPES:
        p = problem(shape)
        vector = p.h[0, 0] + 0.25
        h = p.h.clone().to(device, dtype)
        assert kernels.steer_static(h, vector.to(device, dtype), p.strength.to(device)) is h
        close(h, p.h.double() + p.strength[..., None] * vector.double())


@every_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_random_frames_of_whispers_width(device: str, dtype: torch.dtype):
    """Without thresholds, where rounding can't make a feature jump."""
    generator = torch.Generator().manual_seed(3)
    batch, frames, width, features = 1, 24, 384, 100

    def random(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    p = Problem(
        random(batch, frames, width), random(features, width) / 20, random(features), torch.zeros(features),
        random(features), random(1)[0], random(features, width) / 20,
        torch.rand(batch, 1, generator=generator),
    ).to("cpu", dtype)  # fmt: skip
    placed, eps = p.to(device, dtype), torch.finfo(dtype).eps
    scores = kernels.feature_scores(*placed.scoring)
    torch.testing.assert_close(scores.cpu().double(), expected_scores(p), rtol=8 * eps, atol=40 * eps)
    h = placed.steered(placed.h.clone())
    torch.testing.assert_close(h.cpu().double(), expected_selected(p), rtol=8 * eps, atol=8 * eps)


Edit = Callable[[Tensor, Tensor], Tensor]


def edits(p: Problem) -> list[Edit]:
    """Both edits of frames by strengths."""
    selected = p.rows, p.bias - 8, p.threshold - 16, p.directions  # always firing
    vector = torch.ones_like(p.h[0, 0])
    return [
        lambda h, by: kernels.steer_selected(h, *selected, by),
        lambda h, by: kernels.steer_static(h, vector, by),
    ]


@every_device
@every_dtype
def test_frames_of_no_strength_keep_every_bit(device: str, dtype: torch.dtype):
    p = problem((3, 20, 48, 9)).to(device, dtype)
    for edit in edits(p):
        h = p.h.clone()
        h[:, :, 1], h[1, 3, 4], h[2, 5, 6] = -0.0, float("nan"), float("inf")
        by = torch.ones(3, 20, device=device)
        by[0], by[1, ::2], by[1, 1], by[2, 7] = 0, 0, float("nan"), -0.0
        before = h.clone()
        edit(h, by)
        shut = ~(by.abs() > 0)
        assert bits(h[shut]) == bits(before[shut])
        assert (h[~shut] != before[~shut]).any(-1).all()


@every_device
def test_a_windows_one_strength(device: str):
    p = problem((4, 20, 48, 9)).to(device)
    one = torch.tensor([[0.0], [1.0], [-0.5], [float("nan")]], device=device)
    for edit in edits(p):
        assert torch.equal(edit(p.h.clone(), one), edit(p.h.clone(), one.expand(4, 20).contiguous()))
        assert bits(edit(p.h.clone(), one)[[0, 3]]) == bits(p.h[[0, 3]])


@every_device
def test_strided_frames_and_what_lies_between_them(device: str):
    p = problem((2, 20, 48, 9)).to(device)
    parts = p.rows, p.bias, p.threshold, p.weight, p.gate_bias
    for edit in edits(p):
        around = torch.full((4, 23, 100), 7.0, device=device)
        h = around[1:3, 2:22, 1:97:2]
        h.copy_(p.h)
        assert torch.equal(kernels.feature_scores(h, *parts), kernels.feature_scores(p.h, *parts))
        edit(h, p.strength)
        assert torch.equal(h, edit(p.h.clone(), p.strength))
        h.fill_(7.0)
        assert (around == 7).all()
        columns = p.h.permute(0, 2, 1).contiguous().permute(0, 2, 1)
        assert torch.equal(edit(columns, p.strength), edit(p.h.clone(), p.strength))


@every_device
@every_dtype
def test_nan_reaches_its_own_frame_only(device: str, dtype: torch.dtype):
    p = problem((2, 20, 48, 9)).to(device, dtype)
    h = p.h.clone()
    h[1, 4, 5] = float("nan")
    scores = kernels.feature_scores(h, *p.scoring[1:])
    assert scores.isnan().nonzero().tolist() == [[1, 4]]
    edited, clean = p.h.clone(), p.h.clone()
    edited[1, 4, 5] = float("nan")
    everywhere = p._replace(strength=torch.ones(2, 20, device=device))
    everywhere.steered(edited)
    everywhere.steered(clean)
    assert edited[1, 4].isnan().all()
    edited[1, 4], clean[1, 4] = 0, 0
    assert torch.equal(edited, clean)


@every_device
@pytest.mark.parametrize("shape", [(0, 20), (2, 0)], ids=str)
def test_nothing_to_do(device: str, shape: tuple[int, int]):
    p = problem((1, 20, 48, 9)).to(device)
    h = torch.empty(*shape, 48, device=device)
    strength = torch.empty(shape, device=device)
    assert kernels.feature_scores(h, *p.scoring[1:]).shape == shape
    for edit in edits(p):
        assert edit(h, strength).shape == h.shape
    gate = kernels.gate_strength(torch.empty(shape, device=device), "frame", 5, 0.5, 1.5, 1.0)
    assert gate.scores.shape == gate.strength.shape == shape
    none = p._replace(
        rows=p.rows[:0], bias=p.bias[:0], threshold=p.threshold[:0], directions=p.directions[:0]
    )
    assert torch.equal(none.steered(p.h.clone()), p.h)


def expected_gate(logits: Tensor, gate: str, smoothing: int, alpha: float) -> tuple[Tensor, Tensor]:
    length = logits.shape[1]
    near = [slice(max(0, t - smoothing // 2), t - smoothing // 2 + max(1, smoothing)) for t in range(length)]
    scores = torch.stack([logits[:, part].double().mean(1) for part in near], 1)
    seen = scores.amax(1, keepdim=True) if gate == "window" else scores
    strength = alpha * ((2.0 - seen) / 4.0).clamp(0, 1)
    return scores, torch.full((len(logits), 1), alpha, dtype=torch.double) if gate == "none" else strength


@every_device
@pytest.mark.parametrize("gate", ["window", "frame", "none"])
@pytest.mark.parametrize("smoothing", [0, 1, 2, 5, 25])
@pytest.mark.parametrize("length", [1, 7, 60])
def test_gate_strength(device: str, gate: kernels.GateKind, smoothing: int, length: int):
    logits = 3 * torch.randn(5, length, generator=torch.Generator().manual_seed(2))
    logits[3], logits[4, length // 2] = 50, float("nan")
    found = kernels.gate_strength(logits.to(device), gate, smoothing, 2.0, 4.0, -1.5)
    expected = expected_gate(logits, gate, smoothing, -1.5)
    for part, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(part.cpu().double(), wanted, rtol=1e-5, atol=1e-5, equal_nan=True)
    if gate != "none":
        assert not found.strength[3].any()
        assert found.strength[4].isnan().any()


@pytest.mark.skipif(INTERPRETED, reason="compiles for real")
@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_every_kernel_compiles_for_an_h100(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ahead of time, which needs no GPU: the interpreter doesn't check types as the compiler does."""
    pytest.importorskip("triton")
    from whisper_sae_steer.kernels import steer

    shared: dict[str, int] = {}

    def compile_only(kernel: Any, _: tuple[int, ...], *args: Any, **options: Any) -> None:
        shared[kernel.__name__] = compiled(kernel, args, options)

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(steer, "shared_memory", lambda _: 227 * 1024)
    monkeypatch.setattr(steer, "launch", compile_only)
    real = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[dtype]

    def some(*size: int) -> Tensor:
        return torch.empty(size, dtype=real, device="meta")

    h, features = some(64, 1500, 80), (some(20, 80), some(20), some(20))
    strength = torch.empty(64, 1, device="meta")
    steer.feature_scores(h, *features, some(20), some())
    steer.steer_selected(h, *features, some(20, 80), strength)
    steer.steer_static(h, some(80), strength)
    if dtype == "fp32":
        steer.gate_strength(torch.empty(64, 1500, device="meta"), "window", 5, 0.5, 1.5, 1.0)
    assert len(shared) == (4 if dtype == "fp32" else 3)
    assert max(shared.values()) <= 227 * 1024
