"""The SAE's ops at Whisper's sizes, beside PyTorch's own ways, eai-sparsify's encoder, and a dense step."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from whisper_sae_steer import kernels

from .roofline import Case

FRAMES = 1500
EXPANSION = 8
K = 50
Way = Callable[[], object]


class Problem(NamedTuple):
    """Frames near k-sparse sums of an SAE's directions, as training sees them, and a guess that fits."""

    x: Tensor
    """[N, d]"""
    w_enc: Tensor
    """[F, d]"""
    b_enc: Tensor
    w_dec: Tensor
    b_dec: Tensor
    guess: float
    """nine tenths of the k·N-th largest pre-activation"""


def cases(width: int, windows: int, dtype: torch.dtype = torch.float16) -> list[Case]:
    """Encoding and decoding of so many windows; of base's width a whole training step as well."""
    p = problem(windows * FRAMES, width, dtype)
    found = [encode_case(p, windows), decode_case(p, windows)]
    if width == 512:
        found += [select_case(p, windows), training_case(p, windows)]
    return found


def problem(frames: int, width: int, dtype: torch.dtype) -> Problem:
    generator = torch.Generator("cuda").manual_seed(0)
    features = EXPANSION * width
    rows = F.normalize(torch.randn(features, width, generator=generator, device="cuda"), dim=1).to(dtype)
    chosen = torch.randint(features, (frames, K), generator=generator, device="cuda")
    sizes = 1 + torch.rand(frames, K, generator=generator, device="cuda")
    zeros = torch.zeros(features, device="cuda", dtype=dtype)
    x = kernels.sparse_decode(sizes, chosen, rows, zeros[:width])
    sample = x[:2048]
    smallest = F.linear(sample, rows).flatten().float().topk(K * len(sample)).values[-1]
    return Problem(x, rows, zeros, rows.clone(), zeros[:width].clone(), 0.9 * float(smallest))


def encode_case(p: Problem, windows: int) -> Case:
    """The product alone is what the whole op is held against."""
    guess = 0.8 * p.guess  # a frame's own k-th largest may be well below the batch's
    ways: dict[str, Way] = {
        "ours": lambda: kernels.topk_encode(p.x, p.w_enc, p.b_enc, K, guess),
        "ours, no guess": lambda: kernels.topk_encode(p.x, p.w_enc, p.b_enc, K),
        "product alone": lambda: F.linear(p.x, p.w_enc, p.b_enc),
        "eager": lambda: plain_encode(p),
        "compile": torch.compile(lambda: plain_encode(p)),
        **sparsify_encoder(p),
    }
    traffic = p.x.nbytes + p.w_enc.nbytes + len(p.x) * K * 12
    return Case("topk_encode", p.x.shape[1], windows, traffic, 2 * p.x.numel() * len(p.w_enc), ways)


def sparsify_encoder(p: Problem) -> dict[str, Way]:
    """eai-sparsify's fused encoder, where it is installed."""
    try:
        from sparsify.fused_encoder import fused_encoder  # pyright: ignore[reportMissingImports]
    except ImportError:
        return {}
    return {"eai-sparsify": lambda: fused_encoder(p.x, p.w_enc, p.b_enc, K, "topk")}


def plain_encode(p: Problem) -> tuple[Tensor, Tensor]:
    values, indices = F.linear(p.x, p.w_enc, p.b_enc).relu().topk(K, dim=1)
    return values, indices


def decode_case(p: Problem, windows: int) -> Case:
    values, indices = kernels.topk_encode(p.x, p.w_enc, p.b_enc, K, 0.8 * p.guess)
    ways: dict[str, Way] = {
        "ours": lambda: kernels.sparse_decode(values, indices, p.w_dec, p.b_dec),
        "eager": lambda: plain_decode(p, values, indices),
        "compile": torch.compile(lambda: plain_decode(p, values, indices)),
    }
    traffic = p.x.nbytes + p.w_dec.nbytes + values.nbytes + indices.nbytes
    return Case("sparse_decode", p.x.shape[1], windows, traffic, 2 * p.x.numel() * K, ways)


def plain_decode(p: Problem, values: Tensor, indices: Tensor) -> Tensor:
    code = values.new_zeros(len(values), len(p.w_dec), dtype=p.w_dec.dtype)
    return torch.addmm(p.b_dec, code.scatter_(1, indices, values.to(code.dtype)), p.w_dec)


def select_case(p: Problem, windows: int) -> Case:
    """BatchTopK's choice alone, from pre-activations in memory."""
    pre = F.linear(p.x, p.w_enc, p.b_enc)
    ways: dict[str, Way] = {
        "ours": lambda: kernels.batch_topk(pre, K, p.guess),
        "eager": lambda: pre.flatten().relu().topk(K * len(pre), sorted=False),
    }
    return Case("batch_topk", p.x.shape[1], windows, pre.nbytes, pre.numel(), ways)


def training_case(p: Problem, windows: int) -> Case:
    """Choice, reconstruction, loss, all gradients and Adam, in bfloat16 autocast."""
    ways: dict[str, Way] = {
        "ours": training_step(p, sparse_reconstruction),
        "eager": training_step(p, dense_reconstruction),
        "compile": torch.compile(training_step(p, dense_reconstruction)),
    }
    traffic = p.x.nbytes + 4 * 2 * p.w_enc.nbytes
    return Case(
        "training step", p.x.shape[1], windows, traffic, 2 * p.x.numel() * (len(p.w_enc) + 5 * K), ways
    )


def training_step(p: Problem, reconstruct: Callable[..., Tensor]) -> Way:
    parameters = [t.float().clone().requires_grad_() for t in (p.w_enc, p.b_enc, p.w_dec, p.b_dec)]
    optimizer = torch.optim.Adam(parameters, lr=1e-6, fused=True)
    x = p.x.float()

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            reconstruction = reconstruct(x, *parameters, p.guess)
        optimizer.zero_grad()
        (x - reconstruction.float()).square().mean().backward()
        optimizer.step()

    return step


def sparse_reconstruction(
    x: Tensor, w_enc: Tensor, b_enc: Tensor, w_dec: Tensor, b_dec: Tensor, guess: float
) -> Tensor:
    chosen = kernels.batch_topk_encode(x - b_dec, w_enc, b_enc, K, guess)
    return kernels.sparse_autoencode(x, w_enc, b_enc, w_dec, b_dec, chosen)


def dense_reconstruction(
    x: Tensor, w_enc: Tensor, b_enc: Tensor, w_dec: Tensor, b_dec: Tensor, _: float
) -> Tensor:
    """As dictionary-learning and SAELens do it."""
    acts = F.linear(x - b_dec, w_enc, b_enc).relu().flatten()
    values, found = acts.topk(K * len(x), sorted=False)
    code = torch.zeros_like(acts).scatter(0, found, values).view(len(x), -1)
    return torch.addmm(b_dec, code, w_dec)
