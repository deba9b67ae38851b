"""What steering makes of encoded windows: one result, which stays with them until their text is read."""

from enum import IntEnum
from typing import Any, NamedTuple

from torch import Tensor

from ..audio.units import WINDOW_FRAMES
from .cuts import WindowCut
from .labels import SegmentLabels


class Verdict(IntEnum):
    """What the gate, and where it is in doubt the decoder, makes of a window."""

    SPEECH = 0
    """somebody may speak: decoded as the library decodes any window"""
    DOUBT = 1
    """the decoder is to be asked; unedited until it has answered"""
    SILENCE = 2
    """nobody speaks: edited in full, and an empty transcript is right"""


class SteeredWindow(NamedTuple):
    """One window of a batch without its frames: what stays with the text that is read from it."""

    scores: Tensor
    """[T] float32, smoothed speech logits"""
    verdict: Tensor
    """[] int8 of :class:`Verdict`"""
    cut: WindowCut | None = None
    """where the window is cut, if it has a long gap"""
    begins_at: int = 0
    """frame at which speech begins, if the window was sought to behind a gap"""
    content: int = WINDOW_FRAMES
    """frames that cover audio, as far as it is known"""

    def is_silence(self) -> bool:
        """Whether nobody speaks in it. Waits for the device."""
        return bool(self.verdict == Verdict.SILENCE)


class SteeredBatch(NamedTuple):
    """Windows encoded together, after steering."""

    frames: Any
    """[B, 1500, d] as the decoder gets them, in the back end's own type"""
    scores: Tensor
    """[B, T] float32, smoothed speech logits"""
    strength: Tensor
    """[B, 1 or T] float32, how strongly frames were edited; 0 or NaN where they were not"""
    verdict: Tensor
    """[B] int8 of :class:`Verdict`, on the frames' device; read on the CPU only where it is needed"""
    cut: WindowCut | None = None
    """where the window is cut, if it has a long gap; only single windows are cut"""
    begins_at: int = 0
    """frame at which speech begins, if the window was sought to behind a gap"""
    content: int = WINDOW_FRAMES
    """frames of a single window that cover audio"""

    def rows(self, verdict: Verdict) -> list[int]:
        """The windows of that verdict. Waits for the device."""
        return (self.verdict == verdict).nonzero()[:, 0].tolist()

    def no_speech_prob(self, row: int, decoders: float) -> float:
        """What results report of a window as no_speech_prob, if the decoder's own is ``decoders``.

        Where nobody speaks and the edit is whole (α ≥ 1) it is 1: the edit ends the text, and may lower the
        no-speech token's probability or, where a model never uses that token, leave it at 0. Any other window
        keeps the decoder's, to the bit. Waits for the device.
        """
        return 1.0 if self.ends_at_once(row) else decoders

    def ends_at_once(self, row: int = 0) -> bool:
        """Whether a window needs no decoding: nobody speaks, and the edit is whole. Waits for the device."""
        return float(self.strength[row].amin()) >= 1 and self.window(row).is_silence()

    def window(self, row: int = 0) -> SteeredWindow:
        """One of the windows."""
        return SteeredWindow(self.scores[row], self.verdict[row], self.cut, self.begins_at, self.content)


class WindowTokens(list[int]):
    """Tokens of a text that bring along the window they were read from.

    faster-whisper copies a result's tokens into the segments it makes, so a segment's window needs no search.
    """

    window: SteeredWindow
    labels: SegmentLabels | None
    """of a segment, if they are known already"""

    def __init__(self, tokens: list[int], window: SteeredWindow, labels: SegmentLabels | None = None):
        super().__init__(tokens)
        self.window, self.labels = window, labels


class WindowTemperature(float):
    """A result's temperature that brings along the window it was decoded at.

    openai-whisper copies it into the segments it makes, as faster-whisper does with tokens.
    """

    given: float
    """as the library had it, which may be an int"""
    window: SteeredWindow

    def __new__(cls, temperature: float, window: SteeredWindow) -> "WindowTemperature":
        carrier = super().__new__(cls, temperature)
        carrier.given, carrier.window = temperature, window
        return carrier
