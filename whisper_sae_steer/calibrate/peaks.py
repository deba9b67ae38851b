"""Fitting the gate on whole windows: by its highest smoothed score, which is what decides about a window.

A bark has frames like those of a word, and a word has frames like those of a bark. A model of single frames
does well on most of them; what counts is the one place in a window that speaks most for speech. So the
weights that frames gave are fitted once more, on the highest score of each window (multiple-instance
learning with a maximum, as in Andrews et al., NIPS 2002).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.utils.class_weight import compute_sample_weight
from tqdm import tqdm

from ..kernels import smooth
from ..steering.pack import Features
from .selection import LinearModel
from .windows import CalibrationWindow

CANDIDATES = 48
"""frames of each window that scored highest before: the one that does afterwards is among them"""
RIDGE = 3e-5
"""pull of the weights, of features at unit scale, towards those that frames gave"""


def fit_peaks(
    features: Features,
    scale: NDArray[np.float64],
    start: LinearModel,
    windows: Sequence[CalibrationWindow],
    smoothing: int,
) -> LinearModel:
    """The model ``start`` of frames, fitted on the highest score of each window, both kinds weighing alike.

    ``scale`` [F] are the features' sizes, ``smoothing`` the frames of the moving average over scores.
    """
    windows = [w for w in windows if w.speech.any() or not w.is_speech]  # there must be speech somewhere
    is_speech = np.array([w.is_speech for w in windows])
    frames = _candidates(features, start, windows, smoothing) / scale.astype(np.float32)
    sign = np.where(is_speech, 1.0, -1.0)
    weight = compute_sample_weight("balanced", is_speech) / len(windows)
    each, known = np.arange(len(windows)), start.weight * scale

    def loss(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = frames @ x[:-1].astype(np.float32) + x[-1]
        highest = scores.argmax(1)
        margin = sign * scores[each, highest]
        pull = -weight * sign * expit(-margin)
        change = x[:-1] - known
        value = float(weight @ np.logaddexp(0, -margin) + RIDGE * change @ change)
        return value, np.r_[pull @ frames[each, highest] + 2 * RIDGE * change, pull.sum()]

    x = minimize(loss, np.r_[known, start.bias], jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return LinearModel(x[:-1] / scale, float(x[-1]))


@torch.no_grad()
def _candidates(
    features: Features, model: LinearModel, windows: Sequence[CalibrationWindow], smoothing: int
) -> NDArray[np.float32]:
    """Smoothed features of each window's CANDIDATES highest-scored frames: [N, CANDIDATES, F]."""
    weight = torch.from_numpy(model.weight).float()
    found = np.empty((len(windows), CANDIDATES, len(weight)), np.float32)
    pairs = zip(found, windows, strict=True)
    for row, window in tqdm(pairs, "fit the gate", len(windows), unit="window", leave=False):
        # features are smoothed rather than scores, which is the same: a score is a sum of them
        smoothed = smooth(features.activations(window.frames()).T, smoothing).T
        row[:] = smoothed[(smoothed @ weight).topk(CANDIDATES).indices].numpy()
    return found
