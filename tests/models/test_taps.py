"""Taps: names, and activations that are those of the real encoders."""

import numpy as np
import pytest
import torch

from tests.support.real_models import sample, weights
from tests.support.small_whisper import small_whisper
from whisper_sae_steer.audio.units import WINDOW_FRAMES, WINDOW_SAMPLES
from whisper_sae_steer.errors import PackError
from whisper_sae_steer.models.convert import load_torch
from whisper_sae_steer.models.taps import WindowEncoder, block_index, rest_of_encoder


def test_block_index():
    assert block_index("encoder_output") is None
    assert [block_index(f"block.{n}") for n in (0, 3, 31)] == [0, 3, 31]


@pytest.mark.parametrize("tap", ["", "block", "block.", "block.-1", "block.1 ", "blocks.1", "layer_6", "1"])
def test_unknown_tap(tap: str):
    with pytest.raises(PackError, match=r"use 'encoder_output' or 'block\.N'"):
        block_index(tap)


def torch_frames(audio: np.ndarray, encoder: WindowEncoder) -> torch.Tensor:
    model = load_torch(weights("tiny.en")).float()
    with torch.no_grad():
        return model.encoder(torch.from_numpy(encoder.mel(audio))[None])[0]


def test_encoder_output_is_that_of_torch():
    encoder = WindowEncoder(weights("tiny.en"), threads=1)
    frames = encoder([sample("speech"), sample("gap")[-WINDOW_SAMPLES:]])
    assert frames.shape == (2, WINDOW_FRAMES, 384)
    assert frames.dtype == torch.float32
    assert frames.device.type == "cpu"
    expected = torch_frames(sample("speech"), encoder)
    error = (frames[0] - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert float(error.mean()) < 1e-3
    torch.testing.assert_close(encoder([sample("speech")])[0], frames[0], rtol=1e-3, atol=1e-3)


def test_mel_is_padded_and_cut_to_a_window():
    encoder = WindowEncoder(weights("tiny.en"), threads=1)
    for samples in (1, 160_000, WINDOW_SAMPLES, 600_000):
        mel = encoder.mel(np.resize(sample("speech"), samples))
        assert mel.shape == (80, 3000)
        assert mel.dtype == np.float32


def test_block_is_the_residual_stream_before_ln_post():
    encoder = WindowEncoder(weights("tiny.en"), "block.3", threads=1)
    block = encoder([sample("speech")])
    assert block.shape == (1, WINDOW_FRAMES, 384)
    with torch.no_grad():
        normed = load_torch(weights("tiny.en")).float().encoder.ln_post(block[0])
    torch.testing.assert_close(normed, torch_frames(sample("speech"), encoder), rtol=1e-3, atol=1e-3)
    earlier = WindowEncoder(weights("tiny.en"), "block.0")([sample("speech")])
    assert earlier.shape == block.shape
    assert not torch.allclose(earlier, block, atol=0.1)


def test_the_rest_of_the_encoder_leads_from_every_tap_to_its_output():
    encoder = load_torch(weights("tiny.en")).encoder
    seen = WindowEncoder(weights("tiny.en"), "all").at_all([sample("speech"), sample("gap")[:80_000]])
    assert len(seen) == 5
    for tap, frames in seen.items():
        with torch.no_grad():
            output = rest_of_encoder(encoder, tap)(frames)
        torch.testing.assert_close(output, seen["encoder_output"], rtol=0, atol=1e-4)
    assert rest_of_encoder(encoder, "encoder_output")(seen["block.0"]) is seen["block.0"]


def test_block_that_does_not_exist():
    with pytest.raises(PackError, match=r"block\.4 does not exist: tiny\.en has blocks 0 to 3"):
        WindowEncoder(weights("tiny.en"), "block.4")
    with pytest.raises(PackError, match=r"block\.2 does not exist: the encoder has blocks 0 to 1"):
        rest_of_encoder(small_whisper().encoder, "block.2")
