"""Which features fire for one domain and not for the others.

A feature's rate in a domain is the share of the domain's frames, or windows, that it fires on, so that all
domains count alike however much audio they have. A domain's part of the sum of a feature's rates is then its
probability, given that the feature fires and that all domains are as likely; the feature is specialised in
the domain whose part is large. AudioSAE (arXiv 2602.05027) sorts features into speech, music and sound, too;
this rule is ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ...errors import AnalysisError
from ..store.activations import Window
from ..store.overlap import firing
from ..store.sparse import product, summing

DOMAINS = ("speech", "music", "sound")
SHARED, NOBODY = "shared", "none"
REPLICATES, SHUFFLES = 200, 20
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DomainOptions:
    """What counts as specialised, and as firing in a domain at all."""

    part: float = 0.9
    """a feature is specialised in a domain that has more than this part of its rates' sum"""
    frame_rate: float = 1e-4
    """a feature fires in a domain if it does on more than this share of the domain's frames"""
    window_rate: float = 0.01
    """the same for windows of up to 30 s: those with any frame that it fires on"""


class DomainShare(NamedTuple):
    """Features specialised in one domain."""

    features: int
    share: float
    """of those that fire at all"""
    low: float | None
    """95% interval: 1.96 standard deviations of 200 bootstrap samples of recordings or speakers, drawn within
    domains; None where a domain has only one"""
    high: float | None
    chance: float | None
    """share if domains are shuffled among recordings or speakers"""


class Level(NamedTuple):
    """Frames, or windows."""

    alive: int
    """features that fire at all"""
    specialised: dict[str, DomainShare]
    """by domain"""
    venn: dict[str, int]
    """features by the domains they fire in: ``speech``, ``speech+music``, …, ``none``"""
    domain: tuple[str | None, ...]
    """[F] the domain a feature is specialised in, ``shared`` if in none, None if it is dead"""


class DomainSize(NamedTuple):
    """Audio of a domain."""

    domain: str
    windows: int
    groups: int
    """recordings or speakers"""
    frames: int


class Specialisation(NamedTuple):
    """Result of :func:`specialise`."""

    sizes: tuple[DomainSize, ...]
    frames: Level
    windows: Level
    rates: dict[str, tuple[float, ...]]
    """[F] by domain: share of its frames that the feature fires on"""


class _GroupCounts(NamedTuple):
    """Recordings or speakers, which are drawn and shuffled as wholes."""

    domains: NDArray[np.intp]
    """[G] number of each one's domain"""
    hits: Floats
    """[G, F] frames or windows that features fire on"""
    totals: Floats
    """[G]"""


def specialise(
    features: csr_matrix, windows: Sequence[Window], options: DomainOptions | None = None
) -> Specialisation:
    """Features [rows, F] on a store's windows. AnalysisError unless at least two domains are there."""
    options = options or DomainOptions()
    present = [domain for domain in DOMAINS if any(window.domain == domain for window in windows)]
    if len(present) < 2:
        raise AnalysisError(
            f"the recordings are all {present[0] if present else 'of no known domain'};"
            " encode others beside them: speech=DIR music=DIR sound=DIR"
        )
    keys = sorted({(present.index(window.domain), window.group) for window in windows})
    number = {key: i for i, key in enumerate(keys)}
    group_of = np.array([number[present.index(window.domain), window.group] for window in windows])
    domains = np.array([domain for domain, _ in keys])
    lengths = np.array([window.frames for window in windows])
    window_of = np.repeat(np.arange(len(windows)), lengths)
    hits = product(summing(window_of, len(windows)), firing(features))
    by_frame = _GroupCounts(domains, _add(hits, group_of, len(keys)), _add(lengths, group_of, len(keys)))
    by_window = _GroupCounts(
        domains, _add(hits > 0, group_of, len(keys)), np.bincount(group_of).astype(np.float64)
    )
    if not hits.any():
        raise AnalysisError("no feature fires on these recordings; encode others")
    sizes = [
        DomainSize(
            name,
            sum(window.domain == name for window in windows),
            int((domains == i).sum()),
            sum(window.frames for window in windows if window.domain == name),
        )
        for i, name in enumerate(present)
    ]
    rates = dict(zip(present, _rates(by_frame, len(present)), strict=True))
    return Specialisation(
        tuple(sizes),
        _level(by_frame, present, options.part, options.frame_rate),
        _level(by_window, present, options.part, options.window_rate),
        {name: tuple(round(float(rate), 6) for rate in row) for name, row in rates.items()},
    )


def _level(groups: _GroupCounts, names: Sequence[str], part: float, least: float) -> Level:
    rates = _rates(groups, len(names))
    alive = rates.max(0) > 0
    domain, shares = _domain(rates, part), _shares(rates, part)
    spread, chance = _spread(groups, len(names), part), _chance(groups, len(names), part)
    specialised: dict[str, DomainShare] = {}
    for i, name in enumerate(names):
        low = high = None
        if spread is not None:
            half = 1.96 * float(spread[i])
            low, high = max(0.0, float(shares[i]) - half), min(1.0, float(shares[i]) + half)
        specialised[name] = DomainShare(
            int((domain == i).sum()), float(shares[i]), low, high, float(chance[i])
        )
    return Level(
        int(alive.sum()),
        specialised,
        _venn(rates > least, names),
        tuple(
            ([*names, SHARED][int(i)] if fires else None)
            for i, fires in zip(domain, np.atleast_1d(alive), strict=True)
        ),
    )


def _rates(groups: _GroupCounts, domains: int, weights: Floats | None = None) -> Floats:
    """[D, F]: share of each domain's frames or windows; ``weights`` [G] count units more than once."""
    members = (groups.domains == np.arange(domains)[:, None]) * (1.0 if weights is None else weights)
    return members @ groups.hits / (members @ groups.totals)[:, None]


def _domain(rates: Floats, part: float) -> NDArray[np.intp]:
    """[F]: number of the domain a feature is specialised in, or -1."""
    total = rates.sum(0)
    return np.where((rates.max(0) > part * total) & (total > 0), rates.argmax(0), -1)


def _shares(rates: Floats, part: float) -> Floats:
    """[D]: specialised features among those that fire."""
    domain = _domain(rates, part)
    return np.array([(domain == i).sum() for i in range(len(rates))]) / rates.any(0).sum()


def _spread(groups: _GroupCounts, domains: int, part: float) -> Floats | None:
    """[D]: standard deviation of the shares over bootstrap samples of units, each domain's own."""
    sizes = np.bincount(groups.domains, minlength=domains)
    if sizes.min() < 2:
        return None
    rng = np.random.default_rng(0)
    samples: list[Floats] = []
    for _ in range(REPLICATES):
        weights = np.zeros(len(groups.domains))
        for i, size in enumerate(sizes):
            weights[groups.domains == i] = rng.multinomial(size, np.full(size, 1 / size))
        samples.append(_shares(_rates(groups, domains, weights), part))
    return np.std(samples, axis=0)


def _chance(groups: _GroupCounts, domains: int, part: float) -> Floats:
    """[D]: mean shares with the units' domains shuffled."""
    rng = np.random.default_rng(0)
    shuffled = [groups._replace(domains=rng.permutation(groups.domains)) for _ in range(SHUFFLES)]
    return np.mean([_shares(_rates(one, domains), part) for one in shuffled], axis=0)


def _venn(fires: NDArray[np.bool_], names: Sequence[str]) -> dict[str, int]:
    """``fires`` [D, F] → features by the set of domains."""
    counts: dict[str, int] = {}
    for size in range(1, len(names) + 1):
        for members in combinations(range(len(names)), size):
            exactly = (fires == np.isin(range(len(names)), members)[:, None]).all(0)
            counts["+".join(names[i] for i in members)] = int(exactly.sum())
    counts[NOBODY] = int((~fires.any(0)).sum())
    return counts


def _add(values: NDArray[np.generic], groups: NDArray[np.intp], count: int) -> Floats:
    """Sums of ``values`` [W] or [W, F] of each group: [count] or [count, F]."""
    sums = np.zeros((count, *values.shape[1:]))
    np.add.at(sums, groups, values)
    return sums
