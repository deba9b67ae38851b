"""Which features go with invented text: three criteria, how far they agree, and across SAEs."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.stats import spearmanr

from ...audio.clips import Clip, spread
from ...audio.units import ENCODER_FRAMES_PER_SECOND, SAMPLE_RATE
from ...calibrate.attribution import SilenceObjective
from ...calibrate.selection import (
    OTHER_FRAMES,
    FrameSample,
    attribution_importance,
    fisher_importance,
    logistic_importance,
    strongest,
)
from ...calibrate.windows import CalibrationWindow, WindowRecipe, encode
from ...errors import AnalysisError
from ...models.taps import WindowEncoder
from ...sae.autoencoder import SAE
from ..store.activations import ActivationStore, Window
from ..store.common_frames import common_frames
from ..store.overlap import SAME_IOU, firing, iou

CRITERIA = ("logistic", "fisher", "attribution")
LARGE = 100
"""features of the larger top set that criteria are compared by"""
Importances = Mapping[str, NDArray[np.float64]]
"""[F] each; larger is more important, positive speaks for text where nobody speaks"""


class Agreement(NamedTuple):
    """Two criteria on the features of one SAE."""

    a: str
    b: str
    spearman: float
    """rank correlation of |importance| over features that fire"""
    jaccard: float
    """overlap of their top features, as many as are tried"""
    jaccard_100: float
    """of their top 100"""


class Overlap(NamedTuple):
    """A criterion's top features in one SAE, looked for in another."""

    criterion: str
    a: str
    b: str
    top: int
    matched: float
    """share of a's top features with a feature of b that fires on the same frames (IoU of 0.5 or more)"""
    median_iou: float
    """of a's top features with the best of b"""
    shared: float
    """share of a's top features whose best of b is among b's top"""
    chance: float
    """that a feature of b drawn at random is"""


class ComparedSAE(NamedTuple):
    """One SAE with its features' importances."""

    name: str
    store: ActivationStore
    features: csr_matrix
    importances: Importances


def choose_windows(
    store: ActivationStore, speech: bool, count: int, seconds: float = 1.0
) -> list[WindowRecipe]:
    """Windows with or without speech, one of each recording or speaker in turn, as recipes to encode."""
    found: dict[str, Clip] = {}
    starts: dict[str, int] = {}
    for window in store.windows:
        if (window.domain == "speech") == speech and window.frames >= seconds * ENCODER_FRAMES_PER_SECOND:
            key = f"{window.clip}@{window.start:g}"
            found[key] = _clip(window, key)
            starts[key] = round(window.start * SAMPLE_RATE)
    return [WindowRecipe(clip.key, clip, starts[clip.key]) for clip in spread(list(found.values()))[:count]]


def _clip(window: Window, key: str) -> Clip:
    return Clip(
        path=Path(window.path),
        key=key,
        source=window.source,
        kind={"speech": "speech", "music": "music", "sound": "nonspeech"}[window.domain],
        class_=window.label,
        language=window.language,
        text=window.text,
        group=window.group,
        seconds=None,
    )


def encode_windows(
    encoder: WindowEncoder, recipes: Sequence[WindowRecipe], folder: Path
) -> list[CalibrationWindow]:
    """Encode windows whole, padding and all, as the decoder reads them. AnalysisError if none without speech
    can be read.
    """
    windows = encode(encoder, recipes, folder)
    if all(window.is_speech for window in windows):
        raise AnalysisError("none of the store's recordings can be read any more; encode them again")
    return windows


def importances(
    store: ActivationStore,
    features: csr_matrix,
    sae: SAE,
    objective: SilenceObjective,
    nonspeech: Sequence[CalibrationWindow],
    seed: int = 0,
) -> Importances:
    """Of each criterion, [F]: frames of the whole store, and attribution through the decoder on windows.

    AnalysisError if the store lacks speech, or holds nothing else.
    """
    sample = frame_sample(store, features, seed)
    return {
        "logistic": logistic_importance(sample),
        "fisher": fisher_importance(sample),
        "attribution": attribution_importance(sae, objective, nonspeech),
    }


def frame_sample(store: ActivationStore, features: csr_matrix, seed: int = 0) -> FrameSample:
    """At most 40 frames of each window. Of speech the louder half of the window, for pauses are no speech."""
    rng, mel = np.random.default_rng(seed), store.mel().mean(1, dtype=np.float32)
    rows: list[NDArray[np.intp]] = []
    labels: list[NDArray[np.bool_]] = []
    for window in store.windows:
        candidates = np.arange(window.rows.start, window.rows.stop)
        if speaks := window.domain == "speech":
            level = mel[candidates]
            candidates = candidates[level >= np.median(level)]
        chosen = np.sort(rng.permutation(candidates)[:OTHER_FRAMES])
        rows.append(chosen)
        labels.append(np.full(len(chosen), speaks))
    is_speech = np.concatenate(labels)
    if is_speech.all() or not is_speech.any():
        lacks = "nothing but" if is_speech.all() else "no"
        raise AnalysisError(f"{store.path} holds {lacks} speech; both are needed to tell them apart")
    return FrameSample(csr_matrix(features[np.concatenate(rows)]), is_speech)


def agreements(found: Importances, alive: NDArray[np.bool_], top: int) -> list[Agreement]:
    """Every two criteria compared, on features that fire (``alive`` [F])."""

    def jaccard(a: NDArray[np.float64], b: NDArray[np.float64], count: int) -> float:
        one, other = set(strongest(a, count).tolist()), set(strongest(b, count).tolist())
        return len(one & other) / len(one | other)

    result: list[Agreement] = []
    for a, b in combinations(found, 2):
        ranks: Any = spearmanr(np.abs(found[a][alive]), np.abs(found[b][alive]))
        small, large = (jaccard(found[a], found[b], count) for count in (top, LARGE))
        result.append(Agreement(a, b, float(ranks.statistic), small, large))
    return result


def overlaps(saes: Sequence[ComparedSAE], top: int) -> list[Overlap]:
    """The top features of every SAE in every other. AnalysisError if they are of other recordings."""
    found: list[Overlap] = []
    for one in saes:
        for other in saes:
            if one is not other:
                found += _overlap(one, other, top)
    return found


def _overlap(one: ComparedSAE, other: ComparedSAE, top: int) -> list[Overlap]:
    rows, other_rows = common_frames(one.store.windows, other.store.windows).rows()
    fires, other_fires = firing(one.features), firing(csr_matrix(other.features[other_rows]))
    found: list[Overlap] = []
    for criterion in CRITERIA:
        best = strongest(one.importances[criterion], top)
        theirs = strongest(other.importances[criterion], top)
        score = iou(csr_matrix(fires[rows][:, best]), other_fires)
        found.append(
            Overlap(
                criterion=criterion,
                a=one.name,
                b=other.name,
                top=len(best),
                matched=float((score.max(1) >= SAME_IOU).mean()),
                median_iou=float(np.median(score.max(1))),
                shared=float(np.isin(score.argmax(1), theirs).mean()),
                chance=len(theirs) / score.shape[1],
            )
        )
    return found
