"""How settings differ from the first one of their tap, with intervals over the seeds."""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.stats import t

from .results import Sweep, SweptSetting


class SeedDifference(NamedTuple):
    """Mean of the differences seed by seed, and its 95% interval by Student's t."""

    value: float
    low: float
    high: float
    n: int
    """seeds; of what is shared by two of them pairs, which aren't independent of one another"""

    @property
    def differs(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def differences(result: Sweep) -> list[tuple[SweptSetting, dict[str, SeedDifference]]]:
    """Each setting but the first of its tap, with each figure's difference from that one; none with one seed.

    Figures that were not measured are left out, and intervals that one value gives no hold for.
    """
    found: list[tuple[SweptSetting, dict[str, SeedDifference]]] = []
    for tap in result.taps:
        first, *rest = result.at(tap)
        before = _figures(first)
        for setting in rest:
            after = _figures(setting)
            known = {name: _difference(after[name], before[name]) for name in before if name in after}
            if told := {name: one for name, one in known.items() if one is not None}:
                found.append((setting, told))
    return found


def _figures(setting: SweptSetting) -> dict[str, list[float]]:
    """Figures of a setting, seed by seed, or pair by pair of seeds."""
    saes = setting.saes
    each: dict[str, list[float | None]] = {
        "fvu": [sae.fvu for sae in saes],
        **{f"fvu_{domain}": [sae.domains[domain].fvu for sae in saes] for domain in saes[0].domains},
        "l0": [sae.l0 for sae in saes],
        **{
            f"{name}_share": [getattr(sae, name) / sae.features for sae in saes] for name in ("dead", "twins")
        },
        "gate_auc": [sae.gate_auc for sae in saes],
        **{name: [getattr(pair, name) for pair in setting.pairs] for name in ("found", "of_firings")},
    }
    return {
        name: known
        for name, values in each.items()
        if (known := [one for one in values if one is not None]) and len(known) == len(values)
    }


def _difference(after: Sequence[float], before: Sequence[float]) -> SeedDifference | None:
    """None unless there are two values of each, for the same seeds or pairs."""
    if len(after) != len(before) or len(after) < 2:
        return None
    changes = [a - b for a, b in zip(after, before, strict=True)]
    n, mean = len(changes), fmean(changes)
    half = float(t.ppf(0.975, n - 1)) * stdev(changes) / sqrt(n)
    return SeedDifference(mean, mean - half, mean + half, n)
