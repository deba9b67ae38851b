"""Minutes of utterances, with gaps before, between and after them or without any."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import count, cycle, islice
from typing import NamedTuple

import numpy as np

from ...audio.clips import Clip
from ...audio.units import SAMPLE_RATE
from .assembly import Part, assembled
from .fillings import filling
from .material import HardRecording, Material, pick, rms, sentences, whole_frames, words

GAP_SECONDS = (1.0, 60.0)
PAUSE_SECONDS = (0.2, 0.6)
"""Silence between utterances that follow one another without a gap."""


class Dialogue(NamedTuple):
    """Utterances of one language, with gaps or without, until a time drawn between two is reached."""

    shortest: float
    """The earliest such time, in seconds."""
    longest: float
    """The latest one; the last utterances, and the gap after them, come on top."""
    most: int
    """How many recordings are made at most."""
    fillings: tuple[str, ...] = ("sound",)
    """What each gap is filled with: one of these FILLINGS. With none of them there are no gaps."""
    in_a_row: tuple[int, int] = (1, 1)
    """Fewest and most utterances from one gap to the next."""
    sentences: bool = False
    """Only utterances of at least SENTENCE_WORDS words."""
    single_words: float = 0
    """Share of utterances that are one word instead, in languages that have such utterances."""
    gap_seconds: tuple[float, float] = GAP_SECONDS
    """Shortest and longest gap."""


def dialogue(case: Dialogue, given: Material, number: int) -> HardRecording:
    """Gap, utterances, gap, …, gap, or all utterances in a row; lengths of gaps are log-uniform."""
    rng = given.rng("dialogue", case.longest, number)
    target = rng.uniform(case.shortest, case.longest) * SAMPLE_RATE
    clips = _utterances(case, given.speech, rng)
    if not case.fillings:
        row = Part()
        while row.samples < target:
            row = row.then(next(clips), PAUSE_SECONDS, rng)
        return assembled([row], [])
    gaps, rows = [_gap(case, rng)], list[Part]()
    while sum(gaps) + sum(row.samples for row in rows) < target:
        row = Part()
        for clip in islice(clips, pick(range(case.in_a_row[0], case.in_a_row[1] + 1), rng)):
            row = row.then(clip, PAUSE_SECONDS, rng)
        rows.append(row)
        gaps.append(_gap(case, rng))
    loudness = rms(np.concatenate([row.audio for row in rows]))
    fillings = [filling(pick(case.fillings, rng), samples, loudness, given, rng) for samples in gaps]
    return assembled([Part(), *rows, Part()], fillings)


def _utterances(case: Dialogue, speech: Sequence[Clip], rng: np.random.Generator) -> Iterator[Clip]:
    """Those of a recording, one after the other without end."""
    pool = _speakers(sentences(speech) if case.sentences else speech, case.longest / 20, rng)
    language = pool[0].language
    single = [clip for clip in speech if clip.language == language and words(clip) == 1]
    if not (case.single_words and single):
        return _in_turn(pool, rng)
    others, lone = _in_turn(pool, rng), _in_turn(single, rng)
    return (next(lone if rng.random() < case.single_words else others) for _ in count())


def _in_turn(clips: Sequence[Clip], rng: np.random.Generator) -> Iterator[Clip]:
    """All of them in random order, over and over."""
    return (clips[place] for place in cycle(rng.permutation(len(clips)).tolist()))


def _speakers(speech: Sequence[Clip], enough: float, rng: np.random.Generator) -> list[Clip]:
    """Utterances of one language; half the time of one speaker, if any has `enough` utterances."""
    language = pick(speech, rng).language
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in speech:
        if clip.language == language:
            groups[clip.group].append(clip)
    talkative = [clips for clips in groups.values() if len(clips) >= enough]
    if talkative and rng.random() < 0.5:
        return pick(talkative, rng)
    return [clip for clips in groups.values() for clip in clips]


def _gap(case: Dialogue, rng: np.random.Generator) -> int:
    """Samples of a gap."""
    low, high = np.log(case.gap_seconds)
    return whole_frames(np.exp(rng.uniform(low, high)))


DIALOGUES = {
    "gaps": Dialogue(120, 240, 20),
    "silent-gaps": Dialogue(120, 240, 20, ("silence",)),
    "long": Dialogue(1740, 1800, 2),
    "music-gaps": Dialogue(120, 240, 20, ("music",), in_a_row=(1, 4), sentences=True),
    "paragraphs": Dialogue(120, 240, 20, ("silence", "noise", "music"), in_a_row=(1, 4), sentences=True),
    "remarks": Dialogue(
        60, 120, 40, ("silence", "noise", "music"), sentences=True, single_words=0.4, gap_seconds=(1.5, 35)
    ),
    "joined": Dialogue(120, 520, 20, (), sentences=True),
}
