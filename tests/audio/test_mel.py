"""The log mel of long recordings: faster-whisper's values, in less memory."""

import subprocess
import sys

import faster_whisper.feature_extractor
import numpy as np
import pytest

from tests.support.real_models import sample
from whisper_sae_steer.audio import mel
from whisper_sae_steer.audio.mel import FeatureExtractor

THEIRS = faster_whisper.feature_extractor.FeatureExtractor


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("samples", [1_000_000, 1_000_001, 1_000_159, 1_000_320, 1_113_840, 1_556_239])
def test_blocks_join_to_what_faster_whisper_computes_at_once(
    samples: int, n_mels: int, monkeypatch: pytest.MonkeyPatch
):
    audio = np.tile(sample("gap"), 2)[:samples]
    monkeypatch.setattr(mel, "LONG_FRAMES", 1000)
    monkeypatch.setattr(mel, "BLOCK_FRAMES", 700)
    theirs, ours = THEIRS(n_mels)(audio), FeatureExtractor(n_mels)(audio)
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2.5e-7)


def test_blocks_of_other_loudness_join_too(monkeypatch: pytest.MonkeyPatch):
    audio = np.tile(sample("gap"), 2)
    audio[:700_000] *= 0.01  # the first blocks have another maximum than the whole
    monkeypatch.setattr(mel, "LONG_FRAMES", 1000)
    monkeypatch.setattr(mel, "BLOCK_FRAMES", 700)
    np.testing.assert_allclose(FeatureExtractor()(audio), THEIRS()(audio), rtol=0, atol=2.5e-7)


def test_ten_minutes_are_the_librarys_own(monkeypatch: pytest.MonkeyPatch):
    audio = sample("gap")
    np.testing.assert_array_equal(FeatureExtractor()(audio), THEIRS()(audio))
    extractor = FeatureExtractor()
    monkeypatch.setattr(mel, "LONG_FRAMES", 1000)
    extractor(audio, chunk_length=15)
    assert extractor.nb_max_frames == 1500


def test_an_hour_takes_little_more_than_its_mel():
    """160 MB: 115 for the result and what a block takes. faster-whisper's takes 1.2 GB."""
    code = (
        "import resource, numpy as np; from whisper_sae_steer.audio.mel import FeatureExtractor;"
        "audio = np.zeros(3600 * 16_000, dtype=np.float32); audio[::7] = 0.1;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; mel = FeatureExtractor()(audio);"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, mel.nbytes / 2**20)"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    took, kept = map(float, printed.split())
    assert kept == pytest.approx(110, abs=1)
    assert took < kept + 150
