"""Where the language is read: from the first speech, not from the silence or noise before it."""

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from ..audio.units import WINDOW_FRAMES
from .calls import Call, CallOptions, active
from .cuts import frames_before_speech
from .steerer import Steerer

T = TypeVar("T")


def language_call(call: Call) -> Call | None:
    """The call to read the language in: by default it edits nothing, and only says where people speak."""
    alpha = call.options.alpha
    if alpha == 0:
        return None
    if call.options.steer_language_detection:
        return Call(CallOptions(alpha, in_doubt="ask"))
    return Call(CallOptions(0.0, scores_only=True), deque(), call.explored)


def detect_at_speech(steerer: Steerer, call: Call, detect: Callable[[int], T], frames: int) -> T:
    """What ``detect`` finds in the first window with speech, by the gate, or else in the first of all.

    ``detect`` encodes the window that begins at an encoder frame and reads its language; the recording has
    ``frames`` of them. Speech from the start costs no more than in the plain libraries, and nothing at all in
    CTranslate2, where the window is not encoded again to be transcribed.
    """

    def look(start: int) -> tuple[T, int]:
        """What is detected there, and how many frames of the window nobody speaks in at first."""
        with active(steerer, language_call(call)) as reading:
            detected = detect(start)
        if reading is None or not reading.options.scores_only:
            return detected, 0
        scores = reading.results[0].scores[0].cpu().numpy()
        content = min(WINDOW_FRAMES, frames - start)
        return detected, frames_before_speech(scores, content, steerer.pack.metadata.levels)

    first, start = look(0)
    detected, silent = first, start
    while silent and start < frames:
        detected, silent = look(start)
        start += silent
    return detected if start < frames else first
