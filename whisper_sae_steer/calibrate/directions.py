"""From selected features to the edit: which directions, how large, for each strategy."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import CalibrationError
from ..sae.autoencoder import SAE
from ..steering.metadata import Strategy
from ..steering.pack import Features, SteeringPack
from .attribution import SilenceObjective, path_gradient
from .selection import (
    FrameSample,
    attribution_importance,
    fisher_importance,
    logistic_importance,
    mean_activation,
    strongest,
    take_features,
)
from .windows import CalibrationWindow

Selection = Literal["attribution", "logistic", "fisher", "gradient", "contrast"]
STEER_FEATURES = 100
GRADIENT_WINDOWS = 32
PATH_LENGTH = 0.3
"""length of the edit along which gradients are averaged, as a share of the frames' mean norm"""


class Edit(NamedTuple):
    """What the operator adds, before α and its unit."""

    features: Features
    directions: Tensor
    """[F, d]"""
    coefficients: Tensor
    """[F]"""
    ids: NDArray[np.intp]
    """[F] numbers of the features whose decoder rows the directions are; empty for a dense vector"""


class EditEvidence(NamedTuple):
    """What edits are built from: the fitted part of the calibration windows."""

    sae: SAE
    objective: SilenceObjective
    sample: FrameSample
    windows: Sequence[CalibrationWindow]

    def without_speech(self, count: int) -> list[CalibrationWindow]:
        """Windows without speech, an equal share of each source."""
        return spread([w for w in self.windows if not w.is_speech], count)


def check_choice(strategy: Strategy, selection: Selection) -> None:
    """CalibrationError if ``selection`` can't serve this strategy."""
    if strategy != "direction" and selection in ("gradient", "contrast"):
        raise CalibrationError(f"selection {selection!r} gives one dense vector: use it with direction")


def check_speech(selection: Selection, has_speech: bool) -> None:
    """CalibrationError if ``selection`` needs speech and there is none."""
    if not has_speech and selection in ("logistic", "fisher", "contrast"):
        raise CalibrationError(f"selection {selection!r} compares with speech: give --speech recordings")


def build_edit(strategy: Strategy, selection: Selection, evidence: EditEvidence) -> Edit:
    """The edit of a strategy with features chosen by ``selection``; errors of both checks."""
    check_choice(strategy, selection)
    check_speech(selection, bool(evidence.sample.is_speech.any()))
    if strategy == "direction":
        return _direction(selection, evidence)
    importance = _importance(selection, evidence)
    if strategy == "suppress":
        importance = np.maximum(importance, 0)  # only what stands for non-speech can be taken away
    ids = strongest(importance, STEER_FEATURES)
    signs = -np.sign(importance[ids])
    size = mean_activation(evidence.sample)[ids] if strategy == "additive" else np.ones(len(ids))
    features = take_features(evidence.sae, ids if strategy == "suppress" else ids[:0])
    return Edit(features, _rows(evidence.sae, ids), torch.from_numpy(signs * size).float(), ids)


def joined(edit: Edit, base: SteeringPack) -> Edit:
    """A static vector of length 1 half-way between an edit's and a base's."""
    coefficients = torch.cat([edit.coefficients, base.coefficients])
    directions = torch.cat([edit.directions, base.directions])
    length = (coefficients[:, None] * directions).sum(0).norm()
    return Edit(edit.features, directions, coefficients / length, edit.ids)


def _direction(selection: Selection, evidence: EditEvidence) -> Edit:
    """One static vector of length 1: a signed sum of decoder rows, or a dense baseline."""
    sae = evidence.sae
    none = np.zeros(0, dtype=np.intp)
    nothing = take_features(sae, none)
    if selection == "contrast":
        vector = _contrast(evidence)
        return Edit(nothing, vector[None] / vector.norm(), torch.ones(1), none)
    if selection in ("attribution", "gradient"):
        windows = [w.frames() for w in evidence.without_speech(GRADIENT_WINDOWS)]
        length = PATH_LENGTH * float(torch.stack([w.norm(dim=-1).mean() for w in windows]).mean())
        gradient = path_gradient(evidence.objective, windows, length)
        if selection == "gradient":
            return Edit(nothing, gradient[None], torch.ones(1), none)
        # directional derivative of the objective along each feature's decoder row
        weights = (sae.W_dec.detach() @ gradient).numpy().astype(np.float64)
    else:
        weights = -_importance(selection, evidence)
    ids = strongest(weights, STEER_FEATURES)
    directions = _rows(sae, ids)
    coefficients = torch.from_numpy(weights[ids]).float()
    length = (coefficients[:, None] * directions).sum(0).norm()
    return Edit(nothing, directions, coefficients / length, ids)


def _importance(selection: Selection, evidence: EditEvidence) -> NDArray[np.float64]:
    """Signed importance of every feature; positive ones are to be taken away."""
    if selection == "attribution":
        windows = evidence.without_speech(GRADIENT_WINDOWS)
        return attribution_importance(evidence.sae, evidence.objective, windows)
    if selection == "logistic":
        return logistic_importance(evidence.sample)
    return fisher_importance(evidence.sample)


def _contrast(evidence: EditEvidence) -> Tensor:
    """Mean frame without speech − mean frame of speech: [d]."""
    other = [w.frames()[: w.content].mean(0) for w in evidence.windows if not w.is_speech]
    speech = [
        w.frames()[torch.from_numpy(w.speech)].mean(0)
        for w in evidence.windows
        if w.is_speech and w.speech.any()
    ]
    return torch.stack(other).mean(0) - torch.stack(speech).mean(0)


def spread(windows: Sequence[CalibrationWindow], count: int) -> list[CalibrationWindow]:
    """``count`` windows, one of each source in turn, in the order of their keys' file names."""
    ranked: list[tuple[int, str, CalibrationWindow]] = []
    seen: dict[str, int] = {}
    for window in sorted(windows, key=lambda w: w.path.name):
        turn = seen[window.source] = seen.get(window.source, -1) + 1
        ranked.append((turn, window.source, window))
    ranked.sort(key=lambda item: item[:2])
    return [window for _, _, window in ranked[:count]]


def _rows(sae: SAE, ids: NDArray[np.intp]) -> Tensor:
    return sae.W_dec.detach()[torch.from_numpy(ids)].clone()
