"""Mel features of long recordings in pieces: faster-whisper's take 55 MB a minute while they are computed."""

from typing import cast

import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor
from numpy.typing import NDArray

from .engine import checkpoint

PIECE_FRAMES = 20_000
"""frames of 10 ms"""
EDGE_FRAMES = 2
"""frames at the edge of a piece that reach beyond it"""
RANGE = 8 / 4
"""what is kept below the loudest value: 8 of log10, in the features' scale"""


class PiecewiseFeatures(FeatureExtractor):
    """faster-whisper's features, to the last bits of a float, in bounded memory.

    Each piece is floored at 8 below its own maximum and all of them then at 8 below the highest, which no
    piece exceeds: the same as flooring once.
    """

    def __call__(
        self, waveform: NDArray[np.float32], padding: int = 160, chunk_length: int | None = None
    ) -> NDArray[np.float32]:
        """Log mel features [n_mels, frames] of samples [n]."""
        hop = self.hop_length
        frames = (len(waveform) + padding) // hop
        if frames <= PIECE_FRAMES:
            return cast(NDArray[np.float32], super().__call__(waveform, padding, chunk_length))
        padded = np.pad(waveform, (0, padding))
        features = np.empty((len(self.mel_filters), frames), np.float32)
        for start in range(0, frames, PIECE_FRAMES):
            checkpoint()
            stop, before = min(frames, start + PIECE_FRAMES), min(start, EDGE_FRAMES)
            end = len(padded) if stop == frames else (stop + EDGE_FRAMES) * hop
            piece = super().__call__(padded[(start - before) * hop : end], 0, chunk_length)
            features[:, start:stop] = piece[:, before : before + stop - start]
        return np.maximum(features, features.max() - RANGE, out=features)
