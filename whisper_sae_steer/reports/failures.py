"""The recordings that a pack got wrong, to listen to."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup
from tqdm import tqdm

from ..audio.clips import Clip
from ..audio.reading import load_audio
from ..audio.units import WINDOW_SAMPLES
from ..errors import AudioError
from .page import heading, paragraph, sound, table

SHOWN = 12


class Failure(NamedTuple):
    """A clip that a pack got wrong."""

    clip: Clip
    what: str
    unsteered: str
    steered: str


def failed_recordings(failures: Sequence[Failure]) -> list[Markup]:
    """HTML of the first of them, each with its name, a player of its first 30 s, and both transcripts."""
    if not failures:
        return [paragraph("No recording got text without speech, lost an utterance or other words.")]
    body = [heading("Recordings that failed")]
    for clip, what, unsteered, steered in failures[:SHOWN]:
        try:
            player = sound(load_audio(clip.path)[:WINDOW_SAMPLES], clip.key)
        except AudioError as error:
            tqdm.write(f"left out of the report: {error}")
            continue
        lines = [("said", clip.text), ("unsteered", unsteered), ("this pack", steered)]
        texts = [(who, text or "(nothing)") for who, text in lines if text or who != "said"]
        body += [
            heading(clip.key, 3),
            paragraph(what, small=True),
            player,
            table(("", "text"), texts, text=True),
        ]
    if len(failures) > SHOWN:
        body.append(paragraph(f"… and {len(failures) - SHOWN} more.", small=True))
    return body
