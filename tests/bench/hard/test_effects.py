from pathlib import Path

import numpy as np
import pytest

from tests.support.hard_cases import RATE, Audio, decibels, made
from whisper_sae_steer.audio.clips import Clip
from whisper_sae_steer.audio.reading import load_audio
from whisper_sae_steer.bench.hard.effects import EFFECTS
from whisper_sae_steer.bench.hard.material import HUMAN, HardRecording, Material


def parts(recording: HardRecording) -> tuple[Audio, Audio]:
    """Voice and background of a mixture: what is in line with the clean voice, and the rest."""
    clean = load_audio(recording.speech[0].path)
    gain = np.float32(recording.audio @ clean / (clean @ clean))
    return gain * clean, recording.audio - gain * clean


@pytest.mark.parametrize(
    ("condition", "snr"), [("snr20", 20), ("snr-5", -5), ("music5", 5), ("babble0", 0), ("babble10", 10)]
)
def test_mixtures_have_their_ratio(manifest: Path, condition: str, snr: float) -> None:
    for recording in made(manifest, condition):
        speech, rest = parts(recording)
        assert decibels(np.mean(speech**2) / np.mean(rest**2)) == pytest.approx(snr, abs=0.6)
        assert recording.background
        for clip in recording.background:
            kind = {"s": "nonspeech", "m": "music", "b": "speech"}[condition[0]]
            assert (clip.kind, clip.class_ == HUMAN) == (kind, False)
            assert clip.group != recording.speech[0].group
    assert len({len(recording.background) for recording in made(manifest, "babble0")}) == 1


def test_an_utterance_meets_the_same_noise_at_every_ratio(manifest: Path) -> None:
    for loud, soft in zip(made(manifest, "snr0"), made(manifest, "snr10"), strict=True):
        assert loud.background == soft.background
        assert np.corrcoef(parts(loud)[1], parts(soft)[1])[0, 1] > 0.999
    other = made(manifest, "snr0", seed=1)
    assert any(a.background != b.background for a, b in zip(other, made(manifest, "snr0"), strict=True))


def test_levels_and_clipping(manifest: Path) -> None:
    for dbfs in (-20, -40, -50):
        peaks = [np.abs(recording.audio).max() for recording in made(manifest, f"quiet{dbfs}")]
        assert peaks == pytest.approx([10 ** (dbfs / 20)] * 3, rel=1e-5)
    for recording in made(manifest, "clipped"):
        clean = load_audio(recording.speech[0].path)
        driven = clean * (10**0.6 / np.abs(clean).max())
        cut = np.abs(driven) > 1
        assert cut.mean() > 0.2
        np.testing.assert_allclose(recording.audio[~cut], driven[~cut], atol=1e-5)
        np.testing.assert_array_equal(recording.audio[cut], np.sign(driven[cut]))


def sine(hertz: float, dbfs: float) -> Audio:
    return (10 ** (dbfs / 20) * np.sin(2 * np.pi * hertz * np.arange(2 * RATE) / RATE)).astype(np.float32)


def through(condition: str, audio: Audio) -> Audio:
    clip = Clip(Path(), "", "", "speech", "", "", "", "", None)
    rng = np.random.default_rng(0)
    return EFFECTS[condition](audio, clip, Material([], []), rng)[0]


def test_telephone_has_the_band_and_the_noise_of_g711() -> None:
    def power(hertz: float) -> float:
        return decibels(np.mean(through("telephone", sine(hertz, -10))[4000:-4000] ** 2))

    assert power(1000) == pytest.approx(-13, abs=0.3)
    assert power(300) == pytest.approx(-16, abs=1)
    assert power(3400) == pytest.approx(-16, abs=1)
    assert power(100) < -40
    assert power(5000) < -60
    for dbfs in (-10, -40):
        heard = through("telephone", sine(1000, dbfs))[4000:-4000]
        spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard)))) ** 2
        peak = int(spectrum.argmax())
        signal = spectrum[peak - 3 : peak + 4].sum()
        # µ-law keeps 30 to 40 dB at every level; 8 linear bits would leave 12 dB at -40 dBFS
        assert 29 < decibels(signal / (spectrum.sum() - signal)) < 46


@pytest.mark.parametrize("rt60", [0.5, 1.0])
def test_reverberation_decays_by_60_db_in_its_time(rt60: float) -> None:
    click = np.zeros(RATE, np.float32)
    click[0] = 0.5
    response = through(f"reverb{rt60}", click)
    assert len(response) == RATE + round(rt60 * RATE) - 1
    assert (response.argmax(), response.max()) == (0, pytest.approx(0.5))
    tail = response[1 : round(rt60 * RATE)].astype(np.float64)
    assert decibels(np.sum(tail**2) / 0.25) == pytest.approx(0, abs=0.1)
    left = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1] / np.sum(tail**2))  # Schroeder's integral
    five, thirty = (int(np.argmax(left < -level)) for level in (5, 30))
    assert (thirty - five) / RATE * 60 / 25 == pytest.approx(rt60, rel=0.1)
