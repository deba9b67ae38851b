"""Live audio: chunks in, partial and final segments out. ``session.py`` says how it goes on."""

from .session import StreamingTranscriber, StreamSegment, Update

__all__ = ["StreamSegment", "StreamingTranscriber", "Update"]
