"""What fills a gap: silence, or sound at a level relative to the speech."""

import numpy as np

from ...audio.clips import NONSPEECH_KINDS
from .material import FRAME, Audio, Material, Mixture, background, rms

FILLINGS = {"silence": (), "noise": ("nonspeech",), "music": ("music",), "sound": NONSPEECH_KINDS}
"""Fillings by name: the kinds of clips that each is made from."""
GAP_DB = (-30.0, -5.0)
"""Level of the sound in a gap, relative to the speech of the recording."""


def filling(name: str, samples: int, loudness: float, given: Material, rng: np.random.Generator) -> Mixture:
    """One of FILLINGS for a gap of that many samples beside speech of that RMS."""
    kinds = FILLINGS[name]
    if not kinds:
        return np.zeros(samples, np.float32), ()
    pool = [clip for clip in given.nonspeech if clip.kind in kinds]
    sound, clips = background(pool, samples, rng, " or ".join(kinds))
    return beside(sound, loudness, GAP_DB, rng), clips


def beside(sound: Audio, loudness: float, decibels: tuple[float, float], rng: np.random.Generator) -> Audio:
    """A sound as many decibels above speech of that RMS as is drawn.

    It is faded in and out over 10 ms, so that its edges don't click.
    """
    level = loudness * 10 ** (rng.uniform(*decibels) / 20)
    places = np.arange(len(sound))
    ramp = np.minimum(1, np.minimum(places, places[::-1]) / (FRAME / 2))
    return (sound * ramp * (level / rms(sound))).astype(np.float32)
