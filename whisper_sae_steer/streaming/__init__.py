"""Live audio: chunks in, partial and final segments out. ``session.py`` says how it goes on."""

from .results import StreamSegment, Stretch, Update
from .session import StreamingTranscriber

__all__ = ["StreamSegment", "StreamingTranscriber", "Stretch", "Update"]
