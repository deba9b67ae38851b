"""Opt-in: words whose risk is too high are left out of a transcript, and kept beside it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import RiskError

Fields = dict[str, Any]
"""a segment as a dict, with its words as dicts where they have times"""


class Parted(NamedTuple):
    """A segment without its doubtful words, and with nothing but those; None where no word is left."""

    kept: Fields | None
    filtered: Fields | None


def check_filter_risk(threshold: float | None, steers: bool) -> None:
    """RiskError for a threshold outside 0 to 1, or where nothing tells the risk."""
    if threshold is None:
        return
    if not 0 < threshold <= 1:
        raise RiskError(f"filter_risk must be above 0 and at most 1, not {threshold}")
    if not steers:
        raise RiskError("filter_risk needs the risk that steering tells: give a pack, and an α other than 0")


def part_by_risk(segment: Fields, threshold: float) -> Parted:
    """Leave out the words whose risk is ``threshold`` or more; without words, the segment if its own is."""
    words: Sequence[Fields] = segment.get("words") or ()
    if not words:
        risky = segment["hallucination_risk"] >= threshold
        return Parted(None, segment) if risky else Parted(segment, None)
    kept = [word for word in words if word["hallucination_risk"] < threshold]
    filtered = [word for word in words if word["hallucination_risk"] >= threshold]
    return Parted(_of_words(segment, kept), _of_words(segment, filtered))


def filter_result(result: Fields, threshold: float) -> Fields:
    """openai-whisper's result without words of that risk and more, which it keeps apart."""
    parts = [part_by_risk(segment, threshold) for segment in result["segments"]]
    kept = [part.kept for part in parts if part.kept]
    text = "".join(segment["text"] for segment in kept)
    filtered = [part.filtered for part in parts if part.filtered]
    return result | {"text": text, "segments": kept, "filtered": filtered}


def _of_words(segment: Fields, words: list[Fields]) -> Fields | None:
    """The segment as if only some of its words were in it; its tokens stay."""
    if len(words) in (0, len(segment["words"])):
        return segment if words else None
    return segment | {
        "words": words,
        "text": "".join(word["word"] for word in words),
        "start": words[0]["start"],
        "end": words[-1]["end"],
        "hallucination_risk": sum(word["hallucination_risk"] for word in words) / len(words),
    }
