"""Recordings as activations on disk, which every analysis reads."""
