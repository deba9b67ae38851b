"""Taps: where in Whisper's encoder activations are read, and how to get them from audio."""

import re
from collections.abc import Sequence

import ctranslate2
import numpy as np
import torch
from faster_whisper.audio import pad_or_trim
from faster_whisper.feature_extractor import FeatureExtractor
from torch import Tensor
from torch.nn import Module

from .convert import load_torch
from .errors import PackError
from .weights import Weights

FRAMES = 1500
"""encoder frames of 20 ms in a window of 30 s"""
WINDOW_SAMPLES = 480_000
SAMPLES_PER_FRAME = 320


def block_index(tap: str) -> int | None:
    """``block.N`` → N, ``encoder_output`` → None; PackError for anything else."""
    if tap == "encoder_output":
        return None
    match = re.fullmatch(r"block\.(\d+)", tap)
    if match is None:
        raise PackError(f"unknown tap {tap!r}: use 'encoder_output' or 'block.N'")
    return int(match[1])


def content_frames(samples: int) -> int:
    """Encoder frames that cover audio of this many 16 kHz samples."""
    return min(FRAMES, -(-samples // SAMPLES_PER_FRAME))


class WindowEncoder:
    """Audio windows to activations at a tap, the same mel and padding as ``transcribe`` uses.

    ``encoder_output`` runs in CTranslate2 (float32 on CPU); ``block.N`` in PyTorch.
    """

    def __init__(self, weights: Weights, tap: str = "encoder_output", threads: int = 0):
        self.block = block_index(tap)
        if self.block is None:
            self._ct2 = ctranslate2.models.Whisper(
                str(weights.ct2_dir), device="auto", compute_type="float32", intra_threads=threads
            )
            n_mels = int(self._ct2.n_mels)
        else:
            self._torch = load_torch(weights.ct2_dir)
            if self.block >= self._torch.dims.n_audio_layer:
                last = self._torch.dims.n_audio_layer - 1
                raise PackError(f"tap {tap} does not exist: {weights.name} has blocks 0 to {last}")
            n_mels = self._torch.dims.n_mels
        self._features = FeatureExtractor(feature_size=n_mels)

    def mel(self, audio: np.ndarray) -> np.ndarray:
        """At most 30 s of audio → log-mel [n_mels, 3000] float32, zero-padded as both libraries do."""
        mel = self._features(audio)[:, :-1]
        return pad_or_trim(mel).astype(np.float32)

    def __call__(self, windows: Sequence[np.ndarray]) -> Tensor:
        """[B] windows of float32 audio at 16 kHz → activations [B, 1500, d] float32 on the CPU."""
        mels = np.stack([self.mel(audio) for audio in windows])
        if self.block is None:
            output = self._ct2.encode(ctranslate2.StorageView.from_array(mels), to_cpu=True)
            return torch.from_numpy(np.array(output))
        seen: list[Tensor] = []

        def keep(_module: Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen.append(output)

        handle = self._torch.encoder.get_submodule(f"blocks.{self.block}").register_forward_hook(keep)
        try:
            with torch.no_grad():
                self._torch.encoder(torch.from_numpy(mels))
        finally:
            handle.remove()
        return seen[0]
