"""Measuring packs on held-back windows, and finding the strength that α = 1 stands for."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import ctranslate2
import faster_whisper
import numpy as np
import torch
from ctranslate2 import StorageView
from torch.nn import Module
from tqdm import tqdm

from ..errors import CalibrationError
from ..files import write_text
from ..models.greedy import RawWindow, decode_windows
from ..models.taps import NOTHING
from ..reports import metrics
from ..steering.operator import Operator
from ..steering.pack import SteeringPack, pack_digest
from .windows import CalibrationWindow

BATCH = 8
BAR_AFTER_SECONDS = 3
NEW_TOKENS = 64
"""enough to see whether there is text; loops needn't be waited for"""
GRIDS = {
    "direction": (0.04, 0.06, 0.09, 0.13, 0.18, 0.25, 0.35),
    "additive": (0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
    "suppress": (0.5, 1.0, 2.0, 4.0, 8.0),
}
"""units tried; `direction`'s are shares of the frames' mean norm"""
SAFETY_FACTOR = 2.0
"""times the smallest unit that suffices here: for sounds that are not among these, and for exported models,
in which nothing but the edit keeps the decoder from writing"""
TOLERANCE = 0.005
"""of FPR_raw: units this close to the lowest one suffice"""
LEAST_NO_SPEECH_PROB = 0.1
"""mean over windows without speech from which on the no-speech token is used; tiny.en and base give it 0.7"""
MAX_COST = 0.005
"""change of the WER on held-back speech that a strength may cost"""


class AlphaPoint(NamedTuple):
    """Held-back figures at one α."""

    alpha: float
    fpr_raw: float
    """share of windows without speech with text, greedy, thresholds off"""
    fpr_kept: float
    """the same after Whisper's own no-speech rule (0.6, −1)"""
    no_speech_prob: float
    """mean over windows without speech"""
    wer: float | None
    """of speech windows, greedy; None without speech"""
    wer_change: float | None
    """against α = 0"""


class Judge:
    """Decodes held-back windows at any pack and α.

    What was decoded once is kept in the file ``memory``, so a search that was stopped goes on. ``rest``
    leads from the windows' tap to the encoder's output, which is decoded.
    """

    def __init__(
        self, model: Any, windows: Sequence[CalibrationWindow], memory: Path, rest: Module = NOTHING
    ):
        self.model = model
        self._rest = rest
        self._memory = memory
        self._known: dict[str, Any] = json.loads(memory.read_text()) if memory.exists() else {}
        self._windows_key = hashlib.sha256("\n".join(w.key for w in windows).encode()).hexdigest()
        self.other = [w for w in windows if not w.is_speech]
        self.speech = [w for w in windows if w.is_speech]
        if not self.other:
            raise CalibrationError("no non-speech recording is left to hold back; give more")
        self.unsteered: dict[str, RawWindow] = self._remembered(
            "unsteered", lambda: {w.key: raw for w, raw in self._decode(windows, None, 0.0)}
        )

    def no_speech_works(self) -> bool:
        """Whether the unsteered model's no-speech token tells windows without speech from those with it.

        It must get some probability where nobody speaks, and more than where somebody does.
        """
        silent, spoken = (
            float(np.mean([self.unsteered[w.key]["no_speech_prob"] for w in windows])) if windows else 0.0
            for windows in (self.other, self.speech)
        )
        return silent >= LEAST_NO_SPEECH_PROB and silent > spoken

    def point(self, pack: SteeringPack, alpha: float) -> AlphaPoint:
        """Figures of a pack at α."""
        key = f"{pack_digest(pack)} {alpha}" if alpha else "point 0"
        return AlphaPoint(*self._remembered(key, lambda: self._point(pack, alpha)))

    def _remembered(self, key: str, compute: Callable[[], Any]) -> Any:
        key = f"{self._windows_key} {key}"
        if key not in self._known:
            self._known[key] = compute()
            write_text(self._memory, json.dumps(self._known))
        return self._known[key]

    def _point(self, pack: SteeringPack, alpha: float) -> AlphaPoint:
        decoded = dict(self.unsteered)
        if alpha:
            touched = [w for w in [*self.other, *self.speech] if self._touched(pack, w)]
            decoded |= {w.key: raw for w, raw in self._decode(touched, pack, alpha)}
        raws = [decoded[w.key] for w in self.other]
        texts = [metrics.has_text(raw["text"]) for raw in raws]
        return AlphaPoint(
            alpha,
            float(np.mean(texts)),
            float(np.mean([t and metrics.kept(r) for t, r in zip(texts, raws, strict=True)])),
            float(np.mean([raw["no_speech_prob"] for raw in raws])),
            *self._wer(decoded),
        )

    def best_unit(self, pack: SteeringPack, norm: float) -> tuple[float, list[tuple[float, AlphaPoint]]]:
        """The unit that α = 1 stands for, and every unit tried.

        Of the units that cost at most 0.5 pp of WER, the smallest whose FPR_raw is within 0.5 pp of the
        lowest, times SAFETY_FACTOR where that costs nothing; the smallest unit if all cost more.
        """
        strategy = pack.metadata.strategy
        scale = norm if strategy == "direction" else 1.0
        tried = [
            (unit * scale, self.point(with_unit(pack, unit * scale), 1.0))
            for unit in tqdm(GRIDS[strategy], "search the strength")
        ]
        cheap = [(unit, point) for unit, point in tried if (point.wer_change or 0.0) <= MAX_COST]
        lowest = min((point.fpr_raw for _, point in cheap), default=0.0)
        unit = next((u for u, point in cheap if point.fpr_raw <= lowest + TOLERANCE), tried[0][0])
        stronger = self.point(with_unit(pack, SAFETY_FACTOR * unit), 1.0)
        tried.append((SAFETY_FACTOR * unit, stronger))
        return (SAFETY_FACTOR * unit if (stronger.wer_change or 0.0) <= MAX_COST else unit), tried

    def steered(self, pack: SteeringPack) -> list[tuple[CalibrationWindow, RawWindow]]:
        """What is decoded at α = 1 of the windows without speech, and of those with it that are edited."""
        edited = [window for window in self.speech if self._touched(pack, window)]
        return self._decode([*self.other, *edited], pack, 1.0)

    def _touched(self, pack: SteeringPack, window: CalibrationWindow) -> bool:
        if pack.metadata.gate == "none":
            return True
        scores = Operator(pack).scores(window.frames()[None])
        low = scores.amin() if pack.metadata.gate == "frame" else scores.amax()
        return float(low) < pack.metadata.levels.threshold

    @torch.no_grad()
    def _decode(
        self, windows: Sequence[CalibrationWindow], pack: SteeringPack | None, alpha: float
    ) -> list[tuple[CalibrationWindow, RawWindow]]:
        steering = Operator(pack) if pack else None
        decoded: list[tuple[CalibrationWindow, RawWindow]] = []
        starts = range(0, len(windows), BATCH)
        for start in tqdm(starts, "decode", unit="batch", leave=False, delay=BAR_AFTER_SECONDS):
            batch = windows[start : start + BATCH]
            frames = torch.stack([w.frames() for w in batch])
            if steering is not None:
                steering.apply_(frames, alpha)
            encoded = StorageView.from_array(np.ascontiguousarray(self._rest(frames).numpy()))
            # speech is decoded to its end, or its word errors would be cut short
            limit = 224 if any(w.is_speech for w in batch) else NEW_TOKENS
            raws = decode_windows(self.model, encoded, [w.language for w in batch], limit)
            decoded += zip(batch, raws, strict=True)
        return decoded

    def _wer(self, decoded: dict[str, RawWindow]) -> tuple[float | None, float | None]:
        now, before = (
            metrics.total(
                [errors for w in self.speech if (errors := self._errors(w, texts[w.key]["text"])) is not None]
            )
            for texts in (decoded, self.unsteered)
        )
        if not before.words:  # no speech, or none with words in it
            return None, None
        return now.rate, now.rate - before.rate

    def _errors(self, window: CalibrationWindow, text: str) -> metrics.WordErrors | None:
        reference = window.reference or self.unsteered[window.key]["text"]
        return metrics.word_errors(reference, text, window.language or "en")


def with_unit(pack: SteeringPack, unit: float) -> SteeringPack:
    """The same pack with another α unit."""
    return pack._replace(metadata=replace(pack.metadata, alpha_unit=unit))


def plain_model(ct2_dir: str) -> Any:
    """An unsteered float32 model to decode with."""
    ctranslate2.set_random_seed(0)
    return faster_whisper.WhisperModel(ct2_dir, device="auto", compute_type="float32")
