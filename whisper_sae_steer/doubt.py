"""Doubt: where the gate can't tell, Whisper's own decoder is asked.

Barks, cries and single words of robotic voices score alike: above nearly all noise, below nearly all
speech. Such a window is decoded as it is. Text that the decoder believes stays; or else the window is
steered in full and decoded again.
"""

import re

import torch
from torch import Tensor
from whisper.utils import compression_ratio

from .pack import PackMetadata


def in_doubt(scores: Tensor, metadata: PackMetadata) -> Tensor:
    """Windows that noise hardly reaches and speech hardly falls to, from smoothed scores [B, T]: [B] bool.

    The ramp is a quarter of the gap between the two, and doubt its lower half (``calibrate/gatefit.py``).
    """
    highest = scores.amax(dim=1)
    if metadata.gate != "window":
        return torch.zeros_like(highest, dtype=torch.bool)
    lowest = metadata.gate_threshold - 2 * metadata.gate_ramp
    return (highest > lowest) & (highest < metadata.gate_threshold)


def is_credible(text: str, avg_logprob: float, no_speech_prob: float) -> bool:
    """Whether the decoder stands by the text of a window in doubt, by each of Whisper's own bounds.

    Noise in the shape of speech gives repetition. The compression ratio shows that in long texts only, so
    more than half of the words must differ as well.
    """
    words = re.findall(r"\w+", text.lower())
    varied = 2 * len(set(words)) > len(words) and compression_ratio(text) <= 2.4
    return varied and avg_logprob > -1.0 and no_speech_prob < 0.6
