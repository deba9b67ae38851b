"""What people run over finished transcripts: a list of phrases, and whisper-guard."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

Segments: TypeAlias = list[dict[str, Any]]

_LIST = """
you; so; oh; okay; ok; hmm; mm; uh; um; the; i; yeah; hey; bye; bye bye; goodbye; thank you; thanks
thank you very much; thank you so much; thank you all; thank god; thank you for watching
thank you so much for watching; thank you for watching this video; thank you for listening
thanks for watching; thanks for listening; thanks for watching everyone; please subscribe
please subscribe to my channel; please like and subscribe; like and subscribe; subscribe to my channel
don t forget to subscribe; see you; see you later; see you next time; i ll see you next time
see you in the next video; i ll see you in the next video; i ll see you in the next one
we ll be right back; i m sorry; i don t know; the end; i m not sure what i m doing here; oh my god
music; applause; laughter; outro music; upbeat music; subtitles by the amara org community
www mooji org; transcription by castingwords; untertitel der amara org community
untertitel im auftrag des zdf für funk 2017; untertitelung des zdf 2020; vielen dank
vielen dank fürs zuschauen; sous titres réalisés par la communauté d amara org
merci d avoir regardé cette vidéo; subtítulos realizados por la comunidad de amara org
gracias por ver el video; sottotitoli creati dalla comunità amara org; grazie per la visione
спасибо за просмотр; субтитры сделал dimatorzok; продолжение следует
"""
PHRASES = frozenset(phrase.strip() for phrase in re.split(r"[;\n]", _LIST) if phrase)
"""Segments that Whisper is known to invent, in small letters and without punctuation.

After the most frequent ones of Barański et al., Bag of Hallucinations (arXiv 2501.11378), the list in
openai/whisper discussion 928, and the lists in programs around Whisper, which mostly agree.
"""


def drop_phrases(segments: Sequence[Mapping[str, Any]]) -> Segments:
    """The segments that aren't one of PHRASES, said once or over and over."""
    return [dict(segment) for segment in segments if _unlooped(segment["text"]) not in PHRASES]


def guard(segments: Sequence[Mapping[str, Any]]) -> Segments:
    """What whisper-guard leaves, at its default thresholds."""
    from whisper_guard import filter_hallucinations  # pyright: ignore[reportMissingTypeStubs]

    kept: Segments = filter_hallucinations([dict(segment) for segment in segments])
    return [{**segment, "text": f" {segment['text']}"} for segment in kept]  # it strips them


FILTERS: Mapping[str, Callable[[Sequence[Mapping[str, Any]]], Segments]] = {
    "phrases": drop_phrases,
    "whisper_guard": guard,
}


def _unlooped(text: str) -> str:
    plain = " ".join(re.sub(r"[\W_]+", " ", text.lower()).split())
    return re.sub(r"^(.+?)( \1)+$", r"\1", plain)
