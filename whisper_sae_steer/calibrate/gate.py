"""Fitting the gate: few SAE features, a logistic score, and levels between speech and the rest."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.metrics import roc_auc_score

from ..errors import CalibrationError
from ..kernels import smooth
from ..sae.autoencoder import SAE
from ..steering.metadata import GateLevels, PackMetadata
from ..steering.pack import Features, SteeringPack
from .peaks import fit_peaks
from .selection import (
    FrameSample,
    LinearModel,
    feature_scale,
    fit_logistic,
    logistic_importance,
    strongest,
    take_features,
)
from .windows import CalibrationWindow

GATE_FEATURES = 160
NEW_FEATURES = 40
"""that a gate gets beside those of the pack it is built on"""
NARROWEST_GAP = 4.0
"""logits between the levels of noise and speech: within 2 of the threshold a score is in doubt anyway"""
SMOOTHING = 11
"""frames (0.22 s): short enough for a one-word utterance, long enough to forget a click"""


class FeatureGate(NamedTuple):
    """A fitted gate."""

    features: Features
    weight: torch.Tensor
    bias: torch.Tensor
    smoothing: int
    levels: GateLevels


class GateReport(NamedTuple):
    """How the gate does on held-back windows."""

    auc: float
    """of the highest score in the window, speech against the rest"""
    speech_windows: int
    other_windows: int
    speech_touched: float
    """share of speech windows whose gate is not fully shut"""
    other_missed: float
    """share of windows without speech whose gate is not fully open"""


def fit_gate(
    sae: SAE, sample: FrameSample, windows: Sequence[CalibrationWindow], base: SteeringPack | None = None
) -> FeatureGate:
    """Choose features by |β|, and fit those on frames and then on ``windows``, which the frames are from.

    Its levels are still to be placed. On a ``base`` its score is corrected by what these recordings ask for:
    with its features and a few more, the less the fewer recordings there are. CalibrationError if it was made
    with another SAE.
    """
    if sample.is_speech.all() or not sample.is_speech.any():
        raise CalibrationError("the gate needs both speech and non-speech recordings")
    importance = logistic_importance(sample)
    if base is None:
        ids = strongest(importance, GATE_FEATURES)
        model = fit_logistic(sample, ids)
    else:
        ids, start = _extended(base, sae, importance)
        model = fit_logistic(sample, ids, start)
    features = take_features(sae, ids)
    scale = feature_scale(csr_matrix(sample.features[:, ids]))
    model = fit_peaks(features, scale, model, windows, SMOOTHING)
    weight, bias = torch.from_numpy(model.weight).float(), torch.tensor(model.bias).float()
    return FeatureGate(features, weight, bias, SMOOTHING, GateLevels())


def _extended(
    base: SteeringPack, sae: SAE, importance: NDArray[np.float64]
) -> tuple[NDArray[np.intp], LinearModel]:
    """The base's features and the strongest others, and its model on all of them."""
    old = base.gate.ids.numpy()
    if int(old.max()) >= sae.config.d_sae or not torch.allclose(
        take_features(sae, old).rows, base.gate.rows, atol=1e-3
    ):
        raise CalibrationError(f"{base.path} was made with another SAE; give that, or --base none")
    others = np.setdiff1d(strongest(importance, len(old) + NEW_FEATURES), old)
    new = others[strongest(importance[others], NEW_FEATURES)]
    weight = np.concatenate([base.gate_weight.double().numpy(), np.zeros(len(new))])
    return np.concatenate([old, new]), LinearModel(weight, float(base.gate_bias))


def place_levels(
    gate: FeatureGate,
    windows: Sequence[CalibrationWindow],
    scores: Mapping[str, NDArray[np.float32]],
    base: GateLevels | None = None,
) -> FeatureGate:
    """Place the ramp in the gap between the highest non-speech and the quietest speech.

    ``scores`` [1500] of each window, by key, are best those of gates that were not fitted on it. Quantiles of
    0.5% stand for the two ends, so that one mislabelled recording, a voice in a street scene, doesn't decide.
    The gate is fully open in the lowest quarter of the gap and shut from its middle on: unheard noise reaches
    the quarter, one-word utterances come down to the middle (benchmarks/RESULTS.md). One frame without speech
    in a thousand is above the threshold of gaps, which is at most the gate's. The noise and the speech that a
    ``base`` knew count too: few recordings hold neither the highest nor the quietest.
    """
    speech = np.array([scores[w.key].max() for w in windows if w.is_speech and w.speech.any()])
    other = np.array([scores[w.key].max() for w in windows if not w.is_speech])
    low, high = float(np.quantile(other, 0.995)), float(np.quantile(speech, 0.005))
    frames = np.concatenate([scores[w.key][: w.content] for w in windows if not w.is_speech])
    gap_below = float(np.quantile(frames, 0.999))
    if base is not None:
        low, high = max(low, base.noise_ceiling), min(high, base.speech_floor)
        gap_below = max(gap_below, base.gap_below or gap_below)
    # without a gap, speech decides: the gate is shut for all but its lowest 0.5%
    threshold = min((low + high) / 2, high)
    ramp = max(high - low, NARROWEST_GAP) / 4
    return gate._replace(levels=GateLevels.spaced(threshold, ramp, min(gap_below, threshold)))


@torch.no_grad()
def window_scores(gate: FeatureGate, windows: Sequence[CalibrationWindow]) -> dict[str, NDArray[np.float32]]:
    """Smoothed speech scores [1500] of each window, by key."""
    scores: dict[str, NDArray[np.float32]] = {}
    for window in windows:
        logits = gate.features.activations(window.frames()) @ gate.weight + gate.bias
        scores[window.key] = smooth(logits[None], gate.smoothing)[0].numpy()
    return scores


def report_gate(
    gate: FeatureGate, windows: Sequence[CalibrationWindow], scores: Mapping[str, NDArray[np.float32]]
) -> GateReport:
    """Measure a gate on held-back windows."""
    speech = np.array([scores[w.key].max() for w in windows if w.is_speech and w.speech.any()])
    other = np.array([scores[w.key].max() for w in windows if not w.is_speech])
    if not len(speech) or not len(other):
        raise CalibrationError("too few recordings: none of one kind is left to hold back")
    labels = np.repeat([1, 0], [len(speech), len(other)])
    return GateReport(
        float(roc_auc_score(labels, np.concatenate([speech, other]))),
        len(speech),
        len(other),
        float(np.mean(speech < gate.levels.threshold)),
        float(np.mean(other > gate.levels.full_edit_below)),
    )


def with_gate(metadata: PackMetadata, gate: FeatureGate) -> PackMetadata:
    """The pack's metadata with this gate's numbers."""
    return replace(metadata, gate_smoothing=gate.smoothing, levels=gate.levels)
