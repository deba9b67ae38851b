"""Doubt: where the gate can't tell, Whisper's own decoder is asked.

Barks, cries and single words of robotic voices score alike: above nearly all noise, below nearly all
speech. Such a window is decoded as it is. What the decoder stands by stays; or else the window is steered in
full and decoded again.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from torch import Tensor
from whisper.utils import compression_ratio

from .pack import PackMetadata
from .seek import COMPRESSION_RATIO_THRESHOLD, LOGPROB_THRESHOLD, NO_SPEECH_THRESHOLD

BRIEF = 100
"""frames (2 s)"""


def in_doubt(scores: Tensor, metadata: PackMetadata) -> Tensor:
    """Windows that noise hardly reaches and speech hardly falls to, from smoothed scores [B, T]: [B] bool.

    The gate's threshold is the middle between the two. Above it only brief sounds are in doubt: a bark is
    over in a second, words buried in noise go on.
    """
    highest = scores.amax(dim=1)
    distance = highest - metadata.gate_threshold
    between = distance.abs() < metadata.gate_threshold - metadata.highest_noise
    brief = (scores > metadata.highest_noise).sum(dim=1) < BRIEF
    return between & ((distance < 0) | brief) & (metadata.gate == "window")


class Answer(NamedTuple):
    """What the decoder wrote, and how sure it is."""

    text: str
    avg_logprob: float
    no_speech_prob: float

    def is_varied(self) -> bool:
        """Not the repetition that noise in the shape of speech gives.

        Whisper's compression ratio shows that in long texts only: half of the words must differ too.
        """
        words = words_of(self.text)
        loops = compression_ratio(self.text) > COMPRESSION_RATIO_THRESHOLD
        return 2 * len(set(words)) > len(words) and not loops

    def is_likely(self, stock_texts: Collection[str]) -> bool:
        """By each of Whisper's own bounds, and no text that the model writes for any noise."""
        likely = self.avg_logprob > LOGPROB_THRESHOLD and self.no_speech_prob < NO_SPEECH_THRESHOLD
        return likely and " ".join(words_of(self.text)) not in stock_texts


def stock_texts(texts: Iterable[str], share: float = 0.01) -> tuple[str, ...]:
    """Words of what a model wrote for ``share`` or more of some recordings, and three times at least."""
    counts = Counter(" ".join(words_of(text)) for text in texts)
    return tuple(sorted(t for t, n in counts.items() if t and n >= max(3, share * counts.total())))


def words_of(text: str) -> list[str]:
    """Words in lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())
