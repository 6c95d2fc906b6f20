"""Parts that several figures share: rows of heatmaps and rasters by region, spread by group of neurons, cumulative distributions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.font_manager import FontProperties

from rlsnet.analysis import recording_summary
from rlsnet.analysis.plots.style import FAINT, INK, LEGEND_SIZE, SMALL, SOFT, text_width

MAX_REGIONS = 10  # that have a name in a figure; the smaller ones are drawn together
LEADER = 6  # pt, length of the lines from rows to names that are not beside them
OTHER = "other regions"
LONGEST_NAME = 16  # letters


def shortened(name: str, most: int = LONGEST_NAME) -> str:
    """A name of at most so many letters, with an ellipsis in the middle of a longer one."""
    return name if len(name) <= most else f"{name[: (most - 1) // 2]}…{name[-(most // 2) :]}"


def main_regions(
    region: np.ndarray | None, n: int, whole: np.ndarray | None = None, most: int = MAX_REGIONS
) -> tuple[np.ndarray, list[str]]:
    """([n] number of the group of each neuron, names): the largest regions by size, then all others; one group "" if unknown.

    Args:
      region: [n] names.
      n: number of neurons.
      whole: names of the neurons, of which these n are a part, by which regions are sorted, so that all figures have one order.
      most: largest number of groups.
    """
    if region is None:
        return np.zeros(n, int), [""]
    names, count = np.unique(np.array([str(name) for name in (region if whole is None else whole)]), return_counts=True)
    by_size = np.argsort(-count, kind="stable")
    rank = np.empty(len(names), int)
    rank[by_size] = np.arange(len(names))
    number = rank[np.searchsorted(names, np.array([str(name) for name in region]))]
    shown = [recording_summary.named(names[k]) for k in by_size]
    if len(names) <= most:
        return number, shown
    return np.minimum(number, most - 1), [*shown[: most - 1], OTHER]


def apart(place: np.ndarray, least: float, low: float, high: float) -> np.ndarray:
    """Places closest to ascending places [k] that are at least `least` apart, from `low` to `high`; less apart where there is no room."""
    from scipy.optimize import isotonic_regression

    least = min(least, (high - low) / max(1, len(place) - 1))
    k = np.arange(len(place))
    found = isotonic_regression(place - least * k).x
    return np.clip(found, low, high - least * (len(place) - 1)) + least * k


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
    def of(region: np.ndarray | None, within: np.ndarray, whole: np.ndarray | None = None) -> Rows:
        """Rows by region, the largest first (in `whole`, as in `main_regions`), and by ascending `within` [n] in a region."""
        group, names = main_regions(region, len(within), whole)
        order = np.lexsort((within, group))
        present = np.unique(group) if len(group) else np.arange(len(names))
        return Rows(order, np.append(np.searchsorted(group[order], present), len(order)), [names[k] for k in present])

    def draw(self, axis: Any, colour: str = INK) -> None:
        """Draws lines between the regions of an axis with a unit per row, and their names in place of ticks.

        Names of small regions are moved apart, with lines from their rows.
        """
        total = int(self.starts[-1])
        for start in self.starts[1:-1]:
            axis.axhline(start, color=colour, lw=0.4)
        if not any(self.names):
            return
        middle = (self.starts[:-1] + self.starts[1:]) / 2
        extent = axis.get_window_extent()
        width, height = (0.9 * length * 72 / axis.figure.dpi for length in (extent.width, extent.height))  # the layout may take some, pt
        size = float(np.clip(height / (1.15 * len(middle)), 5, SMALL))
        line = 1.15 * size * total / height
        place = apart(middle, line, min(line / 2, middle[0]), max(total - line / 2, middle[-1]))
        axis.set_yticks(place, [shortened(name) for name in self.names], fontsize=size)
        axis.tick_params(axis="y", length=0)
        if np.abs(place - middle).max() > 0.2 * line:
            axis.tick_params(axis="y", pad=LEADER + 1.5)
            lines = {"transform": axis.get_yaxis_transform(), "color": SOFT, "lw": 0.5, "clip_on": False}
            for row, name in zip(middle, place, strict=True):
                axis.plot((0, -LEADER / width), (row, name), **lines)

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

    The name of a group has the number of its neurons with a value.

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
    known = np.any([np.isfinite(values) for values, _, _ in series.values()], axis=0)
    names = [f"{label} ({(members & known).sum():,})" for label, members in groups]
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
    """Places the legend of an axis above it, where no data are hidden, and its title, which must be set before, above the legend.

    Args:
      axis: of the panel.
      columns: number of columns, fewer where these are too wide.
      right: whether the legend ends where the axis ends.
      options: of Matplotlib's legend.
    """
    labels = [str(handle.get_label()) for handle in options.get("handles") or axis.get_legend_handles_labels()[0]]
    em, font = LEGEND_SIZE / 72, FontProperties(size=LEGEND_SIZE)
    room = axis.get_window_extent().width / axis.figure.dpi * (1.2 if right else 1.12)

    def width(columns: int) -> float:
        """Width of a legend of so many columns, inches; they are filled one after the other."""
        rows = -(-len(labels) // columns)
        texts = [max(text_width(label, font) for label in labels[start : start + rows]) for start in range(0, len(labels), rows)]
        return float(sum(texts) + em * (2.6 * len(texts) + 1.2 * (len(texts) - 1)))

    columns = min(columns, max(1, len(labels)))
    while columns > 1 and width(columns) > room:
        columns -= 1
    where = {"loc": "lower right", "bbox_to_anchor": (1, 1)} if right else {"loc": "lower left", "bbox_to_anchor": (0, 1)}
    axis.legend(**where, borderaxespad=0.2, ncols=columns, columnspacing=1.2, handlelength=1.8, **options)
    if title := axis.get_title("left"):
        rows = -(-len(labels) // columns) + ("title" in options)
        axis.set_title(title, loc="left", fontsize=axis._left_title.get_fontsize(), pad=5 + 1.47 * LEGEND_SIZE * rows)


def outer_bins(values: np.ndarray, low: float, high: float, words: str = "outer bins: values beyond") -> str:
    """A line for the label of an axis, where values lie outside of `low` to `high` and are drawn in the outer bins; "" otherwise."""
    return f"\n({words})" if values.size and (np.nanmin(values) < low or np.nanmax(values) > high) else ""
