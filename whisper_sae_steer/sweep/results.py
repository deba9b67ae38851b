"""What a sweep found: figures of every SAE and setting, those on the frontier, and the verdict."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from ..training.config import TrainConfig
from ..training.downstream import Downstream
from .audio import DomainFigures
from .features import SharedFeatures


class SweptSAE(NamedTuple):
    """One SAE, on frames held back. What the figures are: ``training.quality.Quality``."""

    seed: int
    folder: str
    """below the sweep's own"""
    fvu: float
    l0: float
    features: int
    dead: int
    dense: int
    twins: int
    gate_auc: float | None
    """None if it was not measured"""
    domains: Mapping[str, DomainFigures]
    """figures on each domain's frames alone; none if they were not measured"""
    downstream: Downstream | None
    """None if it was not measured"""


class SweptSetting(NamedTuple):
    """A setting at a tap; its figures are means over its seeds."""

    name: str
    label: str
    """without what all settings of the sweep have in common"""
    tap: str
    config: TrainConfig
    audio: str
    """what is other in the audio; "" for the sweep's own"""
    saes: tuple[SweptSAE, ...]
    pairs: tuple[SharedFeatures, ...]
    """of each two of its SAEs; none with one seed"""

    @property
    def fvu(self) -> float:
        return fmean(sae.fvu for sae in self.saes)

    @property
    def l0(self) -> float:
        return fmean(sae.l0 for sae in self.saes)

    def domain_fvu(self, domain: str) -> float | None:
        """FVU on one domain's frames: speech, music or sound."""
        return _mean([sae.domains[domain].fvu if domain in sae.domains else None for sae in self.saes])

    def share(self, name: str) -> float:
        """Of its features those that are ``dead``, ``dense`` or ``twins``."""
        return fmean(getattr(sae, name) / sae.features for sae in self.saes)

    @property
    def gate_auc(self) -> float | None:
        return _mean([sae.gate_auc for sae in self.saes])

    @property
    def wer_change(self) -> float | None:
        """Of the WER with its reconstruction in place of the frames."""
        costs = [sae.downstream for sae in self.saes]
        return _mean([cost.wer.change.value if cost and cost.wer else None for cost in costs])

    @property
    def fpr_change(self) -> float | None:
        """As :attr:`wer_change`, of FPR_text."""
        costs = [sae.downstream for sae in self.saes]
        return _mean([cost.fpr_text.change.value if cost and cost.fpr_text else None for cost in costs])

    def shared(self, name: str) -> float | None:
        """Mean over its pairs of a field of :class:`SharedFeatures`: its stability."""
        return _mean([getattr(pair, name) for pair in self.pairs])


class Sweep(NamedTuple):
    """Result of :func:`.run.sweep`."""

    conditions: Mapping[str, Any]
    settings: tuple[SweptSetting, ...]

    @property
    def taps(self) -> list[str]:
        return list(dict.fromkeys(setting.tap for setting in self.settings))

    def at(self, tap: str) -> list[SweptSetting]:
        """The settings at a tap."""
        return [setting for setting in self.settings if setting.tap == tap]

    @property
    def best(self) -> list[SweptSetting]:
        """Those on the frontier of their tap."""
        return [setting for tap in self.taps for setting in frontier(self.at(tap))]


def frontier(settings: Sequence[SweptSetting]) -> list[SweptSetting]:
    """Those of one tap that no other beats, with fewer active features the first: none leaves less variance
    unexplained with no more active features, or as much with fewer."""

    def beats(a: SweptSetting, b: SweptSetting) -> bool:
        return a.fvu <= b.fvu and a.l0 <= b.l0 and (a.fvu, a.l0) != (b.fvu, b.l0)

    found = [one for one in settings if not any(beats(other, one) for other in settings)]
    return sorted(found, key=lambda setting: setting.l0)


def verdict(result: Sweep) -> str:
    """Which settings lie on the frontier, in a sentence."""
    parts: list[str] = []
    for tap in result.taps:
        settings = result.at(tap)
        best = frontier(settings)
        named = ", ".join(f"{one.label or one.name} (FVU {one.fvu:.4f} at L0 {one.l0:.1f})" for one in best)
        lie = "lies" if len(best) == 1 else "lie"
        parts.append(
            f"at {tap} {len(best)} of {len(settings)} settings {lie} on the frontier of unexplained variance"
            f" against active features: {named}"
        )
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
