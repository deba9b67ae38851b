"""The steered model as served: it counts its windows, and stops before one that nobody waits for."""

import os
from typing import Any, BinaryIO

import numpy as np

from ..commands.common import loading, pack_named
from ..faster import WhisperModel
from ..steering.ctranslate import EncoderOutput, SteeredStorage
from . import tracing
from .config import ServeConfig
from .decoding import decode
from .engine import checkpoint
from .memory import share_one_arena
from .metrics import ModelMetrics


class ServedModel(WhisperModel):
    """A :class:`..faster.WhisperModel` for many requests."""

    config: ServeConfig
    """the limits of uploads, once it serves"""
    metrics: ModelMetrics | None = None
    """where to count, once it serves"""

    def samples_of(self, audio: str | BinaryIO | np.ndarray) -> np.ndarray:
        """Samples [n] of an upload, within its limits, or of what else the library takes. ApiError."""
        if isinstance(audio, str | np.ndarray):
            return super().samples_of(audio)
        with tracing.span("decode"):
            return decode(audio, self.config)

    def encode(self, features: np.ndarray) -> EncoderOutput:
        checkpoint()
        return super().encode(features)

    def generate_with_fallback(
        self, encoder_output: EncoderOutput, *args: Any, **kwargs: Any
    ) -> tuple[Any, float, float, float]:
        result = super().generate_with_fallback(encoder_output, *args, **kwargs)
        if self.metrics is not None and isinstance(encoder_output, SteeredStorage):
            self.metrics.windows.inc()
            self.metrics.steered.inc(bool((encoder_output.batch.strength != 0).any()))
        return result


def load_model(config: ServeConfig) -> ServedModel:
    """The model that ``config`` names, warm. SteerError if it can't be had."""
    share_one_arena()  # before there are the model's threads
    with loading(config.model, config.device):
        model = ServedModel(
            config.model,
            device=config.device,
            device_index=list(config.device_index),
            compute_type=config.compute_type,
            cpu_threads=config.cpu_threads,
            num_workers=config.workers,
            pack=pack_named(config.pack),
        )
    list(model.transcribe(np.zeros(1600, np.float32), language="en", temperature=0)[0])
    return model


def served_name(config: ServeConfig) -> str:
    """What clients call the model: its name, or the last part of its path."""
    path = os.path.abspath(config.model)
    return os.path.basename(path) if os.path.exists(path) else config.model
