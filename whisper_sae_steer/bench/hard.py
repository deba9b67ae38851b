"""Hard cases for the bench: clean utterances made hard in one known way each, and sounds without speech.

A recording depends only on the seed, its condition and the clips it is made from. An utterance
meets the same noise at every SNR, and `silent-gaps` are the `gaps` without their noise, so
conditions differ in nothing but what their names say.
"""

import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import cycle
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, resample_poly, sosfilt

from ..audio import synthetic
from ..audio.clips import Clip, spread
from ..audio.mixing import mix
from ..audio.reading import load_audio
from ..audio.units import SAMPLE_RATE
from ..errors import ManifestError

Audio: TypeAlias = NDArray[np.float32]

HUMAN = "human-nonverbal"
"""Class of crying, sneezing and the like, which is never put under speech."""
SHORT_WORDS = 4
"""The longest transcript of the condition `short`."""
BABBLERS = 8
"""Voices in a babble, each of another speaker."""
GAP_SECONDS = (1.0, 60.0)
GAP_DB = (-30.0, -5.0)
"""Level of the sound in a gap, relative to the speech of the recording."""
FRAME = SAMPLE_RATE // 50
EDGE_DB = -40.0
"""A sound begins and ends with a 20 ms frame at this level or above, relative to the loudest."""


class Material(NamedTuple):
    """What recordings are made from."""

    speech: Sequence[Clip]
    """Utterances with a transcript, in the order they are used."""
    nonspeech: Sequence[Clip]
    """Noise and music."""
    seed: int = 0

    def rng(self, *names: object) -> np.random.Generator:
        """A generator that depends on the seed and on what it is for."""
        return np.random.default_rng([self.seed, zlib.crc32(repr(names).encode())])


class Recording(NamedTuple):
    """One hard case: `audio` is float32 [n] mono at 16 kHz, within ±1."""

    audio: Audio
    speech: tuple[Clip, ...] = ()
    """The utterances to transcribe, in order; none in a recording without speech."""
    background: tuple[Clip, ...] = ()
    """Other clips that can be heard."""
    gaps: tuple[tuple[float, float], ...] = ()
    """Start and end in seconds of what lies before, between and after several utterances."""


class Job(NamedTuple):
    """A recording to be made."""

    condition: str
    kind: str
    name: str
    make: Callable[[], Recording]


class Dialogue(NamedTuple):
    """Utterances with gaps: between `shortest` and `longest` seconds, and how many at most are made."""

    shortest: float
    longest: float
    most: int
    silent: bool = False


Heard: TypeAlias = tuple[Audio, tuple[Clip, ...]]
"""Samples, and the clips that make their background."""
Effect: TypeAlias = Callable[[Audio, Clip, Material, np.random.Generator], Heard]
"""Makes an utterance hard, given its samples and its clip."""


def material(clips: Sequence[Clip], language: str | None = None, seed: int = 0) -> Material:
    """Sort clips: speech that has a transcript, in `language` if given, and all non-speech."""
    speech = [clip for clip in clips if clip.kind == "speech" and clip.text]
    speech = [clip for clip in speech if language in (None, clip.language)]
    return Material(spread(speech), [clip for clip in clips if clip.kind != "speech"], seed)


def jobs(condition: str, given: Material, count: int) -> list[Job]:
    """The first `count` recordings of one of CONDITIONS, fewer where utterances run out.

    Raises ManifestError if there is no utterance for it; making a recording raises it too, if there
    is no noise, music or not enough speakers.
    """
    if condition in SOUNDS:
        make = partial(_sound, SOUNDS[condition], given.seed)
        return [Job(condition, "nonspeech", f"{i:04d}", partial(make, i)) for i in range(count)]
    utterances = given.speech
    if condition == "short":
        utterances = sorted((clip for clip in utterances if _words(clip) <= SHORT_WORDS), key=_words)
    if not utterances:
        raise _lacking(condition, "fitting speech with transcripts")
    if condition in DIALOGUES:
        make = partial(_dialogue, DIALOGUES[condition], given)
        count = min(count, DIALOGUES[condition].most)
        return [Job(condition, "speech", f"{i:04d}", partial(make, i)) for i in range(count)]
    make = partial(_utterance, EFFECTS[condition], given)
    return [
        Job(condition, "speech", f"{i:04d}-{clip.path.stem}", partial(make, clip))
        for i, clip in enumerate(utterances[:count])
    ]


def _utterance(effect: Effect, given: Material, clip: Clip) -> Recording:
    audio, background = effect(_load(clip), clip, given, given.rng(clip.key))
    return Recording(audio, (clip,), background)


def _sound(kind: str, seed: int, index: int) -> Recording:
    # other seeds than calibration's, or these would be sounds it has heard
    return Recording(synthetic.clip(kind, index, zlib.crc32(b"hard %d" % seed), (1, 60)).audio)


# ---- effects on one utterance


def _noisy(snr: float, kind: str) -> Effect:
    """At `snr` dB over clips of that kind; the ratio is that of `mixing.mix`."""

    def apply(voice: Audio, clip: Clip, given: Material, rng: np.random.Generator) -> Heard:
        pool = [other for other in given.nonspeech if other.kind == kind and other.class_ != HUMAN]
        noise, heard = _background(pool, len(voice), rng, kind)
        return mix(voice, noise, snr), heard

    return apply


def _babbling(snr: float) -> Effect:
    """At `snr` dB over BABBLERS other speakers, equally loud, each begun at a random place."""

    def apply(voice: Audio, clip: Clip, given: Material, rng: np.random.Generator) -> Heard:
        others = {other.group: other for other in given.speech if other.group != clip.group}
        if len(others) < BABBLERS:
            raise _lacking("babble", f"{BABBLERS + 1} speakers")
        chosen = [others[group] for group in rng.choice(sorted(others), BABBLERS, replace=False)]
        voices = [np.roll(_load(other), rng.integers(SAMPLE_RATE * 60)) for other in chosen]
        babble = np.sum([np.resize(other / _rms(other), len(voice)) for other in voices], axis=0)
        return mix(voice, babble, snr), tuple(chosen)

    return apply


def _alone(change: Callable[[Audio, np.random.Generator], Audio]) -> Effect:
    return lambda voice, clip, given, rng: (change(voice, rng).astype(np.float32), ())


def _at_peak(dbfs: float) -> Effect:
    return _alone(lambda voice, rng: voice * (10 ** (dbfs / 20) / _peak(voice)))


def _telephone(voice: Audio, rng: np.random.Generator) -> Audio:
    """8 kHz, 300–3400 Hz, through 8 bits of µ-law (ITU-T G.711's curve, µ = 255), and back."""
    band = butter(4, (300, 3400), "bandpass", fs=8000, output="sos")
    narrow = np.clip(sosfilt(band, resample_poly(voice, 1, 2)), -1, 1)
    code = np.round(127 * np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256)) / 127
    heard = np.sign(code) * np.expm1(np.abs(code) * np.log(256)) / 255
    return np.clip(resample_poly(heard, 2, 1)[: len(voice)], -1, 1)


def _reverberant(rt60: float) -> Effect:
    """In a room of `rt60` seconds: direct sound, and as much energy in exponentially decaying noise.

    The last echoes follow the utterance; it keeps its peak.
    """

    def change(voice: Audio, rng: np.random.Generator) -> Audio:
        time = np.arange(round(rt60 * SAMPLE_RATE)) / SAMPLE_RATE
        response = rng.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
        response /= np.sqrt(np.sum(response**2))
        response[0] = 1.0
        heard = fftconvolve(voice, response)
        return heard * (_peak(voice) / _peak(heard))

    return _alone(change)


def _clipped(voice: Audio, rng: np.random.Generator) -> Audio:
    """12 dB over full scale, cut off there."""
    return np.clip(voice * (10 ** (12 / 20) / _peak(voice)), -1, 1)


# ---- several utterances


def _dialogue(case: Dialogue, given: Material, number: int) -> Recording:
    """Gap, utterance, gap, …, gap, until it is as long as drawn; lengths of gaps are log-uniform."""
    rng = given.rng("dialogue", case.longest, number)
    target = rng.uniform(case.shortest, case.longest) * SAMPLE_RATE
    pool = _speakers(given.speech, case.longest / 20, rng)
    order = cycle(rng.permutation(len(pool)).tolist())
    pauses, clips, voices = [_pause(rng)], list[Clip](), list[Audio]()
    while sum(pauses) + sum(map(len, voices)) < target:
        clips.append(pool[next(order)])
        voices.append(_trimmed(_load(clips[-1])))
        pauses.append(_pause(rng))
    loudness = _rms(np.concatenate(voices))
    sounds = [_gap(samples, loudness, given, rng, case.silent) for samples in pauses]
    parts: list[Audio] = []
    gaps: list[tuple[float, float]] = []
    at = 0
    for (sound, _), voice in zip(sounds, [*voices, np.zeros(0, np.float32)], strict=True):
        parts += [sound, voice]
        gaps.append((at / SAMPLE_RATE, (at + len(sound)) / SAMPLE_RATE))
        at += len(sound) + len(voice)
    # a bark too loud for the recording is cut off, as a recorder does: speech keeps its level
    audio = np.clip(np.concatenate(parts), -1, 1)
    background = tuple(clip for _, heard in sounds for clip in heard)
    return Recording(audio, tuple(clips), background, tuple(gaps))


def _speakers(speech: Sequence[Clip], enough: float, rng: np.random.Generator) -> list[Clip]:
    """Utterances of one language; half the time of one speaker, if any has `enough` utterances."""
    language = speech[int(rng.integers(len(speech)))].language
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in speech:
        if clip.language == language:
            groups[clip.group].append(clip)
    talkative = [clips for clips in groups.values() if len(clips) >= enough]
    if talkative and rng.random() < 0.5:
        return talkative[int(rng.integers(len(talkative)))]
    return [clip for clips in groups.values() for clip in clips]


def _pause(rng: np.random.Generator) -> int:
    """Samples of a gap, whole frames: so are utterances, and times come out exact."""
    low, high = np.log(GAP_SECONDS)
    return round(np.exp(rng.uniform(low, high)) * SAMPLE_RATE / FRAME) * FRAME


def _gap(samples: int, loudness: float, given: Material, rng: np.random.Generator, silent: bool) -> Heard:
    """Real sound for a gap, faded in and out over 10 ms so that its edges don't click; or silence."""
    if silent:
        return np.zeros(samples, np.float32), ()
    noise, heard = _background(given.nonspeech, samples, rng, "non-speech")
    level = loudness * 10 ** (rng.uniform(*GAP_DB) / 20)
    ramp = np.minimum(1, np.minimum(np.arange(samples), np.arange(samples)[::-1]) / (FRAME / 2))
    return (noise * ramp * (level / _rms(noise))).astype(np.float32), heard


# ---- parts


def _background(pool: Sequence[Clip], samples: int, rng: np.random.Generator, what: str) -> Heard:
    """`samples` of one class of sound: clips in random order, each at RMS 1, as many as it takes."""
    if not pool:
        raise _lacking("with this background", what)
    classes = sorted({clip.class_ for clip in pool})
    class_ = classes[int(rng.integers(len(classes)))]
    members = [clip for clip in pool if clip.class_ == class_]
    parts: list[Audio] = []
    heard: list[Clip] = []
    order = cycle(rng.permutation(len(members)).tolist())
    while sum(map(len, parts)) < samples:
        heard.append(members[next(order)])
        audio = _trimmed(_load(heard[-1]))  # or a short piece may be the silence before the sound
        parts.append(audio / _rms(audio))
    return np.concatenate(parts)[:samples], tuple(heard)


def _trimmed(audio: Audio) -> Audio:
    """A sound from its first to its last frame above EDGE_DB; whole frames."""
    frames = np.pad(audio, (0, -len(audio) % FRAME)).reshape(-1, FRAME)
    power = np.mean(frames**2, axis=1)
    (loud,) = np.nonzero(power >= power.max() * 10 ** (EDGE_DB / 10))
    return frames[loud[0] : loud[-1] + 1].ravel()


@lru_cache(128)
def _load(clip: Clip) -> Audio:
    return load_audio(clip.path)


def _rms(audio: Audio) -> float:
    """Root of the mean power, at least that of one step of 16 bits: silence stays silence."""
    return max(float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))), 2**-15)


def _peak(audio: NDArray[np.floating]) -> float:
    return max(float(np.abs(audio).max()), 2**-15)


def _words(clip: Clip) -> int:
    return len(clip.text.split())


def _lacking(condition: str, what: str) -> ManifestError:
    return ManifestError(f"condition {condition}: no {what} in the manifest; leave it out with --conditions")


EFFECTS: dict[str, Effect] = {
    "clean": _alone(lambda voice, rng: voice),
    "short": _alone(lambda voice, rng: voice),
    **{f"snr{snr}": _noisy(snr, "nonspeech") for snr in (20, 10, 5, 0, -5)},
    **{f"music{snr}": _noisy(snr, "music") for snr in (10, 5, 0)},
    **{f"babble{snr}": _babbling(snr) for snr in (10, 0)},
    **{f"quiet{dbfs}": _at_peak(dbfs) for dbfs in (-20, -40, -50)},
    "telephone": _alone(_telephone),
    **{f"reverb{rt60}": _reverberant(rt60) for rt60 in (0.5, 1.0)},
    "clipped": _alone(_clipped),
}
DIALOGUES = {
    "gaps": Dialogue(120, 240, 20),
    "silent-gaps": Dialogue(120, 240, 20, silent=True),
    "long": Dialogue(1740, 1800, 2),
}
SOUNDS = {"silence": "silence", "dc": "dc", "hum": "hum", "white-noise": "white"}
CONDITIONS = (*EFFECTS, *DIALOGUES, *SOUNDS)
