"""What the server tells of itself: two programs over one model."""

from importlib.metadata import version

from wyoming.event import Event
from wyoming.info import AsrModel, AsrProgram, Attribution, Info

from ..engine import ServingEngine

WHOLE = "whisper-sae-steer"
"""the first, which clients have that select none: a recording is transcribed once all of it is there"""
LIVE = "whisper-sae-steer-live"
"""text comes while somebody speaks"""
PROGRAMS = {
    WHOLE: "Whisper that writes nothing where nobody speaks; transcribes when all was said",
    LIVE: "the same, and writes while somebody speaks",
}


def info(engine: ServingEngine) -> Event:
    """The answer to describe."""
    ours = Attribution(WHOLE, f"https://pypi.org/project/{WHOLE}/")
    model = AsrModel(
        name=engine.name,
        attribution=Attribution("OpenAI", "https://github.com/openai/whisper"),
        installed=True,
        description=f"Whisper {engine.name}",
        version=None,
        languages=list(engine.model.supported_languages),
    )
    programs = [
        AsrProgram(
            name=name,
            attribution=ours,
            installed=True,
            description=description,
            version=version(WHOLE),
            models=[model],
            supports_transcript_streaming=True,
        )
        for name, description in PROGRAMS.items()
    ]
    return Info(asr=programs).event()
