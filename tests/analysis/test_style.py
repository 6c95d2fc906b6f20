"""Style of the figures: what the user's names may contain, and labels of logarithmic axes."""

import numpy as np
import pytest
import zarr

from rlsnet.analysis.plots import recording_figures
from rlsnet.analysis.plots.style import Panel, PanelFigure
from rlsnet.analysis.recording_summary import summarize
from rlsnet.io import zarr_store

NAMES = ["$x_{$", "$\\frac$", "{name}", "100 %", "\\", "a$b"]


def test_names_are_no_formulas(tmp_path):
    """Conditions and regions with dollar signs, braces and percent signs are drawn as they are."""
    root = zarr.create_group(str(tmp_path / "r.zarr"), attributes={"format": "rlsnet-recording", "bin_ms": 20.0})
    zarr_store.write(root, "rate", np.random.default_rng(0).lognormal(1, 1, (6, 10, 12)).astype("f4"), ["condition", "time", "unit"])
    zarr_store.write(root, "condition", np.array(NAMES), ["condition"])
    zarr_store.write(root, "unit/region", np.array(NAMES * 2), ["unit"])
    data = summarize(str(tmp_path / "r.zarr"))
    for name, draw in recording_figures.available(data).items():
        figure = draw(data)
        figure.save(tmp_path / f"{name}.png")
        assert all("<svg" in figure.panel_svg(panel) for panel in figure.panels)
        titles = [axes.get_title() for axes in figure.compose().axes]
        assert name != "psth_heatmap" or [title for title in titles if title] == NAMES


@pytest.mark.parametrize("span", [(0.01, 100), (1, 8)])
def test_labels_of_logarithmic_axes(span):
    """They are plain numbers, and those of an axis with less than a decade have labels too."""

    def draw(axes):
        axes[0].set(xscale="log", xlim=span)

    figure = PanelFigure("a", (Panel("b", draw),)).compose()
    figure.draw_without_rendering()
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels(which="both") if label.get_text()]
    assert len(labels) >= 2 and all(f"{float(label):g}" == label for label in labels)
