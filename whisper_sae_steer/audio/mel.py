"""faster-whisper's log mel of a long recording in little memory: computed a minute at a time."""

from itertools import pairwise

import faster_whisper.feature_extractor
import numpy as np
from numpy.typing import NDArray

LONG_FRAMES, BLOCK_FRAMES = 60_000, 6000
"""more than ten minutes are computed in blocks of one minute or a little more"""


class FeatureExtractor(faster_whisper.feature_extractor.FeatureExtractor):
    """faster-whisper's, whose spectra would take 1.2 GB for an hour of audio.

    Up to ten minutes it is the library itself; beyond, values differ by rounding (1.2e-7), as products of
    matrices of another width do.
    """

    def __call__(
        self, waveform: NDArray[np.float32], padding: int = 160, chunk_length: int | None = None
    ) -> NDArray[np.float32]:
        """Log mel [n_mels, n] of audio [samples] at 16 kHz, followed by ``padding`` samples of silence."""
        frames = (len(waveform) + padding) // self.hop_length
        if frames <= LONG_FRAMES:
            return super().__call__(waveform, padding, chunk_length)
        if chunk_length is not None:
            self.n_samples = chunk_length * self.sampling_rate
            self.nb_max_frames = self.n_samples // self.hop_length
        mel = np.empty((len(self.mel_filters), frames), dtype=np.float32)
        edges = np.linspace(0, frames, frames // BLOCK_FRAMES + 1).astype(int)
        for start, end in pairwise(edges.tolist()):
            mel[:, start:end] = self._mel(self._samples(waveform, padding, start, end))
        np.log10(np.maximum(mel, 1e-10, out=mel), out=mel)
        np.maximum(mel, mel.max() - 8.0, out=mel)
        mel += 4.0
        mel /= 4.0
        return mel

    def _samples(
        self, waveform: NDArray[np.float32], padding: int, start: int, end: int
    ) -> NDArray[np.float32]:
        """What the frames ``start`` to ``end`` are made of, mirrored at both ends of the recording."""
        half, total = self.n_fft // 2, len(waveform) + padding
        first, last = start * self.hop_length - half, (end - 1) * self.hop_length + half
        piece = waveform[max(first, 0) : last].astype(np.float32)
        piece = np.pad(piece, (0, max(0, min(last, total) - len(waveform))))
        return np.pad(piece, (max(0, -first), max(0, last - total)), mode="reflect")

    def _mel(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Power [n_mels, n] of all whole frames in samples."""
        window = np.hanning(self.n_fft + 1)[:-1].astype(np.float32)
        spectrum = self.stft(
            samples, self.n_fft, self.hop_length, window=window, center=False, return_complex=True
        )
        return self.mel_filters @ (np.abs(spectrum.astype(np.complex64)) ** 2)
