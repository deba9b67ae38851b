"""The recordings that come with the package: a sentence, and two with a long gap between them."""

import json
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audio.reading import load_audio


class PackagedRecording(NamedTuple):
    """Speech whose words are known."""

    audio: NDArray[np.float32]
    text: str
    """all that is said"""


def recording(name: str) -> PackagedRecording:
    """``speech`` or ``gap``."""
    with resources.as_file(resources.files("whisper_sae_steer") / "samples") as folder:
        truth = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        return PackagedRecording(
            load_audio(folder / truth["audio"]), " ".join(part["text"] for part in truth["speech"])
        )
