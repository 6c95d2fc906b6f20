"""What of a figure's text does not fit: beyond the edges of the figure, or titles and labels over each other."""

from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from rlsnet.analysis.plots.style import EVENT, PanelFigure

TOUCHING = 1.0  # pixels by which boxes of text may overlap


def _texts(axes: Axes) -> dict[str, list[Text]]:
    """Visible texts of axes, by what they are."""
    ticks = {
        name: [label for label in axis.get_ticklabels() if axis.get_visible()] for name, axis in (("x", axes.xaxis), ("y", axes.yaxis))
    }
    legend = axes.get_legend()
    found = {
        "title": [axes.title, axes._left_title, axes._right_title],
        "label": [axes.xaxis.label, axes.yaxis.label],
        **ticks,
        "text": list(axes.texts),
        "legend": [] if legend is None else list(legend.get_texts()),
    }
    return {name: [text for text in texts if text.get_visible() and text.get_text().strip()] for name, texts in found.items()}


def cut_texts(figure: Figure) -> list[str]:
    """Descriptions of text that is cut by an edge of the figure, and of titles, legends or labels of rows that overlap."""
    figure.draw_without_rendering()
    whole, found, titles = figure.bbox, [], []
    everything = [(text, "figure") for text in figure.texts] + [(text, "legend") for each in figure.legends for text in each.get_texts()]
    for axes in (axes for axes in figure.axes if axes.get_visible()):
        texts = _texts(axes)
        low, high = sorted(axes.get_ylim())
        inside = [label for label in texts["y"] if low <= label.get_position()[1] <= high]
        left, right = sorted(axes.get_xlim())
        texts |= {"y": inside, "x": [label for label in texts["x"] if left <= label.get_position()[0] <= right]}
        everything += [(text, name) for name, each in texts.items() for text in each]
        titles += texts["title"]
        for one, two in combinations(texts["title"] + texts["legend"] + [t for t in texts["text"] if t.get_label() == EVENT], 2):
            found += _overlap(one, two)
        for one, two in combinations(inside, 2):
            found += _overlap(one, two)
    for text, name in everything:
        box = text.get_window_extent()
        if box.x0 < whole.x0 - 0.5 or box.x1 > whole.x1 + 0.5 or box.y0 < whole.y0 - 0.5 or box.y1 > whole.y1 + 0.5:
            found.append(f"{name} {text.get_text()!r} is cut: {box.extents.round()} of {whole.extents.round()}")
    for one, two in combinations(titles, 2):
        found += _overlap(one, two)
    return found


def _overlap(one: Text, two: Text) -> list[str]:
    """A description of two texts that overlap."""
    common = Bbox.intersection(one.get_window_extent(), two.get_window_extent())
    if common is None or common.width <= TOUCHING or common.height <= TOUCHING:
        return []
    return [f"{one.get_text()!r} and {two.get_text()!r} overlap"]


def cut_texts_of(figure: PanelFigure) -> list[str]:
    """The same of all panels together and of each panel alone."""
    return [words for each in (figure.compose(), *map(figure.compose_panel, figure.panels)) for words in cut_texts(each)]
