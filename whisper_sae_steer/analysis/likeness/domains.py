"""Domain specialisation: which features are of speech, of music, of other sound, layer by layer."""

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.patches import Circle
from tqdm import tqdm

from ...audio.units import ENCODER_FRAMES_PER_SECOND
from ...commands.fields import add_fields, from_fields
from ...reports.page import aligned, image, paragraph, percent, table
from ..store.activations import ActivationStore, order_of_tap
from ..store.arguments import add_stores_argument, chosen_saes
from .embedding import embed
from .specialisation import NOBODY, DomainOptions, Level, Specialisation, specialise

TITLE = "Domains"
QUESTION = "Which features fire for speech, for music, for other sound, and in which layers?"
HEIGHT = 5.6
COLOURS = {"speech": "#1f77b4", "music": "#ff7f0e", "sound": "#2ca02c", "shared": "#bbbbbb"}
FRAMES_A_MINUTE = 60 * ENCODER_FRAMES_PER_SECOND
LEVELS = {"frames": "-", "windows": "--"}


class SAEDomains(NamedTuple):
    """One SAE's features by domain."""

    sae: str
    model: str
    tap: str
    features: int
    found: Specialisation
    map: tuple[tuple[float, float] | None, ...] | None
    """[F] place of each live feature on the map of encoder rows; None if no map was asked for"""


class Domains(NamedTuple):
    """Result of :func:`domains`."""

    options: DomainOptions
    saes: tuple[SAEDomains, ...]
    """in the order of their taps"""


def domains(
    sources: Sequence[tuple[ActivationStore, str]],
    options: DomainOptions | None = None,
    with_map: bool = False,
) -> Domains:
    """Specialisation of several SAEs' features. AnalysisError as :func:`specialise` and :func:`embed`."""
    options = options or DomainOptions()
    found: list[SAEDomains] = []
    for store, name in tqdm(sources, desc="domains", unit="SAE"):
        sae = store.sae(name)
        special = specialise(store.features(name), store.windows, options)
        places = None
        if with_map:
            alive = np.array([domain is not None for domain in special.frames.domain])
            places = tuple(
                (round(float(x), 3), round(float(y), 3)) if fires else None
                for (x, y), fires in zip(embed(sae, alive), alive, strict=True)
            )
        found.append(SAEDomains(name, store.model, sae.config.tap, sae.config.d_sae, special, places))
    found.sort(key=lambda one: (one.model, order_of_tap(one.tap)))
    return Domains(options, tuple(found))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_stores_argument(
        parser, "folder that `analyze encode` made, and which of its SAEs; several, of other layers: a curve"
    )
    add_fields(parser, DomainOptions)
    parser.add_argument(
        "--map", action="store_true", help="also draw a map of the encoder rows (t-SNE; a minute an SAE)"
    )


def run(args: argparse.Namespace) -> Domains:
    return domains(chosen_saes(args), from_fields(args, DomainOptions), args.map)


def text(result: Domains) -> list[str]:
    return aligned(_head(result), _rows(result))


def plot(result: Domains, figure: Any) -> None:
    """Venn diagrams of the last SAE, and below them the curve over all."""
    last = result.saes[-1]
    (left, right), (below, beside) = figure.subplots(2, 2)
    _draw_venn(last.found.frames, left, f"{_name(last)}, frames")
    _draw_venn(last.found.windows, right, f"{_name(last)}, windows")
    if last.map is None:
        figure.delaxes(beside)
        below.set_subplotspec(figure.axes[0].get_gridspec()[1, :])
    else:
        _draw_map(last, beside)
    (_draw_curve if len(result.saes) > 1 else _draw_bars)(result, below)


def section(result: Domains) -> list[str]:
    last, options = result.saes[-1], result.options
    parts = [
        paragraph(_answer(last)),
        table(_head(result), _rows(result)),
        paragraph(_definition(options), small=True),
        table(["features of", "domain", "windows", "recordings or speakers", "minutes"], _size_rows(result)),
        *_venn_tables(result),
    ]
    if len(result.saes) > 1 and last.map is not None:
        height = 3.2 * -(-len(result.saes) // 2)
        parts.append(image(lambda figure: _draw_maps(result, figure), "Maps of encoder rows", height))
    if last.map is not None:
        parts.append(paragraph("Maps: t-SNE of encoder rows by their cosine, perplexity 30.", small=True))
    return parts


def _answer(one: SAEDomains) -> str:
    level = one.found.frames
    shares = ", ".join(
        f"{percent(share.share)} of {domain} ({percent(share.chance)} by chance)"
        for domain, share in level.specialised.items()
    )
    shared = 1 - sum(share.share for share in level.specialised.values())
    return (
        f"Of the {level.alive} live features of {_name(one)}, by the frames they fire on, {shares};"
        f" {percent(shared)} are of no one domain."
    )


def _definition(options: DomainOptions) -> str:
    return (
        "A feature's rate in a domain is the share of the domain's frames (or windows of up to 30 s) that it"
        " fires on. It is specialised in a domain that has more than"
        f" {percent(options.part, 0)} of the sum of its rates, so the domains' sizes don't count. Shares are"
        " of the features that fire at all; intervals of 95% by bootstrap of recordings or speakers; by"
        " chance: with the domains shuffled among recordings or speakers. In the Venn diagrams a feature"
        f" counts for a domain where it fires on more than {100 * options.frame_rate:g}% of the frames, or"
        f" {100 * options.window_rate:g}% of the windows. Longer windows give a feature more chances to fire."
    )


def _head(result: Domains) -> list[str]:
    return ["features of", "by", "alive", *result.saes[-1].found.frames.specialised, "no one"]


def _rows(result: Domains) -> list[list[str]]:
    rows: list[list[str]] = []
    for one in result.saes:
        for by in LEVELS:
            level = _level(one, by)
            cells: list[str] = []
            for share in level.specialised.values():
                interval = "" if share.low is None else f" ({percent(share.low)} – {percent(share.high)})"
                cells.append(percent(share.share) + interval)
            shared = 1 - sum(share.share for share in level.specialised.values())
            rows.append([_name(one), by, str(level.alive), *cells, percent(shared)])
    return rows


def _size_rows(result: Domains) -> list[list[str]]:
    return [
        [_name(one), size.domain, str(size.windows), str(size.groups), f"{size.frames / FRAMES_A_MINUTE:.1f}"]
        for one in result.saes
        for size in one.found.sizes
    ]


def _venn_tables(result: Domains) -> list[str]:
    head = ["features of", "by", *result.saes[-1].found.frames.venn]
    rows = [
        [_name(one), by, *map(str, _level(one, by).venn.values())] for one in result.saes for by in LEVELS
    ]
    return [table(head, rows), paragraph("Features by the domains they fire in.", small=True)]


def _name(one: SAEDomains) -> str:
    return f"{one.sae} ({one.model}, {one.tap})"


def _level(one: SAEDomains, by: str) -> Level:
    return one.found.frames if by == "frames" else one.found.windows


def _draw_venn(level: Level, axes: Any, title: str) -> None:
    """Equal circles with the counts in them: areas can't show counts that differ by a factor of 100."""
    names = list(level.specialised)
    start = np.pi / 2 if len(names) == 3 else np.pi
    angles = [start - 2 * np.pi * i / len(names) for i in range(len(names))]
    towards = {name: np.array([np.cos(a), np.sin(a)]) for name, a in zip(names, angles, strict=True)}
    for name, direction in towards.items():
        axes.add_patch(
            Circle((0.6 * direction[0], 0.6 * direction[1]), 1, color=COLOURS[name], alpha=0.3, linewidth=0)
        )
        axes.text(*(1.75 * direction), name, ha="center", va="center", color=COLOURS[name])
    for key, count in level.venn.items():
        if key != NOBODY:
            members = key.split("+")
            # one: outside of the others; two of three: opposite the third; all: in the middle
            place = sum((towards[name] for name in members), np.zeros(2))
            axes.text(*(place * (1.0 if len(members) == 1 else 0.65)), str(count), ha="center", va="center")
    axes.text(2.4, -1.7, f"in none: {level.venn[NOBODY]}", ha="right", fontsize=7)
    axes.set(xlim=(-2.4, 2.4), ylim=(-1.8, 1.9), aspect="equal")
    axes.set_title(title, fontsize=8)
    axes.axis("off")


def _draw_curve(result: Domains, axes: Any) -> None:
    """Shares by SAE; frames as lines, windows dashed, bars the intervals."""
    places = range(len(result.saes))
    for name in result.saes[-1].found.frames.specialised:
        for by, line in LEVELS.items():
            shares = [_level(one, by).specialised.get(name) for one in result.saes]
            middle = [100 * share.share if share else np.nan for share in shares]
            spread = [
                100 * (share.high - share.share) if share and share.high is not None else 0
                for share in shares
            ]
            label = f"{name}, {by}"
            axes.errorbar(
                places, middle, spread, color=COLOURS[name], linestyle=line, marker="o", label=label
            )
    names = [one.tap for one in result.saes]
    axes.set_xticks(places, names, rotation=90 if len(names) > 4 else 0, fontsize=7)
    axes.set_ylabel("specialised features, %")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=6, frameon=False)


def _draw_bars(result: Domains, axes: Any) -> None:
    """The shares of one SAE; windows are paler."""
    for offset, by in zip((-0.2, 0.2), LEVELS, strict=True):
        for i, (name, share) in enumerate(_level(result.saes[0], by).specialised.items()):
            error = None if share.high is None else 100 * (share.high - share.share)
            alpha = 1 if by == "frames" else 0.5
            axes.bar(i + offset, 100 * share.share, 0.4, yerr=error, color=COLOURS[name], alpha=alpha)
    names = list(result.saes[0].found.frames.specialised)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("specialised, % (pale: by windows)")


def _draw_map(one: SAEDomains, axes: Any) -> None:
    assert one.map is not None
    for domain in reversed(list(COLOURS)):
        found = zip(one.map, one.found.frames.domain, strict=True)
        points = [place for place, of in found if place and of == domain]
        if points:
            axes.scatter(
                *zip(*points, strict=True), s=2, color=COLOURS[domain], label=domain, rasterized=True
            )
    axes.set_title(f"{_name(one)}, encoder rows", fontsize=8)
    axes.legend(fontsize=6, frameon=False, markerscale=3)
    axes.set(xticks=[], yticks=[])


def _draw_maps(result: Domains, figure: Any) -> None:
    axes = figure.subplots(-(-len(result.saes) // 2), 2, squeeze=False).flat
    for one, place in zip(result.saes, axes, strict=False):
        _draw_map(one, place)
    for place in list(axes)[len(result.saes) :]:
        place.axis("off")
