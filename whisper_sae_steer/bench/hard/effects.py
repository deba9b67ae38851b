"""What makes one utterance hard: noise, music, other speakers, level, telephone, room, clipping."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from scipy.signal import butter, fftconvolve, resample_poly, sosfilt

from ...audio.clips import Clip
from ...audio.mixing import mix
from ...audio.units import SAMPLE_RATE
from .material import HUMAN, Audio, Material, Mixture, background, lacking, load, peak, rms

BABBLERS = 8
"""Voices in a babble, each of another speaker."""
Effect: TypeAlias = Callable[[Audio, Clip, Material, np.random.Generator], Mixture]
"""Makes an utterance hard, given its samples and its clip."""


def _noisy(snr: float, kind: str) -> Effect:
    """At `snr` dB over clips of that kind; the ratio is that of `mixing.mix`."""

    def apply(voice: Audio, clip: Clip, given: Material, rng: np.random.Generator) -> Mixture:
        pool = [other for other in given.nonspeech if other.kind == kind and other.class_ != HUMAN]
        noise, clips = background(pool, len(voice), rng, kind)
        return mix(voice, noise, snr), clips

    return apply


def _babbling(snr: float) -> Effect:
    """At `snr` dB over BABBLERS other speakers, equally loud, each begun at a random place."""

    def apply(voice: Audio, clip: Clip, given: Material, rng: np.random.Generator) -> Mixture:
        others = {other.group: other for other in given.speech if other.group != clip.group}
        if len(others) < BABBLERS:
            raise lacking("babble", f"{BABBLERS + 1} speakers")
        chosen = [others[group] for group in rng.choice(sorted(others), BABBLERS, replace=False)]
        voices = [np.roll(load(other), rng.integers(SAMPLE_RATE * 60)) for other in chosen]
        babble = np.sum([np.resize(other / rms(other), len(voice)) for other in voices], axis=0)
        return mix(voice, babble, snr), tuple(chosen)

    return apply


def _alone(change: Callable[[Audio, np.random.Generator], Audio]) -> Effect:
    return lambda voice, clip, given, rng: (change(voice, rng).astype(np.float32), ())


def _at_peak(dbfs: float) -> Effect:
    return _alone(lambda voice, rng: voice * (10 ** (dbfs / 20) / peak(voice)))


def _telephone(voice: Audio, rng: np.random.Generator) -> Audio:
    """8 kHz, 300–3400 Hz, through 8 bits of µ-law (ITU-T G.711's curve, µ = 255), and back."""
    band = butter(4, (300, 3400), "bandpass", fs=8000, output="sos")
    narrow = np.clip(sosfilt(band, resample_poly(voice, 1, 2)), -1, 1)
    code = np.round(127 * np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256)) / 127
    restored = np.sign(code) * np.expm1(np.abs(code) * np.log(256)) / 255
    return np.clip(resample_poly(restored, 2, 1)[: len(voice)], -1, 1)


def _reverberant(rt60: float) -> Effect:
    """In a room of `rt60` seconds: direct sound, and as much energy in exponentially decaying noise.

    The last echoes follow the utterance; it keeps its peak.
    """

    def change(voice: Audio, rng: np.random.Generator) -> Audio:
        time = np.arange(round(rt60 * SAMPLE_RATE)) / SAMPLE_RATE
        response = rng.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
        response /= np.sqrt(np.sum(response**2))
        response[0] = 1.0
        echoing = fftconvolve(voice, response)
        return echoing * (peak(voice) / peak(echoing))

    return _alone(change)


def _clipped(voice: Audio, rng: np.random.Generator) -> Audio:
    """12 dB over full scale, cut off there."""
    return np.clip(voice * (10 ** (12 / 20) / peak(voice)), -1, 1)


EFFECTS: dict[str, Effect] = {
    "clean": _alone(lambda voice, rng: voice),
    "short": _alone(lambda voice, rng: voice),
    "single": _alone(lambda voice, rng: voice),
    **{f"snr{snr}": _noisy(snr, "nonspeech") for snr in (20, 10, 5, 0, -5)},
    **{f"music{snr}": _noisy(snr, "music") for snr in (10, 5, 0)},
    **{f"babble{snr}": _babbling(snr) for snr in (10, 0)},
    **{f"quiet{dbfs}": _at_peak(dbfs) for dbfs in (-20, -40, -50)},
    "telephone": _alone(_telephone),
    **{f"reverb{rt60}": _reverberant(rt60) for rt60 in (0.5, 1.0)},
    "clipped": _alone(_clipped),
}
