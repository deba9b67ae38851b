"""Whisper's weights: where they are found, how they are converted, and what is read out of the models."""
