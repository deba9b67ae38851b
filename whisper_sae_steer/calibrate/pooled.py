"""Fitting the pooled gate: what exported weights, which can hold no SAE rows, know of speech.

A logistic regression on frames gives the key, and what a window's pooled frame is worth is fitted so that
speech comes to 0, with as little spread as there can be, and everything else to −1 or less.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from whisper import Whisper

from ..errors import CalibrationError
from ..pack import PooledGate
from ..taps import FRAMES
from .selection import labelled_frames
from .windows import Window

RIDGE = 0.03
QUIET_FRAMES = 40
"""of each window, padding and all, in which there must be a quiet direction"""


def fit_pooled(
    model: Whisper,
    fitted: Sequence[Window],
    held: Sequence[Window],
    seed: int = 0,
    base: PooledGate | None = None,
) -> PooledGate:
    """Fit on ``fitted`` and place the ramp between the speech and the noise of ``held``.

    Speech may come down a third of the way to noise, all taken at their 0.5% quantiles, before the edit
    begins; half-way it is whole. A ``base`` keeps its key and its quiet directions, its value is corrected as
    far as the recordings ask for, and its speech and noise count for the ramp. CalibrationError unless both
    parts hold speech and other sounds.
    """
    gate = base or _without_value(model, fitted, seed)
    value = _fit_value(*_pooled(fitted, gate), np.r_[gate.value.double().numpy(), float(gate.offset)])
    pooled, speech = _pooled(held, gate)
    if speech.all() or not speech.any():
        raise CalibrationError("too few recordings: none of one kind is left to hold back")
    values = pooled @ value[:-1] + value[-1]
    low, high = np.quantile(values[speech], 0.005), np.quantile(values[~speech], 0.995)
    if base is not None:
        step = float(base.full - base.shut)  # a sixth of its way from speech to noise
        low, high = min(low, float(base.shut) - 2 * step), max(high, float(base.full) + 3 * step)
    return gate._replace(
        value=torch.from_numpy(value[:-1]).float(),
        offset=torch.tensor(value[-1]).float(),
        shut=torch.tensor(low + (high - low) / 3).float(),
        full=torch.tensor(low + (high - low) / 2).float(),
    )


def _without_value(model: Whisper, fitted: Sequence[Window], seed: int) -> PooledGate:
    """The gate's key, scales and quiet directions; what a pooled frame is worth is still to be fitted."""
    blocks, labels = zip(*labelled_frames(fitted, seed), strict=True)
    frames = torch.cat(blocks)
    is_speech = np.repeat(labels, [len(block) for block in blocks])
    if is_speech.all() or not is_speech.any():
        raise CalibrationError("the gate needs both speech and non-speech recordings")
    centre, scale = frames.mean(0), frames.std(0)
    logistic = LogisticRegression(C=0.01, max_iter=1000, class_weight="balanced")
    logistic.fit(((frames - centre) / scale).numpy(), is_speech)
    key = torch.from_numpy(logistic.coef_[0]).float()
    return PooledGate(
        centre,
        scale,
        key,
        value=torch.zeros(len(key)),
        offset=torch.tensor(0.0),
        shut=torch.tensor(0.0),
        full=torch.tensor(0.0),
        spare=spare_directions(model, torch.cat(list(_anywhere(fitted, seed)))),
    )


@torch.no_grad()
def _pooled(windows: Sequence[Window], gate: PooledGate) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Pooled frames [N, d] of windows, and whether someone speaks in them; speech must be heard somewhere."""
    windows = [w for w in windows if w.speech.any() or not w.is_speech]
    rows: list[Tensor] = []
    for window in windows:
        frames = (window.frames() - gate.centre) / gate.scale
        rows.append((frames @ gate.key).softmax(0) @ frames)
    return torch.stack(rows).double().numpy(), np.array([w.is_speech for w in windows])


def _fit_value(
    pooled: NDArray[np.float64], is_speech: NDArray[np.bool_], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights and offset [d + 1]: squares pull speech to 0, squared hinges push the rest to −1 or below.

    The ridge pulls the weights to those of ``start``.
    """
    rows = np.c_[pooled, np.ones(len(pooled))]
    weight = np.where(is_speech, 1 / is_speech.mean(), 1 / (~is_speech).mean()) / len(rows)

    def loss(value: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        worth = rows @ value
        miss = np.where(is_speech, worth, np.maximum(worth + 1, 0))
        ridge = np.r_[value[:-1] - start[:-1], 0.0]
        return (
            float(weight @ miss**2 + RIDGE * ridge @ ridge),
            2 * (rows.T @ (weight * miss) + RIDGE * ridge),
        )

    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x


def _anywhere(windows: Sequence[Window], seed: int) -> Iterator[Tensor]:
    """Frames from other places in each window: padding is the same everywhere, but not at every place."""
    rng = np.random.default_rng(seed)
    for window in windows:
        yield window.frames()[torch.from_numpy(rng.choice(FRAMES, QUIET_FRAMES, replace=False))]


@torch.no_grad()
def spare_directions(model: Whisper, frames: Tensor) -> Tensor:
    """The quietest directions [3, d], of length 1 and mean 0, of frames before ``ln_post``'s weight and bias.

    ``frames`` [N, d] are encoder outputs. Layer norms don't pass on what has another mean.
    """
    norm = model.encoder.ln_post
    d = frames.shape[1]
    of_mean_0 = torch.linalg.qr(torch.cat([torch.ones(d, 1), torch.eye(d)[:, 1:]], 1))[0][:, 1:]
    plain = (frames - norm.bias) / norm.weight @ of_mean_0
    return (of_mean_0 @ torch.linalg.eigh(plain.T @ plain).eigenvectors[:, :3]).T.contiguous()
