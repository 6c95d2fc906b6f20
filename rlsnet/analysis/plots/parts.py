"""Parts that several figures share: rows of heatmaps and rasters by region, spread by group of neurons, cumulative distributions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rlsnet.analysis import recording_summary
from rlsnet.analysis.plots.style import FAINT, INK, SMALL

MAX_REGIONS = 10  # that have a name in a figure; the smaller ones are drawn together
NAMED = 0.06  # of the rows: a smaller region has no name beside them
OTHER = "other regions"
LONGEST_NAME = 16  # letters


def shortened(name: str, most: int = LONGEST_NAME) -> str:
    """A name of at most so many letters, with an ellipsis in the middle of a longer one."""
    return name if len(name) <= most else f"{name[: (most - 1) // 2]}…{name[-(most // 2) :]}"


def main_regions(region: np.ndarray | None, n: int) -> tuple[np.ndarray, list[str]]:
    """([n] number of the group of each neuron, names): the largest regions by size, then all others; one group "" if unknown."""
    if region is None:
        return np.zeros(n, int), [""]
    names, index, count = np.unique(np.array([str(name) for name in region]), return_inverse=True, return_counts=True)
    by_size = np.argsort(-count, kind="stable")
    rank = np.empty(len(names), int)
    rank[by_size] = np.arange(len(names))
    shown = [recording_summary.named(names[k]) for k in by_size]
    if len(names) <= MAX_REGIONS:
        return rank[index], shown
    return np.minimum(rank[index], MAX_REGIONS - 1), [*shown[: MAX_REGIONS - 1], OTHER]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Order of neurons in the rows of a heatmap or raster, by region.

    order: [n] indices of neurons, from the top row down.
    starts: first row of each region, and the number of rows.
    names: of the regions; one name "" where they are unknown.
    """

    order: np.ndarray
    starts: np.ndarray
    names: Sequence[str]

    @staticmethod
    def of(region: np.ndarray | None, within: np.ndarray) -> Rows:
        """Rows by region, the largest first, and by ascending `within` [n] in a region."""
        group, names = main_regions(region, len(within))
        order = np.lexsort((within, group))
        return Rows(order, np.searchsorted(group[order], np.arange(len(names) + 1)), names)

    def draw(self, axis: Any, colour: str = INK) -> None:
        """Draws lines between the regions of an axis with a unit per row, and the names of the larger ones in place of ticks."""
        total = int(self.starts[-1])
        for start in self.starts[1:-1]:
            axis.axhline(start, color=colour, lw=0.4)
        if not any(self.names):
            return
        middle = (self.starts[:-1] + self.starts[1:]) / 2
        large = np.diff(self.starts) >= NAMED * total
        axis.set_yticks(middle[large], [shortened(name) for name, keep in zip(self.names, large, strict=True) if keep], fontsize=SMALL)
        axis.tick_params(axis="y", length=0)

    @property
    def by(self) -> str:
        """The order of regions in words, for a title."""
        return "by region, then " if any(self.names) else ""


def groups_of(region: np.ndarray | None, excitatory: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(label, [n] bool) of all neurons and of the main regions or, where these are unknown, of the classes."""
    yield "all", np.ones(len(excitatory), bool)
    if region is None:
        yield from ((name, members) for name, members in (("excitatory", excitatory), ("inhibitory", ~excitatory)) if members.any())
        return
    group, names = main_regions(region, len(excitatory))
    yield from ((shortened(name), group == k) for k, name in enumerate(names))


def draw_spread(
    axis: Any,
    groups: Sequence[tuple[str, np.ndarray]],
    series: Mapping[str, tuple[np.ndarray, str, str]],
) -> None:
    """Draws, for groups of neurons one below the other, the median, quartiles and 5 to 95 % range of values over their neurons.

    Args:
      axis: of the panel.
      groups: (label, [n] bool) of each row.
      series: by label for the legend: ([n] values, colour, marker).
    """
    step = 0.7 / len(series)
    for place, (label, (values, colour, marker)) in enumerate(series.items()):
        rows = np.arange(len(groups)) - 0.35 + step * (place + 0.5)
        for row, (_, members) in zip(rows, groups, strict=True):
            known = values[members & np.isfinite(values)]
            if known.size:
                low, first, middle, third, high = np.quantile(known, [0.05, 0.25, 0.5, 0.75, 0.95])
                axis.plot((low, high), (row, row), color=colour, lw=0.6, solid_capstyle="butt")
                axis.plot((first, third), (row, row), color=colour, lw=2, solid_capstyle="butt")
                axis.plot(middle, row, marker, color=colour, ms=4, mfc="white", mew=1)
        axis.plot([], [], marker, color=colour, ms=4, mfc="white", mew=1, ls="-", lw=2, label=label)
    names = [f"{label} ({members.sum():,})" for label, members in groups]
    axis.set_yticks(np.arange(len(groups)), names)
    axis.set_ylim(len(groups) - 0.5, -0.5)
    for edge in np.arange(len(groups) - 1) + 0.5:
        axis.axhline(edge, color=FAINT, lw=0.4)


def draw_cumulative(axis: Any, values: np.ndarray, colour: str, line: Mapping[str, Any], label: str) -> None:
    """Draws the cumulative distribution of the values that are not NaN, with their median in the legend."""
    known = np.sort(values[np.isfinite(values)])
    if not known.size:
        axis.plot([], [], color=colour, label=f"{label}: undefined", **line)
        return
    fraction = np.arange(1, known.size + 1) / known.size
    axis.step(np.r_[known[0], known], np.r_[0, fraction], where="post", color=colour, label=f"{label}: {np.median(known):.2f}", **line)


def place_legend_above(axis: Any, columns: int = 2, right: bool = False, **options: Any) -> None:
    """Places the legend of an axis above it, where no data are hidden; if `right`, it ends where the axis ends."""
    where = {"loc": "lower right", "bbox_to_anchor": (1, 1)} if right else {"loc": "lower left", "bbox_to_anchor": (0, 1)}
    axis.legend(**where, borderaxespad=0.2, ncols=columns, columnspacing=1.2, handlelength=1.8, **options)
