"""Audio that a sweep's settings learn from, and frames of each domain that all of them are measured on."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import islice
from typing import NamedTuple

from torch import Tensor

from ..audio.clips import Clip
from ..errors import ConfigError
from ..sae.autoencoder import SAE
from ..training.encoders import FrameEncoder
from ..training.quality import measure
from ..training.source import FrameRecipe, encode_windows
from ..training.stream import DOMAINS, Position, StreamConfig, WindowStream, hold_back

AS_GIVEN = ""
"""name of the audio that settings are compared on"""
CHANGEABLE = tuple(field.name for field in fields(StreamConfig) if field.name != "seed")
MOST_WINDOWS = 64
"""of each domain: half an hour at most"""
Change = dict[str, float]


class DomainFigures(NamedTuple):
    """How an SAE does on frames of one domain."""

    fvu: float
    """fraction of that domain's variance unexplained"""
    l0: float
    """active features a frame"""


def change(text: str) -> Change:
    """``music=0,sound=0`` as a type for argparse: options of audio with other values."""
    try:
        pairs = [part.split("=") for part in text.split(",")]
        found = {name: float(value) for name, value in pairs}
    except ValueError:
        found = Change()
    if not found or not set(found) <= set(CHANGEABLE):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not like noise_share=0 or music=0,sound=0; options are {', '.join(CHANGEABLE)}"
        )
    return found


def audios(stream: StreamConfig, changes: Sequence[Change]) -> dict[str, StreamConfig]:
    """The audio as given and each change of it, by name. ConfigError for two that are the same."""
    found = {AS_GIVEN: stream}
    for one in changes:
        name = "-".join(f"{option}{value:g}" for option, value in one.items())
        changed = replace(stream, **one)
        if changed in found.values():
            raise ConfigError(f"audio with {name} is the same as other audio; leave it out")
        found[name] = changed
    return found


def domain_frames(
    encoder: FrameEncoder, clips: Sequence[Clip], recipe: FrameRecipe
) -> dict[str, dict[str, Tensor]]:
    """Tap → domain → frames [N, d] of the recordings held back, none for a domain without such."""
    found: dict[str, dict[str, Tensor]] = {tap: {} for tap in encoder.taps}
    _, held = hold_back(clips)
    for kind, domain in DOMAINS.items():
        if not (chosen := [clip for clip in held if clip.kind == kind]):
            continue
        windows = list(islice(WindowStream(chosen, StreamConfig()).epoch(Position()), MOST_WINDOWS))
        for tap, frames in encode_windows(encoder, windows, recipe, 0).items() if windows else ():
            found[tap][domain] = frames.cpu()
    return found


def domain_figures(sae: SAE, frames: Mapping[str, Tensor]) -> dict[str, DomainFigures]:
    """Measure an SAE on each domain's frames."""
    qualities = {domain: measure(sae, [one]) for domain, one in frames.items()}
    return {domain: DomainFigures(one.fvu, one.l0) for domain, one in qualities.items()}
