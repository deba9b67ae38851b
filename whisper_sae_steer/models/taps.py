"""Taps: where in Whisper's encoder activations are read, and how to get them from audio."""

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import ctranslate2
import numpy as np
import torch
from faster_whisper.audio import pad_or_trim
from faster_whisper.feature_extractor import FeatureExtractor
from torch import Tensor
from torch.nn import Identity, Module, Sequential
from whisper.model import AudioEncoder

from ..audio.units import MEL_FRAMES_PER_ENCODER_FRAME, WINDOW_FRAMES
from ..errors import PackError
from .convert import load_torch
from .weights import Weights


def block_index(tap: str) -> int | None:
    """``block.N`` → N, ``encoder_output`` → None; PackError for anything else."""
    if tap == "encoder_output":
        return None
    match = re.fullmatch(r"block\.(\d+)", tap)
    if match is None:
        raise PackError(f"unknown tap {tap!r}: use 'encoder_output' or 'block.N'")
    return int(match[1])


def require_block(tap: str, blocks: int, name: str) -> None:
    """PackError if a tap lies behind the last of so many blocks of ``name``."""
    if (block_index(tap) or 0) >= blocks:
        raise PackError(f"tap {tap} does not exist: {name} has blocks 0 to {blocks - 1}")


MOST_WORKERS = 4
"""each of them takes memory for a window"""
NOTHING = Identity()
"""what is left to run after ``encoder_output``"""


def rest_of_encoder(encoder: AudioEncoder, tap: str) -> Module:
    """What an encoder still does after a tap: [B, 1500, d] there → encoder output [B, 1500, d].

    Its modules are the encoder's own, so what it returns for the activations at the tap is what the encoder
    returns, and gradients pass through it. PackError for a tap that doesn't exist.
    """
    block, blocks = block_index(tap), list(encoder.blocks)
    if block is None:
        return NOTHING
    require_block(tap, len(blocks), "the encoder")
    return Sequential(*cast(list[Module], blocks)[block + 1 :], encoder.ln_post)


class WindowEncoder:
    """Turns windows of audio into activations at taps, with the mel and padding that ``transcribe`` uses.

    ``encoder_output`` alone on a CPU runs in CTranslate2 (float32), all else in PyTorch, in one pass. The tap
    ``all`` means every block and ``encoder_output``. PackError for a tap that doesn't exist.

    CTranslate2 takes two windows in two calls at once faster than one after the other on two threads:
    ``parallel`` shares the threads among as many ``workers`` as may call.
    """

    workers: int
    """threads that may call it at once"""

    def __init__(
        self,
        weights: Weights,
        *taps: str,
        threads: int = 0,
        device: str | torch.device = "cpu",
        parallel: bool = False,
    ):
        self.taps = taps or ("encoder_output",)
        self.device = torch.device(device)
        self.workers = 1
        self._ct2 = self._torch = None
        if self.taps == ("encoder_output",) and self.device.type == "cpu":
            threads = threads or torch.get_num_threads()
            self.workers = min(threads, MOST_WORKERS) if parallel else 1
            self._ct2 = ctranslate2.models.Whisper(
                str(weights.ct2_dir), device="auto", compute_type="float32",
                inter_threads=self.workers, intra_threads=threads // self.workers,
            )  # fmt: skip
            torch.set_num_threads(threads)  # CTranslate2 sets OpenMP's, and with them torch's, to a worker's
            n_mels = int(self._ct2.n_mels)
        else:
            model = load_torch(weights)
            layers = model.dims.n_audio_layer
            if self.taps == ("all",):
                self.taps = (*(f"block.{i}" for i in range(layers)), "encoder_output")
            for tap in self.taps:
                require_block(tap, layers, weights.name)
            self._torch = model.encoder.to(self.device)
            n_mels = model.dims.n_mels
        self._n_mels = n_mels
        self._features = FeatureExtractor(feature_size=n_mels)

    def mel(self, audio: np.ndarray) -> np.ndarray:
        """At most 30 s of audio → log-mel [n_mels, 3000] float32, zero-padded as both libraries do."""
        mel = self._features(audio)[:, :-1]
        return pad_or_trim(mel).astype(np.float32)

    def at_all(self, windows: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """[B] windows of float32 audio at 16 kHz → tap: activations [B, 1500, d] float32 on the device."""
        return self._at_all(np.stack([self.mel(audio) for audio in windows]))

    def _at_all(self, mels: np.ndarray) -> dict[str, Tensor]:
        if self._torch is None:
            assert self._ct2 is not None
            output = self._ct2.encode(ctranslate2.StorageView.from_array(mels), to_cpu=True)
            return {"encoder_output": torch.from_numpy(np.array(output))}
        sites = {tap: self._torch if tap == "encoder_output" else self._block(tap) for tap in self.taps}
        with recorded(sites) as seen, torch.no_grad():
            self._torch(torch.from_numpy(mels).to(self.device))
        return seen

    def probe(self) -> Tensor:
        """Mean frame [d] of a window whose mel is all 0: it differs between weights, not between formats."""
        return self._at_all(empty_mel(self._n_mels))[self.taps[0]][0].mean(0)

    def __call__(self, windows: Sequence[np.ndarray]) -> Tensor:
        """As :meth:`at_all`, of the first tap."""
        return self.at_all(windows)[self.taps[0]]

    def _block(self, tap: str) -> Module:
        assert self._torch is not None
        return self._torch.get_submodule(f"blocks.{block_index(tap)}")


def empty_mel(n_mels: int) -> np.ndarray:
    """A window of padding, [1, n_mels, 3000] float32."""
    return np.zeros((1, n_mels, MEL_FRAMES_PER_ENCODER_FRAME * WINDOW_FRAMES), dtype=np.float32)


@contextmanager
def recorded(sites: Mapping[str, Module]) -> Generator[dict[str, Tensor]]:
    """Outputs of modules, by name, filled in by the next forward pass inside the block."""
    seen: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[[Module, Any, Any], None]:
        def keep(_module: Module, _inputs: Any, output: Any) -> None:
            seen[name] = output[0] if isinstance(output, tuple) else output

        return keep

    handles = [module.register_forward_hook(keeper(name)) for name, module in sites.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
