"""What a sweep is made of: settings, taps and seeds, and the names of settings."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..errors import ConfigError
from ..training.config import TrainConfig
from ..training.trainee import Member
from ..training.trainer import SHARED


@dataclass(frozen=True)
class SweepConfig:
    """Options of :func:`.run.sweep`. ConfigError for settings that are the same, or can't be compared."""

    settings: tuple[TrainConfig, ...]
    """options of training, one each; those that make batches (``SHARED``) are the same in all"""
    taps: tuple[str, ...] = ()
    """places in the encoder, each for every setting; all of the source's if none is named"""
    seeds: tuple[int, ...] = (0,)
    """one SAE of every setting from each; how many features two of them share is a setting's stability"""
    memory_gb: float = 4.0
    """GB in all; what would take more is trained in groups, one after the other"""

    def __post_init__(self):
        if not self.settings or not self.seeds:
            raise ConfigError("a sweep needs at least one setting and one seed")
        for what, values in (("tap", self.taps), ("seed", self.seeds)):
            if twice := _repeated(values):
                raise ConfigError(f"{what} {twice[0]} is given twice; name each once")
        if any(config.max_fvu is not None for config in self.settings):
            raise ConfigError("settings are compared after their steps; leave max_fvu out")
        used = [_used(config) for config in self.settings]
        if twice := _repeated(used):
            raise ConfigError(
                f"two settings are one training, {setting_name(twice[0])}: it uses nothing they differ in"
            )
        if twice := _repeated([setting_name(config) for config in used]):
            raise ConfigError(f"two settings have the name {twice[0]}: they differ by too little")

    def members(self, taps: Sequence[str], audio: str = "") -> dict[Member, TrainConfig]:
        """Every SAE on one audio with its options, tap by tap; ``taps`` are those of the source."""
        return {
            Member(tap, seed, setting_name(config, audio)): config
            for tap in self.taps or taps
            for config in self.settings
            for seed in self.seeds
        }


def setting_name(config: TrainConfig, audio: str = "") -> str:
    """Name of a setting, also its folder's: the same whatever else a sweep holds."""
    return "-".join(setting_parts(config, audio))


def setting_parts(config: TrainConfig, audio: str = "") -> list[str]:
    """``batchtopk``, ``k50``, ``x8``, what is not as it is by default, and audio that is not the sweep's own;
    not what ``SHARED`` names."""
    used, usual = asdict(_used(config)), asdict(TrainConfig())
    size = f"d{config.d_sae}" if config.d_sae else f"x{config.expansion}"
    rest = [name for name in used if name not in ("architecture", "k", "d_sae", "expansion", *SHARED)]
    return [
        config.architecture,
        f"k{config.k}",
        size,
        *(name + _short(used[name]) for name in rest if used[name] != usual[name]),
        *([audio] if audio else []),
    ]


def labels(settings: Sequence[tuple[TrainConfig, str]]) -> list[str]:
    """Short names of settings, each options and audio: without what all of them have in common."""
    parts = [setting_parts(*setting) for setting in settings]
    common = set(parts[0]).intersection(*parts) if len(parts) > 1 else set[str]()
    return [" ".join(part for part in one if part not in common) for one in parts]


def _used(config: TrainConfig) -> TrainConfig:
    """The same training, with options that it doesn't use as they are by default."""
    unused: list[str] = ["expansion"] if config.d_sae else []
    if config.architecture != "jumprelu":
        unused += ["sparsity_coefficient", "bandwidth", "compile"]
        unused += ["sparsity_share"] if config.k_start is None else []
    if config.architecture != "matryoshka":
        unused.append("prefixes")
    usual = asdict(TrainConfig())
    changes: Mapping[str, Any] = {name: usual[name] for name in unused}
    return replace(config, **changes)


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return ""
    if isinstance(value, tuple):
        return "_".join(f"{one:g}" for one in value)
    return f"{value:g}"


def _repeated(values: Sequence[Any]) -> list[Any]:
    """Those that came before."""
    return [value for i, value in enumerate(values) if value in values[:i]]
