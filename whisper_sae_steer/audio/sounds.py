"""Recipes of sounds that hold no word: noise, hum, tones, clicks, telephone signals, wind.

Every recipe turns a random generator and a number of samples n into float64 [n] at 16 kHz, about
within ±1. `RECIPES` has them by the kind of sound; `synthetic.py` makes clips of them.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .units import SAMPLE_RATE

Audio: TypeAlias = npt.NDArray[np.float64]
Maker: TypeAlias = Callable[[np.random.Generator, int], Audio]

LOUDEST, QUIETEST = -6.0, -70.0  # dBFS, RMS
EDGE_SAMPLES = SAMPLE_RATE * 5 // 1000
"""Samples over which a sound that is switched rises or falls: 5 ms."""
CLICK_SAMPLES = SAMPLE_RATE * 60 // 1000
"""Samples of one click: 60 ms."""
BUMP_SAMPLES = SAMPLE_RATE * 300 // 1000
"""Samples of one bump against a microphone: 300 ms."""


# ---- parts


def _time(n: int) -> Audio:
    """Time of every sample in seconds, [n]."""
    return np.arange(n) / SAMPLE_RATE


def _level(rng: np.random.Generator, low: float = QUIETEST, high: float = LOUDEST) -> float:
    return float(rng.uniform(low, high))


def _at_level(x: Audio, dbfs: float) -> Audio:
    """`x` scaled to an RMS of `dbfs`, or to a peak of 0.99 where that would clip."""
    rms = float(np.sqrt(np.mean(np.square(x))))
    if rms == 0:
        return x
    gain = 10 ** (dbfs / 20) / rms
    return x * min(gain, 0.99 / float(np.max(np.abs(x))))


def _shaped(rng: np.random.Generator, n: int, gain: Callable[[Audio], Audio]) -> Audio:
    """Gaussian noise whose amplitude spectrum follows `gain` of the frequency in Hz."""
    bins = n // 2
    hertz = np.linspace(0, bins * SAMPLE_RATE / n, bins + 1, dtype=np.float64)
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * gain(hertz), n)


def _coloured(rng: np.random.Generator, n: int, slope: float) -> Audio:
    """Noise with power ∝ f^slope above 20 Hz: 0 white, −1 pink, −2 brown, 1 blue."""
    return _shaped(rng, n, lambda f: np.where(f < 20, 0.0, np.maximum(f, 20) ** (slope / 2)))


def _below(rng: np.random.Generator, n: int, hertz: float) -> Audio:
    """Noise under a fourth-order low-pass at `hertz`, RMS 1."""
    x = _shaped(rng, n, lambda f: 1 / np.sqrt(1 + (f / hertz) ** 8))
    return x / max(float(np.std(x)), 1e-12)


def _swell(rng: np.random.Generator, n: int, hertz: float) -> Audio:
    """A slow random envelope between 0 and 1 that moves at about `hertz`."""
    return (1 + np.tanh(_below(rng, n, hertz))) / 2


def _floor(rng: np.random.Generator, n: int, dbfs: float) -> Audio:
    return _at_level(_coloured(rng, n, -1), dbfs)


def _events(n: int, starts: Audio, sound: Audio) -> Audio:
    """`sound` added at every start (in seconds) that falls inside the clip."""
    hits = np.zeros(n)
    at = np.asarray(starts * SAMPLE_RATE, dtype=np.int64)
    np.add.at(hits, at[at < n], 1.0)
    size = n + len(sound) - 1
    return np.fft.irfft(np.fft.rfft(hits, size) * np.fft.rfft(sound, size), size)[:n]


def _poisson(rng: np.random.Generator, n: int, rate: float) -> Audio:
    """Random times in seconds, `rate` a second on average, at least one."""
    return rng.uniform(0, n / SAMPLE_RATE, max(1, rng.poisson(rate * n / SAMPLE_RATE)))


def _cadence(n: int, on: float, off: float) -> Audio:
    """1 for `on` seconds, 0 for `off` seconds, repeated, with 5 ms edges."""
    gate = (_time(n) % (on + off) < on).astype(np.float64)
    edge = np.ones(EDGE_SAMPLES) / EDGE_SAMPLES
    return np.convolve(gate, edge)[:n]


def _tones(n: int, *hertz: float) -> Audio:
    return np.sum([np.sin(2 * np.pi * f * _time(n)) for f in hertz], axis=0)


def _gliding(frequency: Audio) -> Audio:
    """A sine whose frequency in Hz is given for every sample."""
    return np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE)


# ---- kinds


def _silence(rng: np.random.Generator, n: int) -> Audio:
    return np.zeros(n)


def _dc(rng: np.random.Generator, n: int) -> Audio:
    offset = rng.choice([-1, 1]) * 10 ** (_level(rng, -60, -6) / 20)
    return offset + _at_level(rng.standard_normal(n), -80)


def _dither(rng: np.random.Generator, n: int) -> Audio:
    steps = int(rng.integers(1, 5))
    return np.round(rng.triangular(-steps, 0, steps, n)) / 32768


def _noise(slope: float) -> Maker:
    return lambda rng, n: _at_level(_coloured(rng, n, slope), _level(rng))


def _band(rng: np.random.Generator, n: int) -> Audio:
    low = float(np.exp(rng.uniform(np.log(60), np.log(4000))))
    high = min(low * float(rng.uniform(1.2, 6)), 7900)
    x = _shaped(rng, n, lambda f: ((f >= low) & (f <= high)).astype(np.float64))
    return _at_level(x, _level(rng))


def _hum(rng: np.random.Generator, n: int) -> Audio:
    mains = float(rng.choice([50.0, 60.0])) * (1 + 1e-3 * float(rng.standard_normal()))
    x = np.zeros(n)
    for harmonic in range(1, int(rng.integers(2, 20))):
        phase = rng.uniform(0, 2 * np.pi)
        x += np.sin(2 * np.pi * mains * harmonic * _time(n) + phase) * rng.uniform() / harmonic
    return _at_level(x, _level(rng, -60)) + _floor(rng, n, _level(rng, -90, -55))


def _tone(rng: np.random.Generator, n: int) -> Audio:
    hertz = float(np.exp(rng.uniform(np.log(80), np.log(7000))))
    return _at_level(_tones(n, hertz), _level(rng, -60))


def _chirp(rng: np.random.Generator, n: int) -> Audio:
    start, stop = np.exp(rng.uniform(np.log(60), np.log(7500), 2))
    period = float(rng.uniform(0.3, 10))
    phase = (_time(n) % period) / period
    return _at_level(_gliding(start * (stop / start) ** phase), _level(rng, -55))


def _siren(rng: np.random.Generator, n: int) -> Audio:
    middle, depth = rng.uniform(500, 1200), rng.uniform(0.1, 0.4)
    sweep = np.sin(2 * np.pi * rng.uniform(0.2, 4) * _time(n))
    x = np.tanh(2 * _gliding(middle * (1 + depth * sweep)))
    return _at_level(x, _level(rng, -50)) + _floor(rng, n, _level(rng, -80, -50))


def _click(rng: np.random.Generator) -> Audio:
    """A damped knock or click of up to 60 ms."""
    t = _time(CLICK_SAMPLES)
    ring = np.sin(2 * np.pi * rng.uniform(100, 5000) * t) + 0.3 * rng.standard_normal(CLICK_SAMPLES)
    return ring * np.exp(-t / rng.uniform(0.001, 0.012))


def _clicks(rng: np.random.Generator, n: int) -> Audio:
    x = _events(n, _poisson(rng, n, float(rng.uniform(0.3, 6))), _click(rng))
    return _at_level(x, _level(rng, -55, -20)) + _floor(rng, n, _level(rng, -85, -50))


def _ticking(rng: np.random.Generator, n: int) -> Audio:
    starts = np.arange(0, n / SAMPLE_RATE, float(rng.uniform(0.05, 1.2)))
    x = _events(n, starts, _click(rng))
    return _at_level(x, _level(rng, -55, -20)) + _floor(rng, n, _level(rng, -85, -50))


def _impulses(rng: np.random.Generator, n: int) -> Audio:
    x = np.zeros(n)
    x[:: int(rng.integers(EDGE_SAMPLES, SAMPLE_RATE))] = 10 ** (_level(rng, -40, 0) / 20)
    return x


def _crackle(rng: np.random.Generator, n: int) -> Audio:
    drops = (rng.uniform(size=n) < rng.uniform(0.0005, 0.02)) * rng.standard_normal(n) ** 3
    return _at_level(drops, _level(rng, -60, -20)) + _floor(rng, n, _level(rng, -85, -50))


def _fade(rng: np.random.Generator, n: int) -> Audio:
    x = _at_level(_coloured(rng, n, float(rng.choice([0, -1, -2]))), _level(rng, -40))
    ramp = np.linspace(-float(rng.uniform(30, 80)), 0, n)
    return x * 10 ** ((ramp if rng.uniform() < 0.5 else ramp[::-1]) / 20)


def _line(on: float, off: float, *hertz: float) -> Maker:
    """A telephone tone with its cadence over line noise."""

    def make(rng: np.random.Generator, n: int) -> Audio:
        x = _tones(n, *hertz) * _cadence(n, on, off)
        return _at_level(x, _level(rng, -40, -10)) + _floor(rng, n, _level(rng, -80, -45))

    return make


def _dtmf(rng: np.random.Generator, n: int) -> Audio:
    rows, columns = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
    on, off = float(rng.uniform(0.06, 0.3)), float(rng.uniform(0.05, 1.5))
    x = np.zeros(n)
    for start in np.arange(0, n / SAMPLE_RATE, on + off):
        at = int(start * SAMPLE_RATE)
        size = min(int(on * SAMPLE_RATE), n - at)
        x[at : at + size] = _tones(size, float(rng.choice(rows)), float(rng.choice(columns)))
    return _at_level(x, _level(rng, -40, -12)) + _floor(rng, n, _level(rng, -80, -45))


def _beeps(rng: np.random.Generator, n: int) -> Audio:
    on, off = float(rng.uniform(0.05, 0.8)), float(rng.uniform(0.1, 4))
    x = _tones(n, float(rng.uniform(400, 3500))) * _cadence(n, on, off)
    return _at_level(x, _level(rng, -50, -12)) + _floor(rng, n, _level(rng, -85, -45))


def _bursts(rng: np.random.Generator, n: int) -> Audio:
    x = _coloured(rng, n, float(rng.choice([0, -1, -2])))
    gate = _cadence(n, float(rng.uniform(0.03, 0.8)), float(rng.uniform(0.3, 6)))
    return _at_level(x * gate, _level(rng, -60, -12))


def _wind(rng: np.random.Generator, n: int) -> Audio:
    x = _below(rng, n, float(rng.uniform(80, 600))) * _swell(rng, n, float(rng.uniform(0.1, 1)))
    return _at_level(x, _level(rng, -60)) + _floor(rng, n, _level(rng, -85, -50))


def _clipped(rng: np.random.Generator, n: int) -> Audio:
    x = _coloured(rng, n, float(rng.choice([0, -1, -2])))
    peak = 10 ** (_level(rng, -30, 0) / 20)
    return np.clip(x / np.std(x) * float(rng.uniform(1, 20)), -1, 1) * peak


def _room(rng: np.random.Generator, n: int) -> Audio:
    """What a microphone left on records: hiss, hum, slow air, a bump now and then."""
    x = _floor(rng, n, _level(rng, -65, -35))
    x += _at_level(_tones(n, 50, 100, 150), _level(rng, -80, -50))
    x += _at_level(_below(rng, n, 120) * _swell(rng, n, 0.2), _level(rng, -65, -40))
    bump = _below(rng, BUMP_SAMPLES, 300) * np.exp(-_time(BUMP_SAMPLES) / 0.06)
    return x + _at_level(_events(n, _poisson(rng, n, 0.2), bump), _level(rng, -65, -40))


def _engine(rng: np.random.Generator, n: int) -> Audio:
    firing = float(rng.uniform(20, 120)) * (1 + 0.3 * (_swell(rng, n, 0.2) - 0.5))
    x = np.zeros(n)
    for harmonic in range(1, 13):
        x += _gliding(firing * harmonic) * float(rng.uniform(0.2, 1)) / harmonic
    return _at_level(x + 0.3 * _below(rng, n, 1500), _level(rng, -50))


def _melody(rng: np.random.Generator, n: int) -> Audio:
    """Plucked notes of a pentatonic scale, as a music box or hold music plays them."""
    step, root = float(rng.uniform(0.15, 0.6)), float(rng.uniform(200, 500))
    beats = np.arange(0, n / SAMPLE_RATE, step)
    pitch = rng.choice([0, 2, 4, 7, 9, 12], len(beats))
    size = int(4 * step * SAMPLE_RATE)
    x = np.zeros(n)
    for note in set(pitch.tolist()):
        hertz = root * 2 ** (note / 12)
        sound = _tones(size, hertz, 2 * hertz, 3 * hertz) * np.exp(-_time(size) / step)
        x += _events(n, beats[pitch == note], sound)
    return _at_level(x, _level(rng, -45, -12))


RECIPES: dict[str, Maker] = {
    "silence": _silence,
    "white": _noise(0),
    "hum": _hum,
    "clicks": _clicks,
    "pink": _noise(-1),
    "tone": _tone,
    "room": _room,
    "beeps": _beeps,
    "brown": _noise(-2),
    "wind": _wind,
    "dc": _dc,
    "band": _band,
    "chirp": _chirp,
    "bursts": _bursts,
    "blue": _noise(1),
    "fade": _fade,
    "dial": _line(1e9, 0, 350, 440),
    "busy": _line(0.5, 0.5, 480, 620),
    "ring": _line(2, 4, 440, 480),
    "dtmf": _dtmf,
    "dither": _dither,
    "clipped": _clipped,
    "ticking": _ticking,
    "impulses": _impulses,
    "crackle": _crackle,
    "engine": _engine,
    "siren": _siren,
    "melody": _melody,
}
