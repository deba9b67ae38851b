"""HuBERT's layers through transformers, and many taps of Whisper in one pass."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from tests.support.real_models import sample, weights
from whisper_sae_steer.errors import PackError, WeightsError
from whisper_sae_steer.models.taps import WindowEncoder
from whisper_sae_steer.training import HubertFrames, WhisperFrames


@pytest.fixture(scope="module", params=[False, True], ids=["base", "large"])
def hubert(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small HuBERT of either of the two layouts (layer norms after or before each block)."""
    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
        do_stable_layer_norm=request.param, feat_extract_norm="layer" if request.param else "group",
        conv_dim=(16,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("hubert")
    HubertModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=request.param).save_pretrained(folder)
    return folder


def test_hubert_frames_are_the_hidden_states(hubert: Path):
    encoder = HubertFrames(str(hubert), ["all"])
    assert encoder.taps == ("block.0", "block.1", "block.2")
    audio = sample("speech")[:48_000]
    (frames,) = encoder([audio])
    model = HubertModel.from_pretrained(hubert).eval()
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(hubert)
    inputs = extractor(audio, sampling_rate=16_000, return_tensors="pt").input_values
    with torch.no_grad():
        states = model(inputs, output_hidden_states=True).hidden_states
    assert frames.content == len(states[0][0]) == 149
    for block in (0, 1):  # the last hidden state of the large layout has a final layer norm
        torch.testing.assert_close(frames.taps[f"block.{block}"], states[block + 1][0], rtol=1e-4, atol=1e-4)
    assert encoder.fingerprint == HubertFrames(str(hubert), ["block.1"]).fingerprint


def test_hubert_skips_windows_too_short_for_a_frame(hubert: Path):
    encoder = HubertFrames(str(hubert), ["block.0"])
    counts = [f.content for f in encoder([np.ones(n, np.float32) for n in (1, 399, 400, 720)])]
    assert counts == [1, 2]


def test_hubert_that_cannot_be_had(hubert: Path, tmp_path: Path):
    with pytest.raises(PackError, match=r"block\.3: .* has block\.0 to block\.2"):
        HubertFrames(str(hubert), ["block.3"])
    with pytest.raises(WeightsError, match="no HuBERT model that can be loaded"):
        HubertFrames(str(tmp_path), ["block.0"])


def test_every_tap_of_whisper_in_one_pass():
    encoder = WhisperFrames(weights("tiny.en"), ["all"])
    assert encoder.taps == ("block.0", "block.1", "block.2", "block.3", "encoder_output")
    (frames,) = encoder([sample("speech")])
    for tap in ("block.1", "encoder_output"):
        alone = WindowEncoder(weights("tiny.en"), tap)([sample("speech")])[0]
        torch.testing.assert_close(frames.taps[tap], alone, rtol=1e-3, atol=1e-3)
    assert frames.content == min(1500, -(-len(sample("speech")) // 320))
