"""BatchTopK training of a sparse autoencoder on an activation store (Bussmann, arXiv 2412.06410).

Recipe: Adam 2e-4, linear decay over the last fifth, unit-norm decoder rows with the parallel
gradient removed, b_dec from the geometric median, AuxK on dead features (Gao et al., arXiv
2406.04093), and a running mean of each batch's smallest kept activation as the inference threshold.
"""

import signal
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import CalibrationError
from ..files import write_atomically
from ..sae import SAE, SAEConfig
from .sparse import Selection, SparseAutoencode, batch_topk
from .store import FrameStore


@dataclass(frozen=True)
class TrainConfig:
    """Options of :func:`train`."""

    d_sae: int
    """number of features"""
    k: int = 50
    """active features a frame, on average over the batch"""
    steps: int = 4000
    batch_size: int = 2048
    """frames a step"""
    lr: float = 2e-4
    decay_share: float = 0.2
    """last share of the steps over which the learning rate falls linearly to zero"""
    aux_coefficient: float = 1 / 32
    dead_after: int = 200_000
    """a feature is dead when it has not fired for this many frames"""
    seed: int = 0
    checkpoint_every: int = 250


class TrainReport(NamedTuple):
    """Quality on held-back recordings, at the inference threshold."""

    explained_variance: float
    l0: float
    dead_share: float
    """share of features that never fire on the held-back frames"""
    frames: int
    """held-back frames measured"""


class _State:
    """Everything that changes while training, so that a checkpoint is one dict."""

    def __init__(self, frames: Tensor, config: TrainConfig):
        generator = torch.Generator().manual_seed(config.seed)
        sample = frames[torch.randperm(len(frames), generator=generator)[:20_000]].float()
        d_in = sample.shape[1]
        self.scale = float(d_in**0.5 / sample.norm(dim=-1).mean())
        w_dec = torch.randn(config.d_sae, d_in, generator=generator)
        w_dec /= w_dec.norm(dim=-1, keepdim=True)
        self.b_dec = _geometric_median(sample * self.scale).requires_grad_()
        self.w_dec = w_dec.requires_grad_()
        self.w_enc = w_dec.detach().clone().requires_grad_()
        self.b_enc = torch.zeros(config.d_sae).requires_grad_()
        self.optimizer = torch.optim.Adam(self.parameters(), lr=config.lr)
        self.since_fired: Tensor = torch.zeros(config.d_sae, dtype=torch.int64)
        self.threshold = 0.0
        self.step = 0

    def parameters(self) -> list[Tensor]:
        return [self.w_enc, self.b_enc, self.w_dec, self.b_dec]

    def state_dict(self) -> dict[str, Any]:
        return {
            "parameters": [p.detach() for p in self.parameters()],
            "optimizer": self.optimizer.state_dict(),
            "since_fired": self.since_fired,
            "threshold": self.threshold,
            "step": self.step,
            "scale": self.scale,
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for parameter, saved in zip(self.parameters(), state["parameters"], strict=True):
            parameter.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.since_fired = state["since_fired"]
        self.threshold, self.step, self.scale = state["threshold"], state["step"], state["scale"]


def train(store: FrameStore, config: TrainConfig, out: Path) -> tuple[SAE, TrainReport]:
    """Train one SAE on ``store``; continues from ``out/checkpoint.pt`` when interrupted before.

    Ctrl-C finishes the step and writes a checkpoint first. The result takes raw frames: the input
    scale is folded in. CalibrationError if the frames don't fill one batch or none are held back.
    """
    frames, held_back = store.load(held_back=False), store.load(held_back=True)
    if not len(held_back):
        raise CalibrationError("too little audio to hold some back to measure quality on; add more")
    if len(frames) < config.batch_size:
        raise CalibrationError(
            f"{len(frames)} frames are fewer than one batch of {config.batch_size}; add audio"
        )
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    state = _State(frames, config)
    names = ("source", "fingerprint", "tap")
    key = {**asdict(config), **{name: getattr(store, name) for name in names}}
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        if saved["key"] == key:
            state.load_state_dict(saved["state"])
    progress = tqdm(total=config.steps, initial=state.step, desc="train", unit="step")
    with progress, _noted_interrupt() as interrupted:
        while state.step < config.steps:
            fvu = _step(state, _batch(frames, state.step, config) * state.scale, config)
            progress.update()
            if state.step % 50 == 0:
                dead = int((state.since_fired > config.dead_after).sum())
                progress.set_postfix(EV=f"{1 - fvu:.4f}", dead=dead, refresh=False)
            if state.step % config.checkpoint_every == 0 or interrupted.is_set():
                _save(checkpoint, key, state)
            if interrupted.is_set():
                raise KeyboardInterrupt
    sae = _finish(state, store, config)
    return sae, evaluate(sae, held_back)


@contextmanager
def _noted_interrupt() -> Generator[threading.Event]:
    """Take note of Ctrl-C rather than raise it, so that no step is cut in half."""
    seen = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # where signals never arrive
        yield seen
        return
    previous = signal.signal(signal.SIGINT, lambda _number, _frame: seen.set())
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, previous)


def _batch(frames: Tensor, step: int, config: TrainConfig) -> Tensor:
    """Batch of a step: epochs are seeded permutations, so any step can be had without the others."""
    epoch, index = divmod(step, len(frames) // config.batch_size)
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    order = torch.randperm(len(frames), generator=generator)
    start = index * config.batch_size
    return frames[order[start : start + config.batch_size]].float()


def _step(state: _State, x: Tensor, config: TrainConfig) -> float:
    """One optimiser step on scaled frames [N, d]; returns the batch's FVU."""
    with torch.no_grad():
        pre = torch.addmm(state.b_enc, x - state.b_dec, state.w_enc.T)
        chosen = batch_topk(pre, config.k, 0.7 * state.threshold)
        smallest = float(chosen.values.min())
        state.threshold += (smallest - state.threshold) * (0.01 if state.threshold else 1)
    reconstruction: Tensor = SparseAutoencode.apply(x, *state.parameters(), chosen)  # type: ignore[assignment]
    error = x - reconstruction
    variance = (x - x.mean(0)).square().sum()
    fvu = error.square().sum() / variance
    loss = fvu + config.aux_coefficient * _aux_loss(state, x, error.detach(), config)
    state.optimizer.zero_grad()
    loss.backward()
    with torch.no_grad():
        assert state.w_dec.grad is not None
        parallel = (state.w_dec.grad * state.w_dec).sum(-1, keepdim=True)
        state.w_dec.grad -= parallel * state.w_dec
        left = (config.steps - state.step) / max(1, config.decay_share * config.steps)
        state.optimizer.param_groups[0]["lr"] = config.lr * min(1.0, left)
        state.optimizer.step()
        state.w_dec /= state.w_dec.norm(dim=-1, keepdim=True)
        state.since_fired += len(x)
        state.since_fired[chosen.cols] = 0
    state.step += 1
    return float(fvu.detach())


def _aux_loss(state: _State, x: Tensor, error: Tensor, config: TrainConfig) -> Tensor:
    """AuxK: the dead features' share of the residual, so that they find something to explain."""
    dead = (state.since_fired > config.dead_after).nonzero()[:, 0]
    if not len(dead):
        return torch.zeros(())
    with torch.no_grad():
        pre = (x - state.b_dec) @ state.w_enc[dead].T + state.b_enc[dead]
        k = min(x.shape[1] // 2, len(dead))
        values, cols = pre.topk(k, dim=-1)
        rows = torch.arange(len(x)).repeat_interleave(k)
        live = values.flatten() > 0
        chosen = Selection(rows[live], dead[cols.flatten()[live]], values.flatten()[live])
    guess: Tensor = SparseAutoencode.apply(x, *state.parameters(), chosen)  # type: ignore[assignment]
    residual = guess - state.b_dec
    return (error - residual).square().sum() / error.square().sum()


def _save(path: Path, key: Mapping[str, Any], state: _State) -> None:
    with write_atomically(path) as temporary:
        torch.save({"key": key, "state": state.state_dict()}, temporary)


@torch.no_grad()
def _finish(state: _State, store: FrameStore, config: TrainConfig) -> SAE:
    """The trained SAE as a JumpReLU over raw frames."""
    sae = SAE(
        SAEConfig(
            d_in=store.d_in, d_sae=config.d_sae, architecture="jumprelu", k=config.k,
            tap=store.tap, model=store.model,
            metadata={
                "fingerprint": store.fingerprint,
                "source": store.source,
                "training": asdict(config),
            },
        )
    )  # fmt: skip
    sae.W_enc.copy_(state.w_enc.T)
    sae.b_enc.copy_(state.b_enc)
    sae.W_dec.copy_(state.w_dec)
    sae.b_dec.copy_(state.b_dec)
    sae.threshold.fill_(state.threshold)
    sae.fold_input_scale(state.scale)
    return sae


@torch.no_grad()
def evaluate(sae: SAE, frames: Tensor, batch_size: int = 4096) -> TrainReport:
    """Explained variance, L0 and dead share on frames [N, d], at the inference threshold."""
    mean = frames.float().mean(0)
    error = variance = fired = 0.0
    alive = torch.zeros(sae.config.d_sae, dtype=torch.bool)
    for chunk in frames.split(batch_size):
        x = chunk.float()
        features, reconstruction = sae(x)
        error += float((x - reconstruction).square().sum())
        variance += float((x - mean).square().sum())
        fired += float((features > 0).sum())
        alive |= (features > 0).any(0)
    return TrainReport(
        1 - error / variance, fired / len(frames), 1 - float(alive.float().mean()), len(frames)
    )


def _geometric_median(x: Tensor, iterations: int = 20) -> Tensor:
    """Weiszfeld's algorithm over rows."""
    median = x.mean(0)
    for _ in range(iterations):
        weight = 1 / (x - median).norm(dim=-1, keepdim=True).clamp_min(1e-6)
        median = (weight * x).sum(0) / weight.sum()
    return median
