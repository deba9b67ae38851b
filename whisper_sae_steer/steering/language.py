"""Where the language is read: from the first speech, not from the silence or noise before it."""

from collections.abc import Callable
from typing import TypeVar

from ..audio.units import WINDOW_FRAMES
from .calls import Call, Listener, Steerer, active
from .seek import frames_before_speech

T = TypeVar("T")


def detect_at_speech(steerer: Steerer, call: Call, detect: Callable[[int], T], frames: int) -> T:
    """What ``detect`` finds in the first window in which the gate hears speech, or else in the first of all.

    ``detect`` encodes the window that begins at an encoder frame and reads its language; the recording has
    ``frames`` of them. Speech from the start costs no more than in the plain libraries, and nothing at all in
    CTranslate2, where the window is not encoded again to be transcribed.
    """
    with active(steerer, call.for_language()) as listening:
        first = detected = detect(0)
        start = 0
        while isinstance(listening, Listener):
            scores = listening.heard[0].cpu().numpy()
            silent = frames_before_speech(scores, min(WINDOW_FRAMES, frames - start), steerer.pack.metadata)
            start += silent
            if start >= frames:
                return first
            if not silent:
                break
            listening.heard.clear()
            detected = detect(start)
        return detected
