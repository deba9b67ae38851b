"""faster-whisper's results with what steering tells of them: labels, true times, and what is left out."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from faster_whisper import transcribe as fw

from ..audio.units import MEL_FRAME_SECONDS
from .filtering import part_by_risk
from .labels import SegmentLabels
from .risk import REMEMBERED_WORDS
from .speech_map import Excerpt


@dataclass
class Word(fw.Word):
    """faster-whisper's word with the probability that it was made up."""

    hallucination_risk: float


@dataclass
class TranscriptionInfo(fw.TranscriptionInfo):
    """faster-whisper's, with what ``filter_risk`` has left out of the segments drawn so far."""

    filtered: list["Segment"]


@dataclass
class Segment(fw.Segment):
    """faster-whisper's segment with how likely somebody speaks in it, and how much of it was made up."""

    speech_prob: float
    hallucination_risk: float


def with_labels(segment: fw.Segment, labels: SegmentLabels) -> Segment:
    """The segment with its labels and those of its words."""
    risks = zip(segment.words or (), labels.word_risks, strict=True)
    words = [Word(**vars(word), hallucination_risk=risk) for word, risk in risks]
    fields = {**vars(segment), "words": words or segment.words}
    return Segment(**fields, **labels.segment._asdict())


def filtered(
    threshold: float | None, segments: Iterable[fw.Segment], info: fw.TranscriptionInfo
) -> tuple[Iterable[fw.Segment], fw.TranscriptionInfo]:
    """A result without words of that risk and more, which ``info.filtered`` keeps; all of it for None."""
    if threshold is None:
        return segments, info
    noted = TranscriptionInfo(**vars(info), filtered=[])
    return _kept(segments, threshold, noted.filtered), noted


def _kept(segments: Iterable[fw.Segment], threshold: float, left_out: list[Segment]) -> Iterator[fw.Segment]:
    """Segments without words of that risk and more, which are added to ``left_out``."""
    for segment in segments:
        if not isinstance(segment, Segment):  # detached meanwhile
            yield segment
            continue
        parted = part_by_risk(asdict(segment), threshold)
        if parted.filtered is not None:
            left_out.append(_segment(parted.filtered))
        if parted.kept is not None:
            yield _segment(parted.kept)


def _segment(fields: dict[str, Any]) -> Segment:
    """The way back from ``asdict``."""
    words: Any = fields["words"] and [Word(**word) for word in fields["words"]]
    return Segment(**{**fields, "words": words})


def in_turn(
    label: Callable[[fw.Segment, Iterable[str]], fw.Segment], segments: Iterable[fw.Segment]
) -> Iterator[fw.Segment]:
    """Segments, each labelled behind the words before it."""
    said = deque[str](maxlen=REMEMBERED_WORDS)
    for segment in segments:
        yield label(segment, said)
        said.extend(segment.text.split())


def in_recording(segment: fw.Segment, heard: Excerpt) -> fw.Segment:
    """The segment of an excerpt with times of the recording."""
    if not heard.passages:
        return segment
    words: list[fw.Word] = []
    for word in segment.words or []:
        start, end = heard.word_span(word.start, word.end)
        words.append(replace(word, start=start, end=end))
    start, end = (words[0].start, words[-1].end) if words else heard.span(segment.start, segment.end)
    sought = segment.seek * MEL_FRAME_SECONDS
    window_start, _ = heard.span(sought, sought)
    return replace(
        segment,
        seek=round(window_start / MEL_FRAME_SECONDS),
        start=start,
        end=end,
        words=words or segment.words,
    )
