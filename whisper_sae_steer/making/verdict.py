"""Whether a pack is good enough to be used without asking: its minimum, and what would help."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..bench.peers.catalogue import OURS
from ..steering.metadata import PackMetadata
from .audio import Recordings
from .judge import UNSTEERED, VAD, Judgement, Outcome


@dataclass(frozen=True)
class Minimum:
    """What a pack must reach on recordings that nothing was fitted on."""

    gate_auc: float = 0.98
    """area under the ROC curve of the gate, speech against the rest"""
    texts_kept: float = 0.5
    """of the clips without speech that get text unsteered, the share that may still get some"""
    short_lost: float = 0.005
    """of the short utterances that unsteered reads rightly, the share that may get no text"""
    lost: float = 0.02
    """of all utterances with text unsteered, the share that may get none"""
    wer_change: float = 0.005
    """by which the word error rate may rise"""
    recordings: int = 20
    """of each kind, to say anything"""


MINIMUM = Minimum()


class Verdict(NamedTuple):
    """Passed, or what it falls short of; in words."""

    passed: bool
    sentence: str
    shortfalls: tuple[str, ...]
    advice: tuple[str, ...]


def foreseen(recordings: Recordings, held_back: Recordings, minimum: Minimum = MINIMUM) -> list[str]:
    """What the verdict will say of the number of recordings, in a sentence, before hours are spent on it."""
    speakers = len({clip.group for clip in recordings.speech})
    found = _too_few(len(held_back.nonspeech), len(held_back.speech), speakers, minimum)
    if not found:
        return []
    reasons = " and ".join(shortfall for shortfall, _ in found)
    return [f"{reasons}: a pack will be made, but not installed. {found[0][1]}"]


def verdict(judgement: Judgement, metadata: PackMetadata, minimum: Minimum = MINIMUM) -> Verdict:
    """Compare a pack with the minimum."""
    before, after, vad = (judgement.outcomes[name] for name in (UNSTEERED, OURS, VAD))
    found = [
        *_too_few(
            judgement.sounds, judgement.utterances, int(metadata.guarantee.get("recordings", 0)), minimum
        ),
        *_too_weak(before, after, metadata.metrics.get("gate"), minimum),
        *_too_costly(after, minimum),
    ]
    gains = (
        f"text for {_of(after.texts.k, after.texts.n)} recordings without speech (unsteered"
        f" {before.texts.k}, Silero VAD {vad.texts.k}), {after.lost.k} of {after.lost.n} utterances lost"
        f" (Silero VAD {vad.lost.k})"
    )
    if after.words.words:
        gains += f", WER {100 * after.words.rate:.2f}% (unsteered {100 * before.words.rate:.2f}%)"
    passed = not found
    opening = "This pack is good enough to use" if passed else "This pack is not good enough to be installed"
    return Verdict(
        passed,
        f"{opening}: {gains}.",
        tuple(shortfall for shortfall, _ in found),
        tuple(dict.fromkeys(advice for _, advice in found)),
    )


_MORE = "Give more recordings with --nonspeech and --speech: {n} speakers and {n} sounds at the least."
_LIKE = "Give sounds like those that still get text (see the report) with --nonspeech."
_VOICES = "Give voices and words like those that were lost (see the report) with --speech."
_KINDS = "Look whether sounds with voices are among --nonspeech, or recordings without any among --speech."


def _too_few(sounds: int, utterances: int, speakers: int, minimum: Minimum) -> list[tuple[str, str]]:
    """``sounds`` and ``utterances`` held back, ``speakers`` in all."""
    advice = _MORE.format(n=minimum.recordings)
    found: list[tuple[str, str]] = []
    if sounds < minimum.recordings:
        found.append((f"{sounds} sounds held back are too few to say anything", advice))
    if not utterances:
        found.append(("no utterance in a language that the model knows is held back", advice))
    if speakers < minimum.recordings:
        found.append((f"{speakers} speakers are too few to say anything about speech", advice))
    return found


def _too_weak(
    before: Outcome, after: Outcome, gate: Mapping[str, Any] | None, minimum: Minimum
) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if gate is None or gate["auc"] < minimum.gate_auc:
        auc = "none" if gate is None else f"{gate['auc']:.3f}"
        found.append((f"the gate tells speech from the rest with an AUC of {auc} only", _KINDS))
    if not before.texts.k:
        found.append(("unsteered Whisper writes nothing for these sounds: nothing to gain", _LIKE))
    elif after.texts.k > minimum.texts_kept * before.texts.k:
        kept = f"{after.texts.k} of the {before.texts.k} sounds with text unsteered"
        found.append((f"as many as {kept} still get some", _LIKE))
    return found


def _too_costly(after: Outcome, minimum: Minimum) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if after.short_lost.k > minimum.short_lost * after.short_lost.n:
        short = _of(after.short_lost.k, after.short_lost.n)
        found.append((f"{short} short utterances that unsteered reads rightly are lost", _VOICES))
    if after.lost.k > minimum.lost * after.lost.n:
        found.append((f"{_of(after.lost.k, after.lost.n)} utterances are lost", _VOICES))
    if after.wer_change.value > minimum.wer_change:
        found.append((f"the WER rises by {100 * after.wer_change.value:.2f} pp", _VOICES))
    return found


def _of(k: int, n: int) -> str:
    return f"{k} of {n}"
