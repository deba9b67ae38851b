"""Top-k of frames and of batches against a float64 search in NumPy: the reference, and the kernels.

Inputs are small multiples of 1/4, which every dtype and order of sums holds exactly: so equal values
abound, and results must be equal to the last bit.
"""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.ahead_of_time import compiled
from tests.support.interpreter import INTERPRETED, every_device, every_dtype, run_interpreted
from whisper_sae_steer import kernels
from whisper_sae_steer.kernels import Selection, TopK, topk_reference


def test_the_kernels_in_tritons_interpreter():
    """This file again and the sparse products'."""
    run_interpreted("kernels/test_topk.py", "kernels/test_sparse.py")


class Problem(NamedTuple):
    """Frames [N, d] and an encoder [F, d], [F]."""

    x: Tensor
    w_enc: Tensor
    b_enc: Tensor

    def to(self, *args: Any) -> "Problem":
        return Problem(*(t.to(*args) for t in self))


def problem(n: int, features: int, width: int, seed: int = 0) -> Problem:
    generator = torch.Generator().manual_seed(seed)

    def quarters(*size: int) -> Tensor:
        return torch.randint(-4, 5, size, generator=generator) / 4

    return Problem(quarters(n, width), quarters(features, width), quarters(features))


def preactivations(p: Problem) -> np.ndarray:
    x, w_enc, b_enc = (t.double().cpu().numpy() for t in p)
    return x @ w_enc.T + b_enc


def expected_topk(pre: np.ndarray, k: int) -> TopK:
    """Sort each row by value, then column; what isn't positive, NaN included, becomes 0 at column 0."""
    ranked = np.where(pre > 0, pre, 0.0)
    columns = np.argsort(-ranked, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(ranked, columns, axis=1)
    return TopK(torch.from_numpy(values), torch.from_numpy(np.where(values > 0, columns, 0)))


def expected_selection(pre: np.ndarray, keep: int) -> Selection:
    flat = np.where(pre > 0, pre, 0.0).ravel()
    found = np.sort(np.argsort(-flat, kind="stable")[: min(keep, int((flat > 0).sum()))])
    rows, cols = np.divmod(found, pre.shape[1])
    return Selection(torch.from_numpy(rows), torch.from_numpy(cols), torch.from_numpy(flat[found]))


def assert_same(found: TopK | Selection, expected: TopK | Selection) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert torch.equal(one.cpu().double(), other.double())


@every_device
@every_dtype
@pytest.mark.parametrize(("shape", "k"), [((5, 70, 20), 4), ((3, 300, 33), 1), ((2, 16, 64), 16)], ids=str)
@pytest.mark.parametrize("guess", [0.0, 1.25, 1e6])
def test_topk_encode_is_exact_whatever_the_guess(
    device: str, dtype: torch.dtype, shape: tuple[int, int, int], k: int, guess: float
):
    """From 0 on too many lie above the guess for a kernel's list, above a million none."""
    p = problem(*shape).to(device, dtype)
    found = kernels.topk_encode(*p, k, guess)
    assert_same(found, expected_topk(preactivations(p), k))
    assert found.values.dtype == torch.float32


@every_device
def test_topk_encode_takes_a_guess_for_each_frame(device: str):
    p = problem(6, 70, 20).to(device)
    guess = torch.tensor([0.0, 1.0, -3.0, 1e6, 2.0, 4.0], device=device)
    assert_same(kernels.topk_encode(*p, 3, guess), expected_topk(preactivations(p), 3))


@every_device
def test_fewer_than_k_positive_leave_zeros(device: str):
    p = problem(5, 40, 16).to(device)
    p = p._replace(b_enc=torch.full_like(p.b_enc, -3.0))
    expected = expected_topk(preactivations(p), 6)
    assert 0 < int((expected.values > 0).sum()) < 20
    assert_same(kernels.topk_encode(*p, 6, 0.5), expected)
    p = p._replace(b_enc=torch.full_like(p.b_enc, -99.0))
    assert not kernels.topk_encode(*p, 6).values.any()


@every_device
@pytest.mark.parametrize("guess", [0.0, 2.0])
def test_nan_is_never_kept(device: str, guess: float):
    p = problem(5, 70, 20)
    p.x[1], p.w_enc[7, 3], p.b_enc[9] = torch.nan, torch.nan, torch.nan
    p = p.to(device)
    found = kernels.topk_encode(*p, 4, guess)
    assert_same(found, expected_topk(preactivations(p), 4))
    assert not found.values[1].any()
    pre = torch.from_numpy(preactivations(p)).float().to(device)
    assert_same(kernels.batch_topk(pre, 4, guess), expected_selection(preactivations(p), 20))


@every_device
def test_infinity_is_the_largest(device: str):
    p = problem(2, 70, 20)
    p.b_enc[33] = torch.inf
    found = kernels.topk_encode(*p.to(device), 4, 2.0)
    assert_same(found, expected_topk(preactivations(p), 4))
    assert found.indices[:, 0].tolist() == [33, 33]


@every_device
def test_no_frames(device: str):
    p = problem(0, 70, 20).to(device)
    assert kernels.topk_encode(*p, 4).values.shape == (0, 4)
    assert kernels.batch_topk(torch.empty(0, 70, device=device), 4, 1.0).rows.shape == (0,)
    assert kernels.batch_topk_encode(*p, 4, 1.0).values.shape == (0,)


@every_device
def test_strided_inputs(device: str):
    p = problem(6, 24, 40).to(device)
    strided = Problem(p.x[::2, ::2], p.w_enc.T.contiguous().T[::2, ::2], p.b_enc[::2])
    assert_same(kernels.topk_encode(*strided, 3, 1.0), expected_topk(preactivations(strided), 3))
    pre = torch.from_numpy(preactivations(p)).float().to(device).T[::2]
    assert_same(kernels.batch_topk(pre, 3, 2.0), expected_selection(pre.double().cpu().numpy(), 36))


@every_device
@every_dtype
@pytest.mark.parametrize("guess", [0.0, -1.0, 1.25, 1e6])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_batch_topk_is_exact_whatever_the_guess(device: str, dtype: torch.dtype, guess: float, k: int):
    pre = preactivations(problem(7, 66, 20))
    found = kernels.batch_topk(torch.from_numpy(pre).to(device, dtype), k, guess)
    assert_same(found, expected_selection(pre, 7 * k))
    assert found.values.dtype == dtype


@every_device
@pytest.mark.parametrize("guess", [0.0, 3.0, 3.5, 1e6])
def test_batch_topk_encode_is_exact(device: str, guess: float):
    p = problem(5, 70, 20).to(device)
    assert_same(kernels.batch_topk_encode(*p, 4, guess), expected_selection(preactivations(p), 20))


@pytest.fixture
def prefiltering(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call's prefilter sufficed; any CPU takes it."""
    sufficed: list[bool] = []
    original = topk_reference._prefiltered

    def noted(*args: Any) -> Selection | None:
        selection = original(*args)
        sufficed.append(selection is not None)
        return selection

    monkeypatch.setattr(topk_reference, "_has_bfloat16", lambda: True)
    monkeypatch.setattr(topk_reference, "_prefiltered", noted)
    return sufficed


@pytest.mark.parametrize("seed", range(4))
def test_the_bfloat16_prefilter_loses_nothing(prefiltering: list[bool], seed: int):
    """Worst case: every factor rounded by almost half a unit, all in one direction."""
    generator = torch.Generator().manual_seed(seed)
    x, w_enc = (1 + torch.randint(1, 60, size, generator=generator) / 128 for size in ((20, 64), (90, 64)))
    x, w_enc = x + 0.49 / 128, w_enc + 0.49 / 128
    p = Problem(x * (1 - 2 * (seed % 2)), w_enc * (1 - 2 * (seed % 2)), -torch.rand(90, generator=generator))
    pre = torch.from_numpy(preactivations(p))
    smallest = float(pre.flatten().topk(60).values.min())
    found = topk_reference.batch_topk_encode(*p, 3, smallest * (1 - 1e-5))
    expected = expected_selection(pre.numpy(), 60)
    assert prefiltering == [True]
    assert torch.equal(found.rows, expected.rows)
    assert torch.equal(found.cols, expected.cols)
    torch.testing.assert_close(found.values.double(), expected.values, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("guess", "sufficient"), [(1e6, False), (1e-3, False), (2.0, True)])
def test_the_prefilter_gives_up_on_a_bad_guess(prefiltering: list[bool], guess: float, sufficient: bool):
    p = problem(20, 90, 16)
    found = topk_reference.batch_topk_encode(*p, 3, guess)
    assert prefiltering == [sufficient]
    assert_same(found, expected_selection(preactivations(p), 60))


def test_a_topk_becomes_a_selection_by_row_and_column():
    pre = preactivations(problem(6, 40, 16))
    pre[2] = -1.0
    found = topk_reference.topk_rows(torch.from_numpy(pre), 5).selection()
    code = np.zeros_like(pre)
    code[found.rows, found.cols] = found.values
    expected = expected_topk(pre, 5)
    dense = torch.zeros(6, 40, dtype=torch.float64).scatter_add(1, expected.indices, expected.values)
    assert torch.equal(torch.from_numpy(code), dense)
    assert (np.diff(found.rows * 40 + found.cols) > 0).all()


@pytest.mark.skipif(INTERPRETED, reason="compiles for real")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_every_kernel_compiles_for_an_h100(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    """The interpreter doesn't check types as the compiler does."""
    pytest.importorskip("triton")
    from whisper_sae_steer.kernels import topk

    shared: dict[str, int] = {}

    def compile_only(kernel: Any, _: tuple[int, ...], *args: Any, **options: Any) -> None:
        shared[kernel.__name__] = compiled(kernel, args, options)
        if kernel.__name__ == "_count":
            args[2].fill_(1)

    monkeypatch.setattr(topk, "launch", compile_only)
    monkeypatch.setattr(topk, "shared_memory", lambda _: 227 * 1024)
    p = problem(2, 64, 16).to(dtype)
    topk.topk_encode(*p, 10, 1.0)
    topk.batch_topk(torch.zeros(2, 64, dtype=dtype), 10, 1.0)
    assert shared.keys() == {"_candidates", "_ranked", "_count", "_compact"}
    assert max(shared.values()) <= 227 * 1024
