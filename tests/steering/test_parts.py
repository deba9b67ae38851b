"""Parts of a window."""

import numpy as np

from whisper_sae_steer.steering.parts import Neighbours, Part, find_parts, joined_in_text

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


def test_a_segment_over_a_joint_joins_two_parts():
    begin = 50_000
    parts = [Part(0, 400), Part(424, 900), Part(924, 1300)]

    def segments(*spans: tuple[int, int]) -> list[int]:
        return [token for start, end in spans for token in (begin + start, 1, 2, begin + end)]

    assert joined_in_text(segments((0, 390), (420, 890), (900, 1290)), parts, begin) is None
    assert joined_in_text(segments((0, 390), (440, 1200)), parts, begin) == Neighbours(parts[1], parts[2])
    assert joined_in_text(segments((0, 1200)), parts, begin) == Neighbours(parts[0], parts[1])
    assert joined_in_text([begin, 1, 2], parts, begin) == Neighbours(parts[0], parts[1])
    assert joined_in_text([begin + 930, 1, 2], parts, begin) is None
    assert joined_in_text([begin, begin + 1200], parts, begin) is None, "no text"
    assert joined_in_text([], parts, begin) is None
    assert joined_in_text(segments((0, 1200)), [], begin) is None
