"""Parts of a window."""

import numpy as np

from whisper_sae_steer.steering.parts import Part, find_parts

RNG = np.random.default_rng(0)


def mel(*spans: tuple[int, int]) -> np.ndarray:
    """Log mel [80, 3000], flat but in ``spans`` of mel frames."""
    window = np.full((80, 3000), -0.5, np.float32)
    for start, end in spans:
        window[:, start:end] = RNG.standard_normal((80, end - start))
    return window


def test_digital_silence_and_padding_lie_between_parts():
    window = mel((0, 400), (448, 460), (480, 700), (800, 1000), (1200, 1300))
    window[:, 1300:] = 0  # as libraries pad
    # flat for 48 frames, as a joint; for 20 and 100, as no joint is; for 200, longer than most pauses
    assert find_parts(window) == [Part(0, 200), Part(224, 500), Part(600, 650)]
    assert find_parts(mel((0, 3000))) == [Part(0, 1500)]
    assert find_parts(mel((101, 3000))) == [Part(50, 1500)]
    assert find_parts(mel()) == []
