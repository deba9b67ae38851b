"""Whisper's own rules for what it decoded, as openai-whisper and faster-whisper both apply them."""

from typing import NamedTuple

NO_SPEECH_THRESHOLD, LOGPROB_THRESHOLD, COMPRESSION_RATIO_THRESHOLD = 0.6, -1.0, 2.4
"""both libraries' defaults"""


class SilenceRule(NamedTuple):
    """When a window is skipped: it is probably silent, and its text is not likely either."""

    no_speech_threshold: float | None = NO_SPEECH_THRESHOLD
    logprob_threshold: float | None = LOGPROB_THRESHOLD

    def __call__(self, no_speech_prob: float, avg_logprob: float) -> bool:
        """Whether the window is skipped."""
        return self.sounds_silent(no_speech_prob) and not self.is_likely(avg_logprob)

    def sounds_silent(self, no_speech_prob: float) -> bool:
        """Whether the model finds it probable that nobody speaks; never without a threshold."""
        return self.no_speech_threshold is not None and no_speech_prob > self.no_speech_threshold

    def is_likely(self, avg_logprob: float) -> bool:
        """Whether the text is so probable that it stays all the same; never without a threshold."""
        return self.logprob_threshold is not None and avg_logprob > self.logprob_threshold


def average_logprob(score: float, tokens: int, length_penalty: float = 1.0) -> float:
    """Mean log probability of so many tokens and the end of text, from CTranslate2's score of a result.

    CTranslate2 divides the sum by ``tokens ** length_penalty``, the libraries by one token more.
    """
    return score * tokens**length_penalty / (tokens + 1)
