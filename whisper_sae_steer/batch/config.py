"""The settings of a batch: what decides the text, and how they are named in the results."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..commands.common import pack_named
from ..commands.fields import check_choices
from ..commands.recordings import OWN_LANGUAGE
from ..commands.values import MOST_CANDIDATES, ComputeType, Device
from ..errors import ConfigError
from ..steering.operator import check_alpha


@dataclass(frozen=True)
class BatchConfig:
    """How every clip of a batch is transcribed.

    Raises ConfigError and AlphaError for values that would fail each clip, one after the other.
    """

    model: str = "base"
    """name or path of the Whisper model"""
    pack: str = "auto"
    """steering pack: a path, hub:owner/name, auto (installed or shipped) or none"""
    steer_alpha: float = 1.0
    """strength; 0 is the unsteered library"""
    device: Device = "auto"
    """where CTranslate2 runs; auto: cuda if there is one"""
    compute_type: ComputeType = "default"
    """CTranslate2's; default: that of the files, as far as the device can"""
    language: str | None = None
    """code of every clip's language; 'own' takes the manifest's; detected when left out"""
    task: Literal["transcribe", "translate"] = "transcribe"
    """what to write"""
    beam_size: int = 5
    """beams at temperature zero"""
    word_timestamps: bool = False
    """times of single words, too"""
    skip_gaps: bool = True
    """cut gaps without speech out of windows; False leaves them to Whisper"""

    def __post_init__(self):
        from whisper.tokenizer import LANGUAGES

        check_alpha(self.steer_alpha)
        check_choices(self)
        if self.language not in (None, OWN_LANGUAGE, *LANGUAGES):
            raise ConfigError(f"--language {self.language}: use a code such as en, or {OWN_LANGUAGE}")
        if not 1 <= self.beam_size <= MOST_CANDIDATES:
            raise ConfigError(f"--beam_size {self.beam_size}: from 1 to {MOST_CANDIDATES}")

    @property
    def pack_used(self) -> str | None:
        """The pack to load; α = 0 needs none, and works with models that nobody has calibrated."""
        return pack_named(self.pack) if self.steer_alpha else None


def settings(options: BatchConfig) -> dict[str, Any]:
    """What rows of one file must have in common, ready for JSON: options, and digests of model and pack.

    Raises WeightsError or PackError if either can't be found.
    """
    from ..models.weights import resolve
    from ..steering.pack import load_pack, stored_digest

    weights = resolve(options.model)
    pack = None if options.pack_used is None else load_pack(options.pack_used, weights)
    named = {name: value for name, value in asdict(options).items() if name not in ("device", "pack")}
    if options.skip_gaps:  # as in files from before the option, which can be gone on with
        del named["skip_gaps"]
    return named | {
        "model": weights.name,
        "model_sha256": weights.sha256,
        "pack": None if pack is None or pack.path is None else pack.path.stem,
        "pack_sha256": None if pack is None or pack.path is None else stored_digest(pack.path),
    }
