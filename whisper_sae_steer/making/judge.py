"""What a pack does to transcripts: recordings held back, as the library transcribes them by default.

The same clips go through faster-whisper as it is, with Silero VAD in front, and with the pack at α = 1.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..audio.clips import Clip, select
from ..bench.peers.catalogue import OURS, Library, choose
from ..bench.peers.run import Models, collect, run
from ..bench.report import wrote
from ..bench.runner import Row
from ..commands.recordings import OWN_LANGUAGE
from ..reports import metrics
from ..reports.failures import Failure
from ..reports.metrics import Difference, Rate, WordErrors
from .audio import Recordings

UNSTEERED, VAD = "unsteered", "vad"
WAYS = {UNSTEERED: "unsteered", VAD: "Silero VAD in front", OURS: "this pack, α = 1"}
PEERS: Mapping[Library, Mapping[str, str]] = {
    "faster": {UNSTEERED: "faster", VAD: "vad-0.5", OURS: OURS},
    "openai": {UNSTEERED: "openai", VAD: "vad-0.5", OURS: "ours-openai"},
}
"""what each way is called among the peers of ``bench peers``; openai-whisper has no VAD of its own"""
JUDGED_CLIPS = 80
"""of each kind, at most"""
SHORT_WORDS = 3


class Outcome(NamedTuple):
    """What one way of transcribing made of the clips."""

    texts: Rate
    """clips without speech that got text: FPR_text"""
    words: WordErrors
    """of the speech that has a transcript"""
    wer_change: Difference
    """against unsteered"""
    lost: Rate
    """of the utterances with text unsteered, those that got none"""
    short_lost: Rate
    """of the utterances of one to three words that unsteered reads rightly, those that got no text"""
    seconds_a_minute: float
    """spent in transcribe for each minute of audio"""


class Judgement(NamedTuple):
    """How a pack does on recordings that nothing was fitted on."""

    outcomes: Mapping[str, Outcome]
    """by the names in WAYS"""
    sounds: int
    utterances: int
    failures: tuple[Failure, ...]


def judge(
    model: str, pack: Path, recordings: Recordings, out: Path, compute_type: str, device: str, threads: int,
    library: Library,
) -> Judgement:  # fmt: skip
    """Transcribe at most JUDGED_CLIPS clips of each kind in each of the WAYS; what ``out`` holds is kept."""
    clips = [*_some(recordings.nonspeech), *_some(recordings.speech)]
    names = PEERS[library]
    peers, _ = choose(list(names.values()), None)
    models = Models(model, compute_type, device, threads, str(pack))
    run(peers, clips, models, out, OWN_LANGUAGE, with_raw=())
    found = collect(peers, clips, out)
    rows = {way: {row["path"]: row for row in found.get(name, [])} for way, name in names.items()}
    done = [clip for clip in clips if all(_worked(rows[name].get(clip.key)) for name in WAYS)]
    return _judgement(done, rows)


def _some(clips: Sequence[Clip]) -> list[Clip]:
    """As many clips of each source and class as fit into JUDGED_CLIPS."""
    if len(clips) <= JUDGED_CLIPS:
        return list(clips)
    per_class = 1
    while len(select(clips, per_class + 1)) <= JUDGED_CLIPS:
        per_class += 1
    return select(clips, per_class)[:JUDGED_CLIPS]


def _worked(row: Row | None) -> bool:
    return row is not None and row["error"] is None


def _judgement(clips: Sequence[Clip], rows: Mapping[str, Mapping[str, Row]]) -> Judgement:
    sounds = [clip for clip in clips if clip.kind != "speech"]
    speech = [clip for clip in clips if clip.kind == "speech"]
    outcomes = {name: _outcome(sounds, speech, rows[name], rows[UNSTEERED]) for name in WAYS}
    before, after = rows[UNSTEERED], rows[OURS]
    failures = [_failure(clip, before[clip.key], after[clip.key]) for clip in clips]
    return Judgement(outcomes, len(sounds), len(speech), tuple(f for f in failures if f is not None))


def _outcome(
    sounds: Sequence[Clip], speech: Sequence[Clip], rows: Mapping[str, Row], before: Mapping[str, Row]
) -> Outcome:
    with_text = [clip for clip in speech if wrote(before[clip.key])]
    short = [clip for clip in speech if _is_short_and_right(clip, before)]
    words = [_errors(clip, rows) for clip in speech]
    words_before = [_errors(clip, before) for clip in speech]
    seconds = sum(rows[clip.key]["wall"] or 0.0 for clip in [*sounds, *speech])
    minutes = sum(rows[clip.key]["seconds"] or 0.0 for clip in [*sounds, *speech]) / 60
    return Outcome(
        metrics.wilson(sum(wrote(rows[clip.key]) for clip in sounds), len(sounds)),
        metrics.total([errors for errors in words if errors is not None]),
        metrics.word_error_change(words, words_before),
        metrics.wilson(sum(not wrote(rows[clip.key]) for clip in with_text), len(with_text)),
        metrics.wilson(sum(not wrote(rows[clip.key]) for clip in short), len(short)),
        seconds / minutes if minutes else 0.0,
    )


def _errors(clip: Clip, rows: Mapping[str, Row]) -> WordErrors | None:
    return metrics.word_errors(clip.text, rows[clip.key]["text"] or "", clip.language or "en")


def _is_short_and_right(clip: Clip, rows: Mapping[str, Row]) -> bool:
    said = metrics.normalise(clip.text, clip.language or "en").split()
    read = metrics.normalise(rows[clip.key]["text"] or "", clip.language or "en").split()
    return 0 < len(said) <= SHORT_WORDS and said == read


def _failure(clip: Clip, before: Row, after: Row) -> Failure | None:
    texts = (before["text"] or "").strip(), (after["text"] or "").strip()
    if clip.kind != "speech":
        return Failure(clip, "text where nobody speaks", *texts) if wrote(after) else None
    if wrote(before) and not wrote(after):
        return Failure(clip, "an utterance is lost", *texts)
    changed = metrics.normalise(texts[0], clip.language) != metrics.normalise(texts[1], clip.language)
    return Failure(clip, "other words than unsteered", *texts) if changed else None
