"""Audio windows → frames at many taps of one pass: Whisper's encoder, or HuBERT's through transformers."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..audio.units import content_frames
from ..errors import PackError, WeightsError
from ..models.taps import WindowEncoder, block_index, recorded
from ..models.weights import Weights

Audio = NDArray[np.float32]


class Frames(NamedTuple):
    """One window's activations."""

    taps: dict[str, Tensor]
    """tap: [T, d] float32; T is 1500 with Whisper, which pads every window to 30 s"""
    content: int
    """frames that cover audio; the others are padding"""


class FrameEncoder(Protocol):
    """What turns windows into frames."""

    @property
    def model(self) -> str: ...
    @property
    def fingerprint(self) -> str:
        """Tells weights apart, whatever they are called."""
        ...

    @property
    def encoder_mark(self) -> str | None:
        """Tells their matrices apart, too; None where that can't be known."""
        ...

    @property
    def taps(self) -> tuple[str, ...]: ...

    def __call__(self, windows: Sequence[Audio]) -> Iterator[Frames]:
        """Frames of windows of at most 30 s at 16 kHz, in their order."""
        ...


class WhisperFrames:
    """Taps of Whisper's encoder: ``block.N`` and ``encoder_output``, or ``all``."""

    def __init__(self, weights: Weights, taps: Sequence[str], device: str | torch.device = "cpu"):
        self.model, self.fingerprint = weights.name, weights.fingerprint
        self.encoder_mark = weights.encoder_mark
        self._encoder = WindowEncoder(weights, *taps, device=device)
        self.taps = self._encoder.taps
        self._at_once = 16 if self._encoder.device.type == "cuda" else 1

    def __call__(self, windows: Sequence[Audio]) -> Iterator[Frames]:
        left = iter(windows)
        while group := list(islice(left, self._at_once)):
            taps = self._encoder.at_all(group)
            for i, audio in enumerate(group):
                yield Frames({tap: h[i] for tap, h in taps.items()}, content_frames(len(audio)))


class HubertFrames:
    """Taps ``block.N`` of a HuBERT model, or ``all``: 50 frames a second and no padding.

    ``name_or_path`` is what ``transformers.HubertModel.from_pretrained`` takes. Recordings are normalised
    to zero mean and unit variance where the model's preprocessor does that. WeightsError if it can't be
    loaded, PackError for a block that doesn't exist.
    """

    encoder_mark = None  # marks are of Whisper

    def __init__(self, name_or_path: str, taps: Sequence[str], device: str | torch.device = "cpu"):
        hubert, self._preprocess = _load_hubert(name_or_path)
        self._hubert = hubert.to(device).eval()
        self._device = torch.device(device)
        layers = hubert.encoder.layers
        everywhere = [f"block.{i}" for i in range(len(layers))]
        self.model, self.taps = Path(name_or_path).name, tuple(everywhere if list(taps) == ["all"] else taps)
        blocks = {tap: block_index(tap) for tap in self.taps}
        for tap, block in blocks.items():
            if block is None or block >= len(layers):
                raise PackError(f"tap {tap}: {self.model} has block.0 to block.{len(layers) - 1}")
        self._sites = {tap: layers[block] for tap, block in blocks.items()}
        digest = hashlib.sha256()
        for name, tensor in sorted(hubert.state_dict().items()):
            if tensor.dim() == 1:  # as Whisper's: enough to tell weights apart, quick to read
                digest.update(name.encode() + tensor.half().cpu().numpy().tobytes())
        self.fingerprint = digest.hexdigest()[:32]

    def __call__(self, windows: Sequence[Audio]) -> Iterator[Frames]:
        for audio in windows:
            if len(audio) < self._preprocess.least:
                continue  # shorter than the receptive field of one frame
            with recorded(self._sites) as seen, torch.no_grad():
                self._hubert(self._preprocess(audio).to(self._device))
            taps = {tap: h[0] for tap, h in seen.items()}
            yield Frames(taps, len(next(iter(taps.values()))))


class _Preprocess(NamedTuple):
    """Samples → model input [1, n]."""

    normalize: bool
    least: int
    """samples that give one frame"""

    def __call__(self, audio: Audio) -> Tensor:
        x = torch.from_numpy(audio)[None]
        return (x - x.mean()) / (x.var(unbiased=False) + 1e-7).sqrt() if self.normalize else x


def _load_hubert(name_or_path: str) -> tuple[Any, _Preprocess]:
    try:
        from transformers import HubertModel, Wav2Vec2FeatureExtractor
    except ImportError:
        raise WeightsError("HuBERT needs transformers: pip install 'whisper-sae-steer[train]'") from None
    try:
        model = HubertModel.from_pretrained(name_or_path)
        extractor = Wav2Vec2FeatureExtractor.from_pretrained(name_or_path)
    except Exception as error:  # transformers raises what its many readers raise
        line = str(error).strip().partition("\n")[0]
        raise WeightsError(f"{name_or_path} is no HuBERT model that can be loaded: {line}") from None
    least = 1
    for kernel, stride in zip(
        reversed(model.config.conv_kernel), reversed(model.config.conv_stride), strict=True
    ):
        least = (least - 1) * stride + kernel
    return model, _Preprocess(bool(extractor.do_normalize), least)
