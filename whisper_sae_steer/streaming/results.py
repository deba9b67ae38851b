"""What a live session says of its audio."""

from typing import NamedTuple

from .agreement import Word


class Stretch(NamedTuple):
    """In which someone speaks."""

    start: float
    """seconds since the session began"""
    end: float


class StreamSegment(NamedTuple):
    """A stretch of at most one sentence; texts in a row join to the transcript."""

    id: int
    """counts final segments from 0; of a partial one, what it would be if it was final now"""
    start: float
    """seconds since the session began"""
    end: float
    text: str
    speech_prob: float | None
    """probability that someone speaks in it; None without steering"""
    hallucination_risk: float | None
    """share of its words that were made up, as far as one can tell; None without steering"""
    words: tuple[Word, ...]


class Update(NamedTuple):
    """What a chunk brought."""

    final: list[StreamSegment]
    """new, and never changed again"""
    partial: list[StreamSegment]
    """all text beyond the final segments so far; takes the place of what was partial before"""
