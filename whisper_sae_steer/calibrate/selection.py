"""Which SAE features to use: logistic regression |β|, Fisher score, or attribution through the decoder.

|β| and Fisher are the published choices (arXiv 2602.05027, arXiv 2606.07473); they find features that
tell non-speech from speech. Attribution asks which features the decoder acts on.
"""

from collections.abc import Collection, Iterator, Sequence
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, vstack
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_sample_weight
from torch import Tensor
from tqdm import tqdm

from ..errors import CalibrationError
from ..sae.autoencoder import SAE, calibrate_threshold
from ..steering.pack import Features
from .attribution import SilenceObjective
from .windows import CalibrationWindow

SPEECH_FRAMES = 16
"""as many as a short word has, so that long recordings don't outweigh short ones"""
OTHER_FRAMES = 40
PADDING_FRAMES = 6
RIDGE_C = 0.05
"""inverse strength of the ridge, as scikit-learn's C"""
THRESHOLD_FRAMES = 8192
"""that a missing threshold is calibrated on: their features are held in memory at once"""


class FrameSample(NamedTuple):
    """Frames with their labels."""

    features: csr_matrix
    """[N, F] SAE features"""
    is_speech: NDArray[np.bool_]
    """[N]"""


class LinearModel(NamedTuple):
    """Logistic regression on features: logit of speech = features · weight + bias."""

    weight: NDArray[np.float64]
    bias: float


def with_threshold(sae: SAE, windows: Sequence[CalibrationWindow], seed: int = 0) -> SAE:
    """The SAE itself, or if it has no threshold, as AudioSAE's, a copy with one.

    The threshold keeps k features a frame on average over frames of the windows, chosen as those that
    features are selected on. SAEFormatError if the SAE doesn't say its k, CalibrationError without frames.
    """
    if sae.config.architecture == "jumprelu":
        return sae
    blocks = [frames for frames, _ in labelled_frames(windows, seed)]
    if not blocks:
        raise CalibrationError("no recording is left to set the SAE's threshold by; give more")
    frames = torch.cat(blocks)
    chosen = _some(np.random.default_rng(seed), np.arange(len(frames)), THRESHOLD_FRAMES)
    sae = deepcopy(sae)
    calibrate_threshold(sae, frames[torch.from_numpy(chosen)])
    return sae


@torch.no_grad()
def sample_frames(sae: SAE, windows: Sequence[CalibrationWindow], seed: int = 0) -> FrameSample:
    """SAE features of :func:`labelled_frames`. CalibrationError without any."""
    blocks = [
        FrameSample(csr_matrix(sae.encode(frames).numpy()), np.full(len(frames), is_speech))
        for frames, is_speech in labelled_frames(windows, seed)
    ]
    return joined_samples(blocks)


def joined_samples(samples: Collection[FrameSample]) -> FrameSample:
    """All frames of several samples. CalibrationError without any."""
    if not samples:
        raise CalibrationError("no recording is left to fit on; give more")
    features = csr_matrix(vstack([sample.features for sample in samples]))
    return FrameSample(features, np.concatenate([sample.is_speech for sample in samples]))


def labelled_frames(windows: Sequence[CalibrationWindow], seed: int = 0) -> Iterator[tuple[Tensor, bool]]:
    """A few frames [n, d] of every window: speech frames of speech, content and padding of the rest.

    Pauses of speech recordings are left out: they are neither.
    """
    rng = np.random.default_rng(seed)
    for window in windows:
        if window.is_speech:
            chosen = _some(rng, np.flatnonzero(window.speech), SPEECH_FRAMES)
        else:
            content = _some(rng, np.arange(window.content), OTHER_FRAMES)
            padding = _some(rng, np.arange(window.content, 1500), PADDING_FRAMES)
            chosen = np.concatenate([content, padding])
        if len(chosen):
            yield window.frames()[torch.from_numpy(chosen)], window.is_speech


def fit_logistic(
    sample: FrameSample, columns: NDArray[np.intp] | None = None, start: LinearModel | None = None
) -> LinearModel:
    """Balanced logistic regression of speech on (some) features, scaled to like size inside.

    Features that vary little are scaled up by at most ten: one that fires on a frame in a thousand would
    otherwise get a weight that decides on its own. With ``start``, the model of other frames on the same
    columns, the ridge pulls the weights there rather than to 0.
    """
    features = sample.features if columns is None else csr_matrix(sample.features[:, columns])
    scale = feature_scale(features)
    scaled = csr_matrix(features.multiply(1 / scale))
    if start is not None:
        change = _fit_change(scaled, sample.is_speech, features @ start.weight + start.bias, len(scale))
        return LinearModel(start.weight + change.weight / scale, start.bias + change.bias)
    model = LogisticRegression(C=RIDGE_C, max_iter=500, class_weight="balanced")
    model.fit(scaled, sample.is_speech)
    return LinearModel(model.coef_[0] / scale, float(np.ravel(model.intercept_)[0]))


def feature_scale(features: csr_matrix) -> NDArray[np.float64]:
    """What features [N, F] are divided by where they are fitted, see :func:`fit_logistic`: [F]."""
    deviation = _deviation(features)
    return np.maximum(deviation, 0.1 * deviation.max())


def _fit_change(
    features: csr_matrix, is_speech: NDArray[np.bool_], known: NDArray[np.float64], width: int
) -> LinearModel:
    """What, added to ``known`` logits, fits best: scikit-learn's regression takes no offset."""
    sign = np.where(is_speech, 1.0, -1.0)
    weight = compute_sample_weight("balanced", is_speech)

    def loss(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = sign * (known + features @ x[:-1] + x[-1])
        pull = -RIDGE_C * weight * sign * expit(-margin)
        ridge = np.r_[x[:-1], 0.0]
        value = RIDGE_C * float(weight @ np.logaddexp(0, -margin)) + 0.5 * float(ridge @ ridge)
        return value, np.r_[features.T @ pull, pull.sum()] + ridge

    x = minimize(loss, np.zeros(width + 1), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return LinearModel(x[:-1], float(x[-1]))


def logistic_importance(sample: FrameSample) -> NDArray[np.float64]:
    """β of every feature at unit deviation; positive speaks for non-speech, as in the papers: [F]."""
    return -fit_logistic(sample).weight * _deviation(sample.features)


def fisher_importance(sample: FrameSample) -> NDArray[np.float64]:
    """Fisher score (μ₁ − μ₀)² / (σ₁² + σ₀²), with the sign of μ(non-speech) − μ(speech): [F]."""
    moments: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for part in (sample.features[~sample.is_speech], sample.features[sample.is_speech]):
        mean = np.asarray(part.mean(0)).ravel()
        moments.append((mean, np.asarray(part.multiply(part).mean(0)).ravel() - mean**2))
    (other, other_variance), (speech, speech_variance) = moments
    difference = other - speech
    return np.sign(difference) * difference**2 / (other_variance + speech_variance + 1e-9)


def attribution_importance(
    sae: SAE, objective: SilenceObjective, windows: Sequence[CalibrationWindow]
) -> NDArray[np.float64]:
    """Σ over frames of −a_f · ∂objective/∂a_f: how much each feature speaks against silence, [F]."""
    total = torch.zeros(sae.config.d_sae)
    languages = objective.languages(len(windows))
    pairs = zip(windows, languages, strict=True)
    for window, language in tqdm(pairs, "select features", len(windows), unit="window"):
        frames = window.frames()
        gradient = objective.gradient(frames[None], [language])[0]
        with torch.no_grad():
            along = gradient @ sae.W_dec.T
            total -= (sae.encode(frames) * along).sum(0) / gradient.norm()
    return (total / len(windows)).numpy().astype(np.float64)


def mean_activation(sample: FrameSample) -> NDArray[np.float64]:
    """ā_f over non-speech frames, [F]."""
    return np.asarray(sample.features[~sample.is_speech].mean(0)).ravel()


def take_features(sae: SAE, ids: NDArray[np.intp]) -> Features:
    """The encoder rows of some features, with b_dec folded into the bias."""
    index = torch.from_numpy(ids)
    rows = sae.W_enc.detach()[:, index].T.contiguous()
    bias = sae.b_enc.detach()[index] - rows @ sae.b_dec.detach()
    return Features(index, rows, bias, sae.threshold[index].clone())


def strongest(importance: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Indices of the ``count`` largest |importance|, strongest first."""
    return np.argsort(-np.abs(importance), kind="stable")[:count]


def _deviation(features: csr_matrix) -> NDArray[np.float64]:
    """Standard deviation of every column, [F]."""
    mean = np.asarray(features.mean(0)).ravel()
    square = np.asarray(features.multiply(features).mean(0)).ravel()
    return np.sqrt(np.maximum(square - mean**2, 0))


def _some(rng: np.random.Generator, candidates: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    if len(candidates) <= count:
        return candidates
    return np.sort(rng.choice(candidates, count, replace=False))
