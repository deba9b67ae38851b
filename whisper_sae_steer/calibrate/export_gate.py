"""Fitting the gate of exported weights, which can hold no SAE rows.

A logistic regression on frames gives the keys by which a window's frames are pooled. What the pooled frames
say, the speech evidence, is fitted such that speech comes to 0, with as little spread as there can be, and
everything else to −1 or less.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from whisper import Whisper

from ..audio.units import WINDOW_FRAMES
from ..errors import CalibrationError
from ..steering.pack import ExportGate
from .selection import labelled_frames
from .windows import CalibrationWindow

SHARPNESS = (0.35, 0.7)
"""of each head, times the frames' logit of speech: blunter ones hear how much is said, sharper ones a word"""
FOLDS = 4
RIDGE = 0.03
NARROWEST = 0.1
"""way from speech to noise, where they overlap: what is like speech is left alone"""
QUIET_FRAMES = 40
"""of each window, padding and all, in which there must be a quiet direction"""


def fit_export_gate(
    model: Whisper, windows: Sequence[CalibrationWindow], seed: int = 0, base: ExportGate | None = None
) -> ExportGate:
    """Fit on all ``windows``; place the ramp where fits to other recordings put speech and noise.

    Speech may come down a third of the way to noise, both taken at their 0.5% quantiles, before the edit
    begins; half-way it is whole. A ``base`` keeps its keys and its quiet directions, its values are
    corrected as far as the recordings ask for, and its speech and noise count for the ramp.
    CalibrationError unless there are two recordings of speech and two of other sounds.
    """
    windows = [w for w in windows if w.speech.any() or not w.is_speech]  # there must be speech somewhere
    is_speech = np.array([w.is_speech for w in windows])
    folds = _folds(windows)
    if len({*folds[is_speech]}) < 2 or len({*folds[~is_speech]}) < 2:
        raise CalibrationError("too few recordings: two with speech and two without are needed")
    gate = base or _without_value(model, windows, seed)
    pooled, start = _pooled(windows, gate), _value(gate)
    unseen = np.empty(len(windows))
    for fold in set(folds):
        others = folds != fold
        unseen[~others] = _evidence(pooled[~others], _fit_value(pooled[others], is_speech[others], start))
    low, high = np.quantile(unseen[is_speech], 0.005), np.quantile(unseen[~is_speech], 0.995)
    if base is not None:
        step = float(base.full - base.shut)  # a sixth of its way from speech to noise
        low, high = min(low, float(base.shut) - 2 * step), max(high, float(base.full) + 3 * step)
    high = min(high, low - NARROWEST)
    value = torch.from_numpy(_fit_value(pooled, is_speech, start)).float()
    return gate._replace(
        value=value[:-1].reshape(gate.key.shape),
        offset=value[-1],
        shut=torch.tensor(low + (high - low) / 3).float(),
        full=torch.tensor(low + (high - low) / 2).float(),
    )


def speech_evidence(gate: ExportGate, windows: Sequence[CalibrationWindow]) -> NDArray[np.float64]:
    """The speech evidence of windows [N]: about 0 with speech, −1 or less without."""
    return _evidence(_pooled(windows, gate), _value(gate))


def _folds(windows: Sequence[CalibrationWindow]) -> NDArray[np.int64]:
    """The fold of each window's recording [N]; recordings of either kind are dealt out one by one."""
    names = [(w.is_speech, w.clip.group if w.clip else w.key) for w in windows]
    place: dict[tuple[bool, str], int] = {}
    for kind in (False, True):
        place |= {name: i % FOLDS for i, name in enumerate(sorted(n for n in set(names) if n[0] == kind))}
    return np.array([place[name] for name in names])


def _without_value(model: Whisper, windows: Sequence[CalibrationWindow], seed: int) -> ExportGate:
    """The gate's keys, scales and quiet directions; its values are still to be fitted."""
    blocks, labels = zip(*labelled_frames(windows, seed), strict=True)
    frames = torch.cat(blocks)
    is_speech = np.repeat(labels, [len(block) for block in blocks])
    centre, scale = frames.mean(0), frames.std(0)
    logistic = LogisticRegression(C=0.01, max_iter=1000, class_weight="balanced")
    logistic.fit(((frames - centre) / scale).numpy(), is_speech)
    key = torch.tensor(SHARPNESS)[:, None] * torch.from_numpy(logistic.coef_).float()
    return ExportGate(
        centre,
        scale,
        key,
        value=torch.zeros_like(key),
        offset=torch.tensor(0.0),
        shut=torch.tensor(0.0),
        full=torch.tensor(0.0),
        spare=spare_directions(model, _anywhere(windows, frames.shape[1], seed)),
    )


@torch.no_grad()
def _pooled(windows: Sequence[CalibrationWindow], gate: ExportGate) -> NDArray[np.float64]:
    """What each head pools from windows, one after the other: [N, H·d]."""
    rows: list[Tensor] = []
    for window in windows:
        frames = (window.frames() - gate.centre) / gate.scale
        rows.append(((gate.key @ frames.T).softmax(1) @ frames).flatten())
    return torch.stack(rows).double().numpy()


def _value(gate: ExportGate) -> NDArray[np.float64]:
    return np.r_[gate.value.flatten().double().numpy(), float(gate.offset)]


def _evidence(pooled: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.float64]:
    return pooled @ value[:-1] + value[-1]


def _fit_value(
    pooled: NDArray[np.float64], is_speech: NDArray[np.bool_], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights and offset [H·d + 1]: squares pull speech to 0, squared hinges push the rest to −1 or below.

    The ridge pulls the weights to those of ``start``.
    """
    rows = np.c_[pooled, np.ones(len(pooled))]
    weight = np.where(is_speech, 1 / is_speech.mean(), 1 / (~is_speech).mean()) / len(rows)

    def loss(value: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        evidence = _evidence(pooled, value)
        miss = np.where(is_speech, evidence, np.maximum(evidence + 1, 0))
        ridge = np.r_[value[:-1] - start[:-1], 0.0]
        return (
            float(weight @ miss**2 + RIDGE * ridge @ ridge),
            2 * (rows.T @ (weight * miss) + RIDGE * ridge),
        )

    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x


def _anywhere(windows: Sequence[CalibrationWindow], width: int, seed: int) -> Tensor:
    """Frames [N, width] from other places in each window: padding is alike everywhere, not at every place."""
    rng = np.random.default_rng(seed)
    # filled in place: small tensors kept between large ones that come and go would hold gigabytes of holes
    chosen = torch.empty(len(windows), QUIET_FRAMES, width)
    for row, window in zip(chosen, windows, strict=True):
        places = rng.choice(WINDOW_FRAMES, QUIET_FRAMES, replace=False)
        row[:] = window.frames()[torch.from_numpy(places)]
    return chosen.flatten(0, 1)


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
