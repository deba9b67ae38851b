"""SAEs on HuBERT: AudioSAE's layout on the layers of a small random HuBERT."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import wavfile
from torch import nn
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

import whisper_sae_steer
from tests.support.small_saes import write_folder
from whisper_sae_steer.analysis.store.activations import ActivationStore
from whisper_sae_steer.analysis.store.hubert import hubert_activations
from whisper_sae_steer.cli import main
from whisper_sae_steer.errors import AudioError, PackError, SAEFormatError, WeightsError
from whisper_sae_steer.sae.formats import load_sae, save_sae

WIDTH, FEATURES, K = 32, 8192, 50


@pytest.fixture(scope="module")
def hubert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Laid out as HuBERT-large is, layer norms before each block, but small."""
    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=WIDTH, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64,
        do_stable_layer_norm=True, feat_extract_norm="layer", conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "hubert"
    HubertModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers 2 and 3 as AudioSAE publishes them: ``ae.pt`` and ``config.json``, no threshold."""
    root = tmp_path_factory.mktemp("hub") / "Audio-SAE-HuBERT-large"
    torch.manual_seed(1)
    for layer in (2, 3):
        write_layer(root / f"layer_{layer}", FEATURES)
    return root


def write_layer(folder: Path, features: int) -> Path:
    """One layer's SAE, random."""
    directions = nn.functional.normalize(torch.randn(features, WIDTH), dim=-1)
    state = {
        "encoder.weight": directions, "encoder.bias": torch.zeros(features),
        "decoder.weight": directions.T.contiguous(), "b_dec": torch.zeros(WIDTH), "k": torch.tensor(K),
    }  # fmt: skip
    return write_folder(folder, state, {"activation_dim": WIDTH, "dict_size": features, "k": K})


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.1 * rng.normal(size=round(16_000 * seconds))).astype(np.float32)


def states(hubert: Path, audio: np.ndarray) -> tuple[torch.Tensor, ...]:
    """What transformers itself gives."""
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(hubert)
    inputs = extractor(audio, sampling_rate=16_000, return_tensors="pt").input_values
    with torch.no_grad():
        return HubertModel.from_pretrained(hubert).eval()(inputs, output_hidden_states=True).hidden_states


@torch.no_grad()
def test_the_example(hubert: Path, repository: Path):
    """HuBERT tapped after a block, a checkpoint without a threshold, features of one recording."""
    acts = hubert_activations(str(hubert), noise(3), block=1)
    assert acts.shape == (1, 149, WIDTH)
    torch.testing.assert_close(acts, states(hubert, noise(3))[2], rtol=1e-4, atol=1e-4)
    sae = whisper_sae_steer.from_pretrained(repository, 2, calibrate_on=acts)
    assert (sae.config.tap, sae.config.model) == ("block.1", "facebook/hubert-large-ll60k")
    features = sae.encode(acts, use_threshold=True)
    assert features.shape == (1, 149, FEATURES)
    assert (features > 0).sum(-1).float().mean().item() == pytest.approx(K, abs=0.01)
    pre = torch.relu(acts @ sae.W_enc)
    kept = pre.flatten().topk(K * 149).values[-1]
    assert torch.equal(features > 0, pre >= kept)
    with pytest.raises(SAEFormatError, match="has no threshold"):
        whisper_sae_steer.from_pretrained(repository, 2).encode(acts, use_threshold=True)


def test_long_audio_is_read_in_windows_without_losing_frames(hubert: Path):
    audio = noise(65)
    acts = hubert_activations(str(hubert), audio, block=0)
    assert acts.shape == (1, 3249, WIDTH)  # (65 · 16000 - 400) // 320 + 1
    second = states(hubert, audio[480_000:960_080])[1]
    torch.testing.assert_close(acts[:, 1500:3000], second, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("samples", "frames"), [(480_000, 1499), (480_079, 1499), (480_080, 1500), (480_400, 1501)]
)
def test_rest_of_a_window(hubert: Path, samples: int, frames: int):
    assert hubert_activations(str(hubert), noise(31)[:samples], block=0).shape[1] == frames


def test_errors(hubert: Path, tmp_path: Path):
    with pytest.raises(PackError, match=r"block\.4: hubert has block\.0 to block\.3"):
        hubert_activations(str(hubert), noise(1), block=4)
    with pytest.raises(AudioError, match="399 samples are less than one frame"):
        hubert_activations(str(hubert), noise(1)[:399], block=0)
    with pytest.raises(WeightsError, match="no HuBERT model"):
        hubert_activations(str(tmp_path), noise(1), block=0)


def test_commands_read_hubert(hubert: Path, tmp_path: Path):
    """Recordings to a store with features of two layers, and how far those are the same."""
    for i in range(3):
        folder = tmp_path / "sound" / "noise"
        folder.mkdir(parents=True, exist_ok=True)
        wavfile.write(folder / f"{i}.wav", 16_000, noise(2 + i, i))
    store = tmp_path / "store"
    torch.manual_seed(2)
    saes = [str(write_layer(tmp_path / name, 400)) for name in ("layer_2", "layer_3")]
    assert main(["analyze", "encode", f"sound={tmp_path / 'sound'}", "--hubert", str(hubert),
                 "--sae", *saes, "--out", str(store), "--device", "cpu"]) == 0  # fmt: skip
    opened = ActivationStore.open(store)
    assert {"block.1", "block.2"} <= set(opened.taps)
    assert opened.rows == 99 + 149 + 199
    for name, tap in (("layer_2", "block.1"), ("layer_3", "block.2")):
        assert opened.sae(name).config.tap == tap
        features = opened.features(name)
        assert features.shape == (opened.rows, 400)
        assert features.nnz / opened.rows == pytest.approx(K, abs=1)
    with torch.no_grad():
        again = opened.sae("layer_2").encode(torch.from_numpy(opened.frames("block.1")).float())
    np.testing.assert_allclose(opened.features("layer_2").toarray(), again.numpy(), atol=1e-6)
    out = tmp_path / "out"
    assert main(["analyze", "stability", f"{store}:layer_2", f"{store}:layer_3", "--out", str(out)]) == 0
    (pair,) = json.loads((out / "stability.json").read_text())["pairs"]
    assert (pair["kind"], pair["frames"]) == ("other layer", opened.rows)


def test_a_calibrated_checkpoint_is_kept(repository: Path, tmp_path: Path):
    acts = torch.randn(1, 40, WIDTH)
    sae = load_sae(repository / "layer_3", calibrate_on=acts)
    save_sae(sae, tmp_path / "kept")
    assert torch.equal(load_sae(tmp_path / "kept").encode(acts), sae.encode(acts))
