"""Activations of HuBERT for SAEs that read its layers, as AudioSAE's (arXiv 2602.05027) do."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ...audio.reading import Source, load_audio
from ...audio.units import SAMPLES_PER_ENCODER_FRAME, WINDOW_SAMPLES
from ...errors import AudioError
from ...training.encoders import Audio, HubertFrames

RECEPTIVE_FIELD = 400
"""samples that one frame of HuBERT reads; the next begins a frame of the encoder later, 320 samples"""


def hubert_activations(
    name_or_path: str, audio: Source, block: int, device: str | torch.device = "cpu"
) -> Tensor:
    """Output of a HuBERT model's encoder block, counted from 0: [1, T, d] float32, 50 frames a second.

    ``name_or_path`` is what transformers' ``HubertModel.from_pretrained`` takes, ``audio`` a file or 16 kHz
    samples. Longer audio is read in windows of 30 s that overlap by what one frame reads beyond its 20 ms,
    so that T is that of the model on all of it. AudioSAE counts layers from 1: its ``layer_6`` is block 5.
    WeightsError if the model can't be loaded, PackError for a block it doesn't have, AudioError for audio
    that can't be read or is shorter than a frame, 25 ms.
    """
    tap = f"block.{block}"
    encoder = HubertFrames(name_or_path, [tap], device)
    samples = load_audio(audio)
    frames = [window.taps[tap].cpu() for window in encoder(list(_windows(samples)))]
    if not frames:
        raise AudioError(f"{len(samples)} samples are less than one frame of HuBERT, {RECEPTIVE_FIELD}")
    return torch.cat(frames)[None]


def _windows(samples: Audio) -> Iterator[Audio]:
    """Pieces that give 1500 frames each, and the rest."""
    beyond = RECEPTIVE_FIELD - SAMPLES_PER_ENCODER_FRAME
    for start in range(0, len(samples), WINDOW_SAMPLES):
        piece = samples[start : start + WINDOW_SAMPLES + beyond]
        if start == 0 or len(piece) >= RECEPTIVE_FIELD:
            yield np.ascontiguousarray(piece)
