"""How good an SAE is on frames: what it explains, how sparsely, and which features earn their place."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import CalibrationError
from ..sae.autoencoder import SAE

ROWS = 4096
"""frames encoded at a time, at most; the training rule picks its features among this many"""
CELLS = 1 << 25
"""activations held at a time, at most"""
TWIN_COSINE = 0.9
"""a feature with a neighbour this close does another's work"""
FREQUENCY_EDGES = tuple(i / 4 - 7 for i in range(29))
COSINE_EDGES = tuple((i - 50) / 50 for i in range(101))


@dataclass(frozen=True)
class Histogram:
    """Counts between fixed edges, so that SAEs compare; what lies outside is in the outermost bins."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    """one fewer than the edges"""


@dataclass(frozen=True)
class Quality:
    """What :func:`measure` found at the inference threshold, on the frames it was given."""

    frames: int
    fvu: float
    """fraction of variance unexplained: squared residuals over squared distances from the frames' mean"""
    l0: float
    """active features a frame, on average"""
    k: int | None
    """active features a frame that training aimed at; None if the SAE doesn't tell"""
    rule_fvu: float | None
    """FVU by the training rule of BatchTopK (the k·n largest of n ≤ ROWS frames, as they come); None
    without k"""
    rule_l0: float | None
    """L0 by that rule: k, unless too few activations are positive"""
    features: int
    dead: int
    """features that fired on none of the frames"""
    dense: int
    """features that fired on more than a share of ``dense_above`` of them"""
    dense_above: float
    twins: int
    """features whose decoder row has a cosine above TWIN_COSINE to another row"""
    frequency: Histogram
    """log10 of the share of frames a feature fired on; dead features are left out"""
    cosine: Histogram
    """highest cosine of each decoder row to another row"""

    @property
    def explained_variance(self) -> float:
        """1 − FVU."""
        return 1 - self.fvu

    @property
    def threshold_transfer(self) -> float | None:
        """L0 at the threshold over k: 1 if the threshold stands in for the training rule."""
        return self.l0 / self.k if self.k else None

    @property
    def dead_share(self) -> float:
        """Dead features, as a share of all."""
        return self.dead / self.features

    @property
    def dense_share(self) -> float:
        """Dense features, as a share of all."""
        return self.dense / self.features


class _Variance:
    """Sum of squared distances from the mean of all frames seen (Chan, Golub & LeVeque 1983)."""

    def __init__(self, width: int):
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self.squares = 0.0

    def add(self, x: Tensor) -> None:
        """Take in frames [n, d] float64."""
        n, mean = len(x), x.mean(0)
        shift, total = mean - self.mean, self.count + len(x)
        between = float(shift.square().sum()) * self.count * n / total
        self.squares += float((x - mean).square().sum()) + between
        self.mean += shift * (n / total)
        self.count = total


@torch.no_grad()
def measure(sae: SAE, batches: Iterable[Tensor], dense_above: float = 0.1) -> Quality:
    """Measure a jumprelu SAE on frames, given as batches [n, d_in] of any float dtype.

    Streams: memory depends on the SAE and on the largest batch alone. Sums are float64. Raises
    CalibrationError for frames that are none, all the same, of another width or not finite, and
    SAEFormatError for an SAE without a threshold.
    """
    k, width = sae.config.k, sae.config.d_in
    variance = _Variance(width)
    fired = torch.zeros(sae.config.d_sae, dtype=torch.int64)
    error = rule_error = 0.0
    kept = 0
    for frames in _chunks(batches, sae):
        exact = frames.cpu().double()
        variance.add(exact)
        x = frames.to(sae.W_enc)
        active = sae.encode(x)
        fired += (active > 0).sum(0).cpu()
        error += _residual(sae, exact, active)
        if k:
            chosen = _training_rule(sae, x, k)
            kept += int(chosen.count_nonzero())
            rule_error += _residual(sae, exact, chosen)
    n, total = variance.count, variance.squares
    if not n:
        raise CalibrationError("no frames to measure quality on; give some")
    if not total:
        raise CalibrationError("all frames are the same: no variance to explain; give recordings that differ")
    share = fired.double() / n
    cosine = highest_cosines(sae.W_dec)
    return Quality(
        frames=n,
        fvu=error / total,
        l0=int(fired.sum()) / n,
        k=k,
        rule_fvu=rule_error / total if k else None,
        rule_l0=kept / n if k else None,
        features=len(fired),
        dead=int((fired == 0).sum()),
        dense=int((share > dense_above).sum()),
        dense_above=dense_above,
        twins=int((cosine > TWIN_COSINE).sum()),
        frequency=_histogram(share[fired > 0].log10(), FREQUENCY_EDGES),
        cosine=_histogram(cosine.double(), COSINE_EDGES),
    )


@torch.no_grad()
def highest_cosines(rows: Tensor, chunk: int = 1024) -> Tensor:
    """Highest cosine of each row [F, d] to another row: [F] float32 on the CPU; empty for one row."""
    if len(rows) < 2:
        return torch.empty(0)
    units = torch.nn.functional.normalize(rows.float(), dim=-1)
    highest: list[Tensor] = []
    for start in range(0, len(units), chunk):
        cosines = units[start : start + chunk] @ units.T
        cosines.diagonal(start).fill_(-2)  # a row is no neighbour of its own
        highest.append(cosines.amax(1).cpu())
    return torch.cat(highest)


def _chunks(batches: Iterable[Tensor], sae: SAE) -> Iterator[Tensor]:
    """Checked frames, few enough at a time for their activations to fit."""
    rows = max(1, min(ROWS, CELLS // sae.config.d_sae))
    for batch in batches:
        if batch.dim() != 2 or batch.shape[1] != sae.config.d_in:
            raise CalibrationError(
                f"frames must be [n, {sae.config.d_in}] for this SAE, not {list(batch.shape)}"
            )
        if not batch.isfinite().all():
            raise CalibrationError("frames hold values that are not finite; encode the audio again")
        yield from (chunk for chunk in batch.split(rows) if len(chunk))


def _residual(sae: SAE, exact: Tensor, features: Tensor) -> float:
    """Squared distance of frames [n, d] float64 from what features [n, F] decode to."""
    return float((exact - sae.decode(features).cpu().double()).square().sum())


def _training_rule(sae: SAE, x: Tensor, k: int) -> Tensor:
    """The k·n largest positive activations of frames [n, d], the rest zero: [n, F]."""
    acts = torch.relu(sae.preactivations(x)).flatten()
    values, indices = acts.topk(min(k * len(x), acts.numel()))
    return torch.zeros_like(acts).scatter_(0, indices, values).view(len(x), -1)


def _histogram(values: Tensor, edges: tuple[float, ...]) -> Histogram:
    inner = torch.tensor(edges[1:-1], dtype=torch.float64)
    places = torch.bucketize(values, inner, right=True)
    return Histogram(edges, tuple(torch.bincount(places, minlength=len(edges) - 1).tolist()))
