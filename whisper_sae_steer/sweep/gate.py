"""How well a gate on an SAE's features tells frames of speech from the rest, on recordings held back."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ..audio.clips import Clip, select
from ..calibrate.gate import GATE_FEATURES
from ..calibrate.selection import FrameSample, fit_logistic, labelled_frames, logistic_importance, strongest
from ..calibrate.windows import WindowRecipe, encode
from ..models.taps import WindowEncoder
from ..models.weights import Weights
from ..sae.autoencoder import SAE
from ..training.stream import hold_back
from .features import sparse_features
from .ledger import digest

CLIPS_A_CLASS = 10
"""of each source: enough for a figure, and minutes of encoding on one core"""


class Labelled(NamedTuple):
    """Frames with their labels."""

    frames: Tensor
    """[N, d]"""
    is_speech: NDArray[np.bool_]
    """[N]"""


class GateFrames(NamedTuple):
    """What gates are fitted and judged on at a tap."""

    fitted: Labelled
    held_back: Labelled
    """of recordings that neither gates nor SAEs learnt from"""
    key: str
    """tells them from others"""


def clips_of_gates(clips: Sequence[Clip]) -> list[list[Clip]]:
    """Those that gates are fitted on, and those of the recordings held back that they are judged on."""
    return [select(part, CLIPS_A_CLASS) for part in hold_back(clips)]


def gate_frames(weights: Weights, tap: str, clips: Sequence[Clip], work: Path) -> GateFrames | None:
    """A few frames of some of the clips; None unless speech and the rest are heard in both parts.

    Frames of speech are those in which a voice activity detector hears it; its pauses are left out. Encoded
    windows are kept below ``work``.
    """
    parts = clips_of_gates(clips)
    if any({clip.kind == "speech" for clip in part} != {True, False} for part in parts):
        return None
    encoder = WindowEncoder(weights, tap)
    fitted, held_back = (_labelled(encoder, part, work / tap) for part in parts)
    if any(part.is_speech.all() or not part.is_speech.any() for part in (fitted, held_back)):
        return None
    names = [[clip.key for clip in part] for part in parts]
    return GateFrames(fitted, held_back, digest([weights.fingerprint, weights.encoder_mark, tap, names]))


def gate_auc(sae: SAE, frames: GateFrames) -> float:
    """Area under the curve of speech against the rest, by frame: calibration's logistic regression on the
    features that weigh most, without its smoothing over time."""
    sample = _sample(sae, frames.fitted)
    ids = strongest(logistic_importance(sample), GATE_FEATURES)
    model = fit_logistic(sample, ids)
    held = _sample(sae, frames.held_back)
    return float(roc_auc_score(held.is_speech, held.features[:, ids] @ model.weight + model.bias))


def _labelled(encoder: WindowEncoder, clips: Sequence[Clip], folder: Path) -> Labelled:
    windows = encode(encoder, [WindowRecipe(f"{clip.key}@0", clip) for clip in clips], folder)
    found = list(labelled_frames(windows))
    return Labelled(
        torch.cat([frames for frames, _ in found]),
        np.concatenate([np.full(len(frames), is_speech) for frames, is_speech in found]),
    )


def _sample(sae: SAE, labelled: Labelled) -> FrameSample:
    return FrameSample(sparse_features(sae, labelled.frames), labelled.is_speech)
