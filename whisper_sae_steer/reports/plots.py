"""Plots that several pages draw, on matplotlib axes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

OURS_COLOUR, OTHER_COLOUR = "#c2410c", "#1d4ed8"
FEW = 40
"""values of the longest series up to which each is a point of its own: bars of four say nothing"""


def distribution(axes: Any, series: Mapping[str, Sequence[float]], low: float, high: float) -> None:
    """How values from ``low`` to ``high`` are spread: as histograms, or as points where they are few."""
    colours = [OTHER_COLOUR, OURS_COLOUR][: len(series)]
    axes.set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))
    if max(map(len, series.values())) > FEW:
        edges = [low + (high - low) * i / 20 for i in range(21)]
        axes.hist(list(series.values()), bins=edges, label=list(series), color=colours)
        axes.set_ylabel("windows")
        axes.legend(frameon=False)
        return
    for row, (values, colour) in enumerate(zip(series.values(), colours, strict=True)):
        axes.plot(values, _stacked(values, row, (high - low) / 40), "o", ms=5, color=colour, alpha=0.7)
    axes.set_yticks(range(len(series)), list(series))
    axes.set_ylim(len(series) - 0.4, -0.6)


def name_points(axes: Any, points: Mapping[tuple[float, float], Sequence[str]]) -> None:
    """Names at the right margin, the highest point's on top, with a line from each to its point."""
    order = sorted(points, key=lambda point: (-point[1], -point[0]))
    lines = sum(len(points[point]) for point in order)
    below = 0
    for point in order:
        names = points[point]
        place = 1 - (below + len(names) / 2) / lines
        below += len(names)
        axes.annotate(
            "\n".join(names), point,
            xytext=(1.04, place), textcoords="axes fraction", va="center", fontsize=8,
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "0.6", "shrinkB": 4},
        )  # fmt: skip


def colours(count: int) -> list[Any]:
    """So many colours that are told apart and have an order."""
    from matplotlib import colormaps  # drawing is slow to import and needed only here

    ramp = colormaps["viridis"]
    return ["C0"] if count == 1 else [ramp(0.9 * i / (count - 1)) for i in range(count)]


def legend(figure: Any, axes: Any, count: int) -> None:
    """What ``count`` lines of the axes are, below the figure; nothing for a single one."""
    if count > 1:
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(count, 4), frameon=False)


def _stacked(values: Sequence[float], row: int, apart: float) -> list[float]:
    """The height of each point of a row: those nearer than ``apart`` to each other lie one on the other."""
    in_bin: dict[int, int] = defaultdict(int)
    heights: list[float] = []
    for value in values:
        place = round(value / apart)
        heights.append(row - 0.09 * in_bin[place] % 0.55)
        in_bin[place] += 1
    return heights
