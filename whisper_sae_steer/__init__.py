"""Steer Whisper's encoder output so that it writes no text for audio without speech."""
