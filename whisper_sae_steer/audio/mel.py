"""faster-whisper's log mel of a long recording in little memory: computed a minute at a time."""

from itertools import pairwise

import faster_whisper.feature_extractor
import numpy as np
from numpy.typing import NDArray

LONG_FRAMES, BLOCK_FRAMES = 60_000, 6000
"""more than ten minutes are computed in blocks of one minute or a little more"""
EDGE_FRAMES = 2
"""frames at the edge of a block that reach beyond it"""
RANGE = 8 / 4
"""what is kept below the loudest value: 8 of log10, in the log mel's scale"""


class FeatureExtractor(faster_whisper.feature_extractor.FeatureExtractor):
    """faster-whisper's, whose spectra would take 1.2 GB for an hour of audio.

    Up to ten minutes it is the library itself; beyond, each block is floored at 8 below its own loudest value
    and all of them then at 8 below the highest, which is the same but for rounding (2.4e-7).
    """

    def __call__(
        self, waveform: NDArray[np.float32], padding: int = 160, chunk_length: int | None = None
    ) -> NDArray[np.float32]:
        """Log mel [n_mels, n] of audio [samples] at 16 kHz, followed by ``padding`` samples of silence."""
        hop, total = self.hop_length, len(waveform) + padding
        frames = total // hop
        if frames <= LONG_FRAMES:
            return super().__call__(waveform, padding, chunk_length)
        mel = np.empty((len(self.mel_filters), frames), dtype=np.float32)
        edges = np.linspace(0, frames, frames // BLOCK_FRAMES + 1).astype(int)
        for start, end in pairwise(edges.tolist()):
            before = min(start, EDGE_FRAMES)
            last = total if end == frames else (end + EDGE_FRAMES) * hop
            samples = waveform[(start - before) * hop : last]
            block = super().__call__(samples, max(0, min(last, total) - len(waveform)), chunk_length)
            mel[:, start:end] = block[:, before : before + end - start]
        return np.maximum(mel, mel.max() - RANGE, out=mel)
