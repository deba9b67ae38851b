"""Units of time that samples, mel frames and encoder frames are counted in."""

SAMPLE_RATE = 16_000
"""samples of audio a second"""
WINDOW_SAMPLES = 480_000
"""in the 30 s that Whisper hears at once"""
WINDOW_FRAMES = 1500
"""encoder frames in a window"""
ENCODER_FRAME_SECONDS = 0.02
SAMPLES_PER_ENCODER_FRAME = 320
MEL_FRAME_SECONDS = 0.01
"""the unit of a segment's ``seek``"""
MEL_FRAMES_PER_ENCODER_FRAME = 2


def content_frames(samples: int) -> int:
    """Encoder frames that cover audio of this many samples, in one window."""
    return min(WINDOW_FRAMES, -(-samples // SAMPLES_PER_ENCODER_FRAME))
