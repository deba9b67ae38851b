"""What a pack is made from: the bundle of open recordings, one's own, and synthetic sounds."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..audio.clips import KINDS, NONSPEECH_KINDS, Clip, read_manifest
from ..audio.synthetic import write_folder
from ..calibrate.windows import held_back
from ..errors import ManifestError
from ..models.model_bin import EMBEDDINGS, read_stored
from ..models.vocabulary import is_multilingual
from ..models.weights import Weights

BUNDLE = Path("calibration", "audio", "manifest.tsv")
SYNTHETIC_SOUNDS = 60
"""that the SAE learns from, besides those that calibration makes itself"""


class Recordings(NamedTuple):
    """Clips of both kinds."""

    nonspeech: list[Clip]
    speech: list[Clip]

    @property
    def all(self) -> list[Clip]:
        return [*self.nonspeech, *self.speech]

    @property
    def minutes(self) -> float:
        """Length of all clips that tell theirs."""
        return sum(clip.seconds or 0.0 for clip in self.all) / 60


def bundled() -> Recordings:
    """The bundle of a checkout: this package's, or that of the current folder. ManifestError without one."""
    roots = (Path(__file__).resolve().parents[2], Path.cwd())
    for root in roots:
        if (root / BUNDLE).is_file():
            return by_kind(read_manifest(root / BUNDLE))
    raise ManifestError(
        f"the bundle of open recordings, {BUNDLE}, comes with a checkout of the repository, and neither"
        f" {roots[0]} nor {roots[1]} has it; give recordings of your own with --nonspeech and --speech, and"
        " --no_bundle"
    )


def by_kind(clips: Sequence[Clip]) -> Recordings:
    """Clips without speech, and with speech."""
    return Recordings(
        [clip for clip in clips if clip.kind in NONSPEECH_KINDS],
        [clip for clip in clips if clip.kind not in NONSPEECH_KINDS],
    )


def for_training(recordings: Recordings, work: Path) -> list[Clip]:
    """What an SAE is trained on: synthetic sounds, and the recordings that calibration doesn't hold back."""
    synthetic = read_manifest(write_folder(work / "synthetic", SYNTHETIC_SOUNDS), kind=KINDS)
    return [*synthetic, *(clip for clip in recordings.all if not held_back(clip.group))]


def for_judging(recordings: Recordings, weights: Weights) -> Recordings:
    """What neither the SAE nor the pack was fitted on, as far as the model knows its language."""
    held = Recordings(*([clip for clip in clips if held_back(clip.group)] for clips in recordings))
    if is_multilingual(read_stored(weights.ct2_dir)[EMBEDDINGS].shape[0]):
        return held
    return held._replace(speech=[clip for clip in held.speech if clip.language in ("", "en")])
