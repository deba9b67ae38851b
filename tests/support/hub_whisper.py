"""transformers' Whisper from openai's weights, without a hub."""

from typing import Any

from whisper_sae_steer.export.writers import to_transformers
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.models.weights import resolve


def hub_whisper(name: str, attention: str = "sdpa") -> Any:
    """The model as ``from_pretrained`` would give it, with the generation settings of its hub page."""
    return to_transformers(load_torch(resolve(name)), attention)
