"""The figures that packs and SAEs carry: what they are, and how they are shown."""

from collections.abc import Iterator, Mapping
from typing import Any

from .page import percent, points

DEFINITIONS = {
    "fpr_raw": "share of windows of 30 s without speech that get a letter or digit, decoded greedily with"
    " Whisper's thresholds off",
    "fpr_kept": "share of these windows with text that Whisper's own rule for silence leaves",
    "alpha": "steering strength",
    "no_speech_prob": "mean of Whisper's probability of no speech in these windows",
    "wer": "word errors of windows with speech, by the references or, without any, the unsteered transcripts",
    "wer_change": "change of these word errors against the unsteered model",
    "auc": "area under the curve of the gate's scores, windows with speech against the others",
    "speech_touched": "share of windows with speech that the gate lets be edited",
    "other_missed": "share of windows without speech that are not edited in full",
    "speech_windows": "windows with speech that were held back",
    "other_windows": "windows without speech that were held back",
    "touched_at_most": "bound on the share of a new recording's speech that is edited, on average",
    "touched": "share of speech that is edited, each speaker or recording held back once",
    "recordings": "speakers or recordings that the bound is from",
    "fvu": "share of the frames' variance that the reconstruction leaves out",
    "l0": "features that are active in a frame, on average",
}
SHARES = (
    *("fpr_raw", "fpr_kept", "wer", "speech_touched", "other_missed", "touched_at_most", "touched"),
    *("fvu",),
)


def flat(figures: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """Numbers in nested figures with their dotted names; what is no number is left out."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{name}.")
        elif isinstance(value, float | int) and not isinstance(value, bool):
            yield f"{above}{name}", value


def definition(name: str) -> str:
    """What a figure is; "" for a name that isn't known."""
    return DEFINITIONS.get(name.rpartition(".")[2], "")


def place(name: str) -> int:
    """Where a figure stands among those known; the others come last."""
    known, last = list(DEFINITIONS), name.rpartition(".")[2]
    return known.index(last) if last in known else len(known)


def shown(name: str, value: float) -> str:
    """A figure for people: shares in percent, changes of them in percentage points."""
    last = name.rpartition(".")[2]
    if last == "wer_change":
        return points(value)
    return percent(value, 2) if last in SHARES else f"{value:.4g}"
