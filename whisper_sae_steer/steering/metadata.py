"""What a steering pack holds beside tensors: where it comes from, what it fits, its gate's levels."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, Literal

from ..audio.units import WINDOW_FRAMES
from ..errors import PackError
from ..kernels import GateKind
from ..models.taps import block_index
from .pack_check import read_fields

Strategy = Literal["suppress", "additive", "direction"]
LATER_FIELDS = ("encoder_mark", "decoder_mark", "decoder_fingerprint", "no_speech_works")
"""that older packs of format 2 lack"""
ORDER = (
    *(("full_edit_below", "threshold"), ("threshold", "speech_floor")),
    *(("noise_ceiling", "speech_floor"), ("gap_below", "speech_floor")),
)
"""levels of which the first is below the second; a threshold that was lowered may lie in the noise"""


@dataclass(frozen=True)
class GateLevels:
    """Where smoothed speech scores (logits) part noise from speech, and the gate between them."""

    noise_ceiling: float = -2.0
    """sound without speech hardly exceeds this"""
    full_edit_below: float = -1.0
    """from here down the edit is whole"""
    threshold: float = 0.0
    """from here up nothing is edited"""
    speech_floor: float = 2.0
    """hardly any speech stays below this"""
    gap_below: float | None = None
    """a long stretch below is a gap (see ``cuts.py``); None to look for none"""

    @property
    def ramp(self) -> float:
        """Logits below the threshold over which the edit grows to full strength."""
        return self.threshold - self.full_edit_below

    @property
    def nobody_below(self) -> float | None:
        """A moment all of which stays below holds no speech, whatever is around it.

        It is as far below a gap as noise is below the threshold.
        """
        return None if self.gap_below is None else self.gap_below - (self.threshold - self.noise_ceiling)

    @classmethod
    def spaced(cls, threshold: float, ramp: float, gap_below: float | None = None) -> "GateLevels":
        """Levels as calibration places them: noise and speech two ramps to either side of the threshold."""
        return cls(threshold - 2 * ramp, threshold - ramp, threshold, threshold + 2 * ramp, gap_below)

    def lowered_to(self, threshold: float) -> "GateLevels":
        """The gate moved to another threshold, its ramp with it; noise and speech are where they were."""
        return replace(self, threshold=threshold, full_edit_below=threshold - self.ramp)


@dataclass(frozen=True)
class PackMetadata:
    """Where a pack comes from and what it may be applied to."""

    model: str
    """name of the Whisper model"""
    fingerprint: str
    """of the Whisper weights, see :func:`whisper_sae_steer.models.marks.fingerprint`"""
    d_in: Annotated[int, range(1, 2**16)]
    """width of the tapped activation"""
    strategy: Strategy
    selection: str
    """what chose features or direction: attribution, logistic, fisher, gradient or contrast"""
    gate: GateKind
    alpha_unit: float
    """length of the edit at α = 1, in the units of the strategy"""
    gate_smoothing: Annotated[int, range(1, WINDOW_FRAMES + 1)] = 1
    """frames of the moving average over speech scores"""
    levels: GateLevels = GateLevels()
    speech_calibration: tuple[float, float] = (1.0, 0.0)
    """slope and offset that turn a segment's highest score into the logit of speech_prob"""
    risk_calibration: tuple[float, float, float] = (-1.0, 0.0, 0.0)
    """weights of a stretch's highest and mean score, and offset: logit of the gate's own risk of text"""
    stock_texts: tuple[str, ...] = ()
    """what the unsteered model often writes for noise; not believed where the gate is in doubt"""
    no_speech_works: bool = True
    """whether the model's no-speech token tells noise from speech; large-v3-turbo's is about 1e-10 always"""
    tap: str = "encoder_output"
    encoder_mark: str | None = None
    decoder_mark: str | None = None
    """of all of each half, see :func:`whisper_sae_steer.models.marks.marks`; older packs have none"""
    decoder_fingerprint: str | None = None
    """of the decoder's vectors, which quantised files have too; older packs have none"""
    compute_types: tuple[str, ...] = ()
    """compute types it was checked with"""
    sae: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    """sources, licences, counts and the hash of the list of calibration clips"""
    guarantee: Mapping[str, Any] = field(default_factory=dict)
    """bound on the share of speech that is touched, see ``calibrate/guarantee.py``"""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """held-back figures at α = 1 with their definitions"""
    created_with: str = ""


@dataclass(frozen=True)
class _FirstGate:
    """What format 1 had in place of levels."""

    gate_threshold: float
    gate_ramp: float
    gap_threshold: float | None = None


def read_metadata(header: Mapping[str, str]) -> PackMetadata:
    """Metadata in a pack's header; PackError, which names the field, unless it can be steered by."""
    try:
        saved = json.loads(header["metadata"])
    except (LookupError, ValueError, RecursionError):
        raise PackError("metadata is not readable JSON") from None
    may_lack = LATER_FIELDS
    if header.get("format") == "1":
        may_lack = [f.name for f in fields(PackMetadata)]
        if isinstance(saved, dict) and "levels" not in saved:
            gate = read_fields(_FirstGate, saved, may_lack=["gap_threshold"])
            levels = GateLevels.spaced(gate.gate_threshold, gate.gate_ramp, gate.gap_threshold)
            saved = {**saved, "levels": asdict(levels)}
    metadata = read_fields(PackMetadata, saved, may_lack)
    block_index(metadata.tap)
    if metadata.alpha_unit <= 0:
        raise PackError(f"alpha_unit must be above 0, not {metadata.alpha_unit:g}")
    levels = asdict(metadata.levels)
    for low, high in ORDER:
        if levels[low] is not None and levels[low] >= levels[high]:
            raise PackError(f"levels.{low}, {levels[low]:g}, must be below levels.{high}, {levels[high]:g}")
    return metadata
