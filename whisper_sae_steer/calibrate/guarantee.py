"""The gate's promise: at most a stated share of speech is edited or skipped, with a finite-sample bound."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import CalibrationError
from ..steering.cuts import cut_window
from ..steering.metadata import GateLevels
from .gate import FeatureGate
from .windows import CalibrationWindow

MAX_TOUCHED = 0.003
"""share of a recording's speech that may be touched, on average over recordings: with 150 of them, the bound
is below 1%"""


class Guarantee(NamedTuple):
    """Conformal risk control (arXiv 2208.02814, theorem 1) over speakers or recordings, held back in turn.

    With scores of cross-validation (as in arXiv 2401.11974) it is as good as those gates are like this one.
    """

    touched_at_most: float
    """bound on the expected share of speech frames touched in a new recording like these"""
    touched: float
    """mean share of these, each as a gate judges it that was not fitted on it"""
    recordings: int
    """speakers or recordings"""


def keep_promise(
    gate: FeatureGate,
    windows: Sequence[CalibrationWindow],
    scores: Mapping[str, NDArray[np.float32]],
) -> tuple[FeatureGate, Guarantee]:
    """Lower the gate's threshold until at most MAX_TOUCHED of the speech is touched; tell the bound.

    ``scores`` [1500] of each window, by key, are from gates that were not fitted on it: of cross-validation,
    so that every speaker counts. The noise ceiling and the speech floor stay where they were measured.
    """
    speech = [w for w in windows if w.is_speech and w.speech.any()]
    if not speech:
        raise CalibrationError("no speech recording is left to hold back; give more")
    peaks = (float(scores[w.key].max()) for w in speech)
    lower = sorted(peak for peak in peaks if peak < gate.levels.threshold)
    promise = bound(speech, scores, gate.levels)
    while promise.touched > MAX_TOUCHED and lower:
        gate = gate._replace(levels=gate.levels.lowered_to(lower.pop()))
        promise = bound(speech, scores, gate.levels)
    return gate, promise


def bound(
    speech: Sequence[CalibrationWindow], scores: Mapping[str, NDArray[np.float32]], levels: GateLevels
) -> Guarantee:
    """What a gate touches of windows with speech, and the bound (n r + 1) / (n + 1) for new recordings."""
    lost: dict[str, int] = defaultdict(int)
    spoken: dict[str, int] = defaultdict(int)
    for window in speech:
        group = window.clip.group if window.clip else window.key
        lost[group] += touched(window, scores[window.key], levels)
        spoken[group] += int(window.speech.sum())
    share = float(np.mean([lost[group] / spoken[group] for group in spoken]))
    return Guarantee((len(spoken) * share + 1) / (len(spoken) + 1), share, len(spoken))


def touched(window: CalibrationWindow, scores: NDArray[np.float32], levels: GateLevels) -> int:
    """Speech frames of a window that an open gate edits, or that gap skipping leaves out."""
    if scores.max() < levels.threshold:
        return int(window.speech.sum())
    cut = cut_window(scores, window.content, levels)
    if cut is None:
        return 0
    return int(window.speech[: cut.skip_to].sum() + window.speech[cut.decode_until : cut.resume_at].sum())
