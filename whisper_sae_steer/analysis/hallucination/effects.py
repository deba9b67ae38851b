"""What single features do to Whisper's decoder: taken out of a window's frames, or added to them.

Only the feature's own contribution changes, h − a_f d_f or h + s d_f, so that what the SAE doesn't
reconstruct stays in. The edit is made at the SAE's tap; blocks after it run on the edited frames.
"""

from collections.abc import Sequence
from typing import NamedTuple

import faster_whisper
import numpy as np
import torch
from ctranslate2 import StorageView
from torch import Tensor

from ...calibrate.attribution import SilenceObjective
from ...calibrate.windows import CalibrationWindow
from ...models.convert import load_torch
from ...models.greedy import decode_windows
from ...models.weights import Weights
from ...reports.metrics import has_text, normalise, word_errors
from ...sae.autoencoder import SAE

AT_ONCE = 16
"""windows decoded together"""
NEW_TOKENS = 64
"""most that is written of a window: enough to tell whether the text changes"""


class Reading(NamedTuple):
    """What the decoder makes of one window."""

    no_speech: float
    """probability of <|nospeech|> at the start of the transcript"""
    end_of_text: float
    """probability of the end right after <|0.00|>"""
    text: str
    """decoded greedily, with no threshold that could drop it"""


class Effect(NamedTuple):
    """Change of the readings of windows without speech."""

    d_no_speech: float
    """mean change of the probability"""
    d_end_of_text: float
    emptied: int
    """windows with text before and none after"""
    filled: int
    """windows with none before and text after"""
    changed: int
    """windows whose text, normalised, is another"""
    windows: int


class SpeechEffect(NamedTuple):
    """Change of the texts of windows with speech."""

    changed: int
    """windows whose text, normalised, is another"""
    windows: int
    words_changed: int
    """word errors of the text after against the text before"""
    words: int
    """in the text before"""


class TapDecoder:
    """Whisper from a tap on, float32 on the CPU: probabilities in PyTorch, texts in CTranslate2."""

    def __init__(self, weights: Weights, tap: str, threads: int = 0):
        self.objective = SilenceObjective(load_torch(weights), tap)
        self._greedy = faster_whisper.WhisperModel(
            str(weights.ct2_dir), device="cpu", compute_type="float32", cpu_threads=threads
        )

    @torch.no_grad()
    def __call__(self, frames: Tensor, languages: Sequence[str]) -> list[Reading]:
        """Frames at the tap [B, 1500, d], a language for each → readings."""
        readings: list[Reading] = []
        for start in range(0, len(frames), AT_ONCE):
            output = self.objective.rest(frames[start : start + AT_ONCE])
            readings += self._read(output, languages[start : start + AT_ONCE])
        return readings

    def _read(self, output: Tensor, languages: Sequence[str]) -> list[Reading]:
        tokenizers = [self.objective.tokenizer(language) for language in languages]
        prompts = torch.tensor([[*t.sot_sequence, t.timestamp_begin] for t in tokenizers])
        probabilities = self.objective.model.decoder(prompts, output).float().softmax(-1)
        no_speech = probabilities[:, 0, tokenizers[0].no_speech].tolist()
        end = probabilities[:, -1, tokenizers[0].eot].tolist()
        encoded = StorageView.from_array(np.ascontiguousarray(output.numpy()))
        texts = [raw["text"] for raw in decode_windows(self._greedy, encoded, languages, NEW_TOKENS)]
        return [Reading(*reading) for reading in zip(no_speech, end, texts, strict=True)]


class FeatureEdits:
    """Windows under edits of single features.

    ``removed`` and ``added`` give one reading a window; windows in which a feature doesn't fire are not
    decoded again when it is removed.
    """

    def __init__(
        self, decoder: TapDecoder, sae: SAE, windows: Sequence[CalibrationWindow], before: Sequence[Reading]
    ):
        self._decoder, self._sae, self.windows, self.before = decoder, sae, windows, list(before)

    @torch.no_grad()
    def removed(self, feature: int) -> list[Reading]:
        """h − a_f d_f in every frame, padding too."""
        after, edited, places = list(self.before), list[Tensor](), list[int]()
        for place, window in enumerate(self.windows):
            frames = window.frames()
            activation = self._activation(frames, feature)
            if activation.any():
                edited.append(frames - activation[:, None] * self._sae.W_dec[feature])
                places.append(place)
        for place, reading in zip(places, self._readings(edited, places), strict=True):
            after[place] = reading
        return after

    @torch.no_grad()
    def added(self, feature: int, amount: float) -> list[Reading]:
        """h + amount · d_f in every frame, padding too."""
        edited = [window.frames() + amount * self._sae.W_dec[feature] for window in self.windows]
        return self._readings(edited, range(len(edited)))

    def _activation(self, frames: Tensor, feature: int) -> Tensor:
        """[1500]: one column of ``sae.encode``."""
        sae = self._sae
        before = torch.relu((frames - sae.b_dec) @ sae.W_enc[:, feature] + sae.b_enc[feature])
        return before * (before > sae.threshold[feature])

    def _readings(self, edited: Sequence[Tensor], places: Sequence[int]) -> list[Reading]:
        if not edited:
            return []
        return self._decoder(torch.stack(list(edited)), [language_of(self.windows[i]) for i in places])


def language_of(window: CalibrationWindow) -> str:
    """To decode it in; English where nobody speaks."""
    return window.language or "en"


def effect(before: Sequence[Reading], after: Sequence[Reading]) -> Effect:
    """Readings of the same windows compared; there must be one at least."""
    pairs = list(zip(before, after, strict=True))
    return Effect(
        d_no_speech=sum(a.no_speech - b.no_speech for b, a in pairs) / len(pairs),
        d_end_of_text=sum(a.end_of_text - b.end_of_text for b, a in pairs) / len(pairs),
        emptied=sum(has_text(b.text) and not has_text(a.text) for b, a in pairs),
        filled=sum(has_text(a.text) and not has_text(b.text) for b, a in pairs),
        changed=sum(normalise(b.text) != normalise(a.text) for b, a in pairs),
        windows=len(pairs),
    )


def speech_effect(
    before: Sequence[Reading], after: Sequence[Reading], languages: Sequence[str]
) -> SpeechEffect | None:
    """Texts of the same windows with speech compared; None without any."""
    errors = [
        word_errors(b.text, a.text, language) for b, a, language in zip(before, after, languages, strict=True)
    ]
    known = [one for one in errors if one is not None]
    if not known:
        return None
    return SpeechEffect(
        changed=sum(one.errors > 0 for one in known),
        windows=len(known),
        words_changed=sum(one.errors for one in known),
        words=sum(one.words for one in known),
    )
