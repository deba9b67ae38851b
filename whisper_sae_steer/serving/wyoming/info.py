"""What the server tells of itself: two programs over all models."""

from importlib.metadata import version

from wyoming.event import Event
from wyoming.info import AsrModel, AsrProgram, Attribution, Info

from ..fleet import Fleet, Member

WHOLE = "whisper-sae-steer"
"""the first, which clients have that select none: a recording is transcribed once all of it is there"""
LIVE = "whisper-sae-steer-live"
"""text comes while somebody speaks"""
PROGRAMS = {
    WHOLE: "Whisper that writes nothing where nobody speaks; transcribes when all was said",
    LIVE: "the same, and writes while somebody speaks",
}


def info(fleet: Fleet) -> Event:
    """The answer to describe."""
    ours = Attribution(WHOLE, f"https://pypi.org/project/{WHOLE}/")
    models = [_model(member) for member in fleet.members]
    programs = [
        AsrProgram(
            name=name,
            attribution=ours,
            installed=True,
            description=description,
            version=version(WHOLE),
            models=models,
            supports_transcript_streaming=True,
        )
        for name, description in PROGRAMS.items()
    ]
    return Info(asr=programs).event()


def _model(member: Member) -> AsrModel:
    """Languages are known of a loaded model."""
    return AsrModel(
        name=member.name,
        attribution=Attribution("OpenAI", "https://github.com/openai/whisper"),
        installed=True,
        description=f"Whisper {member.name}",
        version=None,
        languages=list(member.engine.model.supported_languages) if member.engine else [],
    )
