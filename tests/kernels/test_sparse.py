"""Sparse decoding and its gradients against dense float64 autograd: the reference, and the kernels.

test_kernels_topk.py runs this file too in Triton's interpreter; float64 stays with the reference there, as
it does on a GPU.
"""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from tests.support.ahead_of_time import compiled
from tests.support.interpreter import HALVES, INTERPRETED, every_device
from whisper_sae_steer import kernels
from whisper_sae_steer.kernels import Selection, autoencode, topk_reference
from whisper_sae_steer.kernels.sparse_reference import row_starts

TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
FRAMES, FEATURES, WIDTH = 8, 28, 10


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(
        found.double().cpu(), expected, rtol=0, atol=TOLERANCE[dtype] * max(1.0, scale)
    )


@every_device
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("width", [7, 130])
@pytest.mark.parametrize("biased", [True, False])
def test_sums_and_products_of_gathered_rows(device: str, dtype: torch.dtype, width: int, biased: bool):
    """Rows with no, one and many entries, of a table whose rows don't follow each other in memory."""
    counts = torch.tensor([3, 0, 1, 75, 0])
    index = torch.randint(0, 40, (79,), generator=torch.Generator().manual_seed(0))
    table, bias = random(40, 2 * width, seed=1).to(dtype)[:, ::2], random(width, seed=2).to(dtype)
    work = torch.promote_types(dtype, torch.float32)
    weights, frames = random(79, seed=3).to(work), random(5, width, seed=4).to(work)
    rows = torch.arange(5).repeat_interleave(counts)
    code = torch.zeros(5, 40, dtype=torch.float64).index_put((rows, index), weights.double(), accumulate=True)
    expected = code @ table.double() + (bias.double() if biased else 0)
    exact = (frames.double() @ table.double().T)[rows, index]
    starts = row_starts(rows, 5)
    table, starts, index, weights, frames, bias = (
        t.to(device) for t in (table, starts, index, weights, frames, bias)
    )
    found = autoencode.gather_sum(table, starts, index, weights, bias if biased else None)
    assert found.dtype == (dtype if biased else work)
    close(found, expected, found.dtype)
    products = autoencode.gather_dot(table, starts, index, frames)
    assert products.dtype == work
    close(products, exact, work)


class Parameters(NamedTuple):
    w_enc: Tensor
    b_enc: Tensor
    w_dec: Tensor
    b_dec: Tensor


def leaves(device: str, dtype: torch.dtype) -> Parameters:
    shapes = [(FEATURES, WIDTH), (FEATURES,), (FEATURES, WIDTH), (WIDTH,)]
    return Parameters(
        *(random(*shape, seed=seed).to(device, dtype).requires_grad_() for seed, shape in enumerate(shapes))
    )


@every_device
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("k", [1, 5, FEATURES])
def test_autoencoding_equals_dense_autograd(device: str, dtype: torch.dtype, k: int):
    parameters, x = leaves(device, dtype), random(FRAMES, WIDTH, seed=5)
    upstream = random(FRAMES, WIDTH, seed=6)
    exact = Parameters(*(p.detach().double().cpu().requires_grad_() for p in parameters))
    w_enc, b_enc, w_dec, b_dec = exact
    pre = (x.to(dtype).double() - b_dec) @ w_enc.T + b_enc
    chosen = topk_reference.batch_topk(pre, k, 0.0)
    mask = torch.zeros_like(pre).index_put((chosen.rows, chosen.cols), torch.ones(()).double())
    expected = (pre * mask) @ w_dec + b_dec
    chosen = Selection(chosen.rows, chosen.cols, chosen.values.to(dtype))
    found = kernels.sparse_autoencode(
        x.to(device, dtype), *parameters, Selection(*(t.to(device) for t in chosen))
    )
    close(found, expected.detach(), dtype)
    gradients = torch.autograd.grad(found, parameters, upstream.to(device, dtype))
    for one, other in zip(gradients, torch.autograd.grad(expected, exact, upstream), strict=True):
        assert one.dtype == dtype
        close(one, other, dtype)


@every_device
def test_nothing_selected_gives_the_bias(device: str):
    parameters = leaves(device, torch.float32)
    none = kernels.batch_topk(-torch.ones(FRAMES, FEATURES, device=device), 3)
    output = kernels.sparse_autoencode(torch.zeros(FRAMES, WIDTH, device=device), *parameters, none)
    assert torch.equal(output, parameters[3].expand(FRAMES, -1))
    gradients = torch.autograd.grad(output.sum(), parameters)
    assert all(not gradient.any() for gradient in gradients[:3])
    assert torch.equal(gradients[3], torch.full_like(gradients[3], FRAMES))


@every_device
def test_no_frames(device: str):
    _, _, w_dec, b_dec = parameters = leaves(device, torch.float32)
    none = kernels.batch_topk(torch.zeros(0, FEATURES, device=device), 3)
    output = kernels.sparse_autoencode(torch.zeros(0, WIDTH, device=device), *parameters, none)
    decoded = kernels.sparse_decode(none.values.view(0, 3), none.cols.view(0, 3), w_dec, b_dec)
    assert output.shape == decoded.shape == (0, WIDTH)
    gradients = torch.autograd.grad(output.sum() + decoded.sum(), parameters)
    assert not any(gradient.any() for gradient in gradients)


@pytest.fixture(params=[0.0, 2.0], ids=["dense", "sparse"])
def decoding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """Either way of decoding, whatever the size."""
    monkeypatch.setattr(autoencode, "DENSE_DECODE_FROM", {"cpu": request.param, "cuda": request.param})
    return request.param


@every_device
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES], ids=str)
@pytest.mark.usefixtures("decoding")
def test_decoding_equals_dense_autograd(device: str, dtype: torch.dtype):
    """With a frame of padding: several entries of value 0 at feature 0."""
    indices = torch.stack([torch.randperm(FEATURES)[:6] for _ in range(FRAMES)])
    values = random(FRAMES, 6, seed=8).to(torch.promote_types(dtype, torch.float32))
    values[3], indices[3] = 0.0, 0
    _, _, w_dec, b_dec = leaves("cpu", dtype)
    inputs = v, w, b = tuple(t.detach().to(device).requires_grad_() for t in (values, w_dec, b_dec))
    exact = [t.detach().double().requires_grad_() for t in (values, w_dec, b_dec)]
    found = kernels.sparse_decode(v, indices.to(device), w, b)
    assert found.dtype == dtype
    expected = torch.einsum("nk,nkd->nd", exact[0], exact[1][indices]) + exact[2]
    close(found, expected.detach(), dtype)
    upstream = random(FRAMES, WIDTH, seed=9).to(dtype)
    gradients = torch.autograd.grad(found, inputs, upstream.to(device))
    for one, other in zip(gradients, torch.autograd.grad(expected, exact, upstream.double()), strict=True):
        close(one, other, dtype)


@pytest.mark.usefixtures("decoding")
def test_decoding_passes_gradcheck():
    indices = torch.tensor([[0, 3, 1], [2, 2, 4]])
    inputs = [t.requires_grad_() for t in (random(2, 3), random(5, 4, seed=1), random(4, seed=2))]
    assert torch.autograd.gradcheck(lambda v, w, b: kernels.sparse_decode(v, indices, w, b), inputs)


def test_decoding_is_sparse_where_few_features_are_kept(monkeypatch: pytest.MonkeyPatch):
    taken: list[int] = []
    original = autoencode.gather_sum

    def noted(table: Tensor, starts: Tensor, index: Tensor, *rest: Any) -> Tensor:
        taken.append(len(index))
        return original(table, starts, index, *rest)

    monkeypatch.setattr(autoencode, "gather_sum", noted)
    w_dec, b_dec = torch.ones(64, 4), torch.zeros(4)
    for k in (15, 16):  # of 64: a quarter is where the CPU's dense product begins
        decoded = kernels.sparse_decode(torch.ones(2, k), torch.arange(k).expand(2, -1), w_dec, b_dec)
        assert torch.equal(decoded, torch.full((2, 4), float(k)))
    assert taken == [30]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_autocast_reads_bfloat16_and_sums_in_float32():
    parameters = leaves("cuda", torch.float32)
    x = random(FRAMES, WIDTH, seed=5).float().cuda()
    with torch.autocast("cuda", torch.bfloat16):
        chosen = kernels.batch_topk_encode(x - parameters.b_dec, parameters.w_enc, parameters.b_enc, 5)
        found = kernels.sparse_autoencode(x, *parameters, chosen)
    assert found.dtype == torch.float32
    reference = kernels.sparse_autoencode(x.double(), *Parameters(*(p.double() for p in parameters)), chosen)
    close(found, reference.detach().cpu(), torch.bfloat16)
    upstream = random(FRAMES, WIDTH, seed=6).cuda()
    gradients = torch.autograd.grad(found, parameters, upstream.float())
    for one, other in zip(gradients, torch.autograd.grad(reference, parameters, upstream), strict=True):
        assert one.dtype == torch.float32
        close(one, other.double().cpu(), torch.bfloat16)


@pytest.mark.skipif(INTERPRETED, reason="compiles for real")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_every_kernel_compiles_for_an_h100(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    """The interpreter doesn't check types as the compiler does."""
    pytest.importorskip("triton")
    from whisper_sae_steer.kernels import sparse

    names: list[str] = []

    def compile_only(kernel: Any, _: tuple[int, ...], *args: Any, **options: Any) -> None:
        names.append(kernel.__name__)
        assert compiled(kernel, args, options) <= 227 * 1024

    monkeypatch.setattr(sparse, "launch", compile_only)
    table, starts, index = torch.zeros(4, 32, dtype=dtype), torch.tensor([0, 1, 2]), torch.tensor([3, 0])
    sparse.gather_sum(table, starts, index, torch.ones(2), table[0])
    sparse.gather_sum(table, starts, index, torch.ones(2), None)
    sparse.gather_dot(table, starts, index, torch.ones(2, 32))
    assert names == ["_gather_sum", "_gather_sum", "_gather_dot"]
