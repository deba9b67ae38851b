"""Mixes noise into speech at a given ratio of their powers."""

import numpy as np
from numpy.typing import NDArray


def mix(
    speech: NDArray[np.float32], noise: NDArray[np.float32], snr: float, gain: float = 0.0
) -> NDArray[np.float32]:
    """Speech [n] with noise, repeated or cut to n samples, at a signal-to-noise ratio of ``snr`` dB.

    The ratio is of mean powers over all n samples. The mixture is scaled down to a peak of 1 if it exceeds
    that, and by ``gain`` dB after.
    """
    noise = np.resize(noise, len(speech))
    power, noise_power = np.mean(speech**2), np.mean(noise**2)
    scale = np.sqrt(power / max(float(noise_power), 1e-12) / 10 ** (snr / 10))
    mixed = speech + scale * noise
    return (mixed / max(1.0, float(np.abs(mixed).max())) * 10 ** (gain / 20)).astype(np.float32)
