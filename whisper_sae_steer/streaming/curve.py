"""How likely speech is throughout a live session: each moment is judged once, when it is first heard."""

from ..audio.units import SAMPLE_RATE
from ..steering.labels import STEP_SECONDS
from .decoder import StreamDecoder, StreamWindow

STEP_SAMPLES = round(STEP_SECONDS * SAMPLE_RATE)


class SpeechCurve:
    """Probability of speech at each STEP_SECONDS of a session, as far as it was listened to."""

    def __init__(self, decoder: StreamDecoder):
        self._decoder = decoder
        self._steps = 0
        """of the session that are judged"""

    def extend(self, judged: StreamWindow | None, start: int, end: int) -> list[float]:
        """What is new of the samples ``start``…``end`` of the session, by the window that begins there.

        It is 0 where the window is None: then a detector heard no voice, and the gate was not asked.
        Without a gate there is no curve.
        """
        new: list[float] = []
        while self._decoder.has_gate and (self._steps + 1) * STEP_SAMPLES <= end:
            moment = (self._steps + 0.5) * STEP_SECONDS - start / SAMPLE_RATE
            new.append(self._decoder.moment_speech_prob(judged, moment) if judged else 0.0)
            self._steps += 1
        return new
