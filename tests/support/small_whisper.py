"""A Whisper with random weights: real structure and vocabulary, small enough for any test."""

from pathlib import Path

import numpy as np
import torch
from whisper.model import ModelDimensions, Whisper


def small_whisper(n_vocab: int = 51864, n_mels: int = 80, width: int = 16) -> Whisper:
    """float16 parameters, two blocks a side; 51864 tokens is English only, 51866 large-v3's."""
    torch.manual_seed(0)
    model = Whisper(ModelDimensions(n_mels, 1500, width, 2, 2, n_vocab, 448, width, 2, 2))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.half().eval()


def save_checkpoint(model: Whisper, path: Path) -> Path:
    """Write `model` the way OpenAI's own checkpoints are."""
    torch.save({"dims": model.dims.__dict__, "model_state_dict": model.state_dict()}, path)
    return path


def voice_like(seconds: float = 20.0) -> np.ndarray:
    """Float32 [n] at 16 kHz: a gliding harmonic tone in syllable-long bursts over weak noise."""
    rng = np.random.default_rng(0)
    t = np.arange(int(16000 * seconds)) / 16000
    phase = 2 * np.pi * np.cumsum(120 + 20 * np.sin(2 * np.pi * 0.7 * t)) / 16000
    tone = np.sum([np.sin(k * phase) / k for k in range(1, 30)], axis=0)
    bursts = np.clip(np.sin(2 * np.pi * 2.5 * t), 0, 1) * (t < 0.7 * seconds)
    return (0.1 * tone * bursts + 0.003 * rng.standard_normal(len(t))).astype(np.float32)
