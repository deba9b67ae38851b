"""Units of time: how samples, mel frames and encoder frames are counted."""

SAMPLE_RATE = 16_000
"""Samples of audio a second."""
WINDOW_SAMPLES = 480_000
"""Samples in a window: the 30 s of audio that Whisper reads at once."""
WINDOW_FRAMES = 1500
"""Encoder frames in a window."""
ENCODER_FRAME_SECONDS = 0.02
ENCODER_FRAMES_PER_SECOND = 50
SAMPLES_PER_ENCODER_FRAME = 320
MEL_FRAME_SECONDS = 0.01
"""The unit of a segment's ``seek``."""
MEL_FRAMES_PER_ENCODER_FRAME = 2


def content_frames(samples: int) -> int:
    """Encoder frames that cover this many samples of audio, at most those of one window."""
    return min(WINDOW_FRAMES, -(-samples // SAMPLES_PER_ENCODER_FRAME))
