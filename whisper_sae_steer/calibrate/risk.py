"""Turning gate scores into probabilities: speech_prob, and the risk of text that the gate alone sees."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from ..errors import CalibrationError
from .windows import CalibrationWindow

SPANS = 3
"""random spans a window"""
SPAN_FRAMES = (50, 400)
"""1 to 8 s, as long as Whisper's segments"""
MIN_SPEECH_FRAMES = 15


class Calibrations(NamedTuple):
    """Logistic weights, see PackMetadata."""

    speech: tuple[float, float]
    risk: tuple[float, float, float]


def fit_calibrations(
    windows: Sequence[CalibrationWindow], scores: Mapping[str, NDArray[np.float32]], seed: int = 0
) -> Calibrations:
    """Logistic regressions on spans as long as segments, with and without speech in them.

    Fit on recordings that the gate was not fitted on, or it would be overconfident. CalibrationError if
    these hold no speech, or nothing else.
    """
    rng = np.random.default_rng(seed)
    rows: list[tuple[float, float]] = []
    labels: list[bool] = []
    for window in windows:
        for start, end in _spans(rng, window):
            part = scores[window.key][start:end]
            rows.append((float(part.max()), float(part.mean())))
            labels.append(window.is_speech)
    x, is_speech = np.array(rows), np.array(labels)
    if not is_speech.any() or is_speech.all():
        lacking = "non-speech" if is_speech.any() else "speech"
        raise CalibrationError(f"no {lacking} recording is left to hold back; give more")
    speech = LogisticRegression(C=0.1, class_weight="balanced").fit(x[:, :1], is_speech)
    risk = LogisticRegression(C=0.1, class_weight="balanced").fit(x, ~is_speech)
    return Calibrations(
        (float(speech.coef_[0, 0]), float(speech.intercept_[0])),
        (float(risk.coef_[0, 0]), float(risk.coef_[0, 1]), float(risk.intercept_[0])),
    )


def _spans(rng: np.random.Generator, window: CalibrationWindow) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for _ in range(SPANS):
        length = min(int(rng.integers(*SPAN_FRAMES)), window.content)
        start = int(rng.integers(0, window.content - length + 1))
        heard = int(window.speech[start : start + length].sum())
        if not window.is_speech or heard >= MIN_SPEECH_FRAMES:
            spans.append((start, start + length))
    return spans
