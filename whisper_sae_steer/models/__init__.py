"""Whisper's weights: found, converted, and what is read from them."""
