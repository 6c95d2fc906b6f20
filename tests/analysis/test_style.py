"""Style of the figures: colours, bands, legends, names of events, what the user's names may contain, and numbers within figures."""

from itertools import combinations

import numpy as np
import pytest
import zarr
from conftest import compose
from cut_text import cut_texts, cut_texts_of
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from rlsnet.analysis.plots import parts, perturbation_figures, recording_figures, region_figures, score_figures, style, training_figures
from rlsnet.analysis.plots.style import Panel, PanelFigure
from rlsnet.analysis.recording_summary import summarize
from rlsnet.analysis.test_results import open_results
from rlsnet.io import zarr_store
from rlsnet.runs.folder import Run

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
        titles = [axes.get_title("left") for axes in figure.compose().axes]
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


@pytest.mark.parametrize("n", [1, 2, 3, 8, 9, 30])
def test_conditions_have_colours_of_their_own(n):
    """Different ones, also from those of the classes of neurons and of what has no condition."""
    colours = [to_rgb(each) for each in style.condition_colours(n)]
    others = [to_rgb(each) for each in (style.EXC, style.INH, style.DATA, style.MODEL)]
    assert len(colours) == n
    for one, two in combinations(colours + (others if n <= 8 else []), 2):
        assert np.abs(np.subtract(one, two)).max() > 0.015 and (n > 8 or np.linalg.norm(np.subtract(one, two)) > 0.2)
    assert [handle.get_color() for handle in style.condition_handles([str(k) for k in range(n)])] == (
        [] if n == 1 else style.condition_colours(n) if n <= 8 else [style.condition_colours(n)[k] for k in (0, -1)]
    )
    assert [handle.get_label() for handle in style.condition_handles(list("abcd"), [0, 3])] == ["a", "d"]


def test_a_band_is_the_mean_and_its_spread():
    axis, x = Figure().subplots(), np.arange(5.0)
    mean, spread = x**2, 1 + x
    style.draw_mean(axis, x, mean, spread, "#123456", style.MODEL_LINE)
    style.draw_mean(axis, x, mean, None, "#123456", style.DATA_LINE)
    assert [line.get_linestyle() for line in axis.lines] == ["--", "-"] and len(axis.collections) == 1
    corners = axis.collections[0].get_paths()[0].vertices
    for place in x:
        edges = corners[corners[:, 0] == place, 1]
        assert edges.min() == pytest.approx(mean[int(place)] - spread[int(place)])
        assert edges.max() == pytest.approx(mean[int(place)] + spread[int(place)])


def test_names_of_events_do_not_overlap_each_other_or_the_title():
    figure = Figure(figsize=(3, 2), layout="constrained")
    axis = figure.subplots()
    axis.set_title("a title", loc="left")
    axis.set_xlim(-2, 1)
    style.draw_events(axis, {"sample_start_times": -1.8, "sample_stop_times": -1.2, "go": 0.0, "outside": 1.5}, (-2, 1))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in (*axis.texts, axis._left_title)]
    assert len(boxes) == 4 and axis.get_title("left") == "a title"
    assert not any(one.overlaps(two) for one, two in combinations(boxes, 2))


def test_a_legend_is_above_the_panels_and_alone_in_a_report():
    handles = tuple(style.condition_handles(["left", "right"]) + style.style_handles("held-out trials"))
    panels = tuple(Panel(name, lambda axes: axes[0].plot([0, 1], [0, 1])) for name in "ab")
    figure = PanelFigure("A title " * 12, panels, handles=handles)
    composed = figure.compose()
    composed.draw_without_rendering()
    legend, title = composed.legends[0].get_window_extent(), composed.texts[0].get_window_extent()
    assert [text.get_text() for text in composed.legends[0].get_texts()] == ["left", "right", "held-out trials", "model"]
    tops = [axis.get_window_extent().y1 for axis in composed.axes]
    assert max(tops) < legend.y0 and legend.y1 <= title.y0 + 2 and title.y1 <= composed.bbox.y1 and title.x1 <= composed.bbox.x1
    drawn = figure.legend_svg()
    assert drawn is not None and drawn[1][0] <= 2.7 and "<svg" in drawn[0] and PanelFigure("b", panels).legend_svg() is None


def test_numbers_in_figures_are_those_of_numpy():
    random = np.random.default_rng(3)
    x = random.gamma(2, 4, 500)
    y = 0.7 * x + 1 + random.normal(0, 0.5, 500)
    slope = np.cov(x, y)[0, 1] / np.var(x, ddof=1)
    words = f"r = {np.corrcoef(x, y)[0, 1]:.2f}, slope {slope:.2f}, mean error {y.mean() - x.mean():+.2f} Hz of {x.mean():.2f} Hz"
    assert score_figures.rate_words(x, y) == words and f"slope {slope:.2f}" in perturbation_figures.selectivity_words(x, y)
    assert perturbation_figures.selectivity_words(np.ones(5), y[:5]) == ""
    values = np.array([1.0, np.nan, 3.0, 4.0, 8.0])
    np.testing.assert_allclose(training_figures.moving_mean(values, 3), [1, 2, 3.5, 5, 6])
    before, after = np.array([1.0, 1.0, -1.0, 1.0]), np.array([2.0, -1.0, -1.0, 0.0])
    assert (
        training_figures.change_words(before, after) == f"25 % changed sign, r.m.s. change {np.sqrt((1 + 4 + 0 + 1) / 4):.2g} threshold ms"
    )
    axis = Figure().subplots()
    parts.draw_cumulative(axis, values, "k", {}, "v")
    assert axis.lines[0].get_label() == "v: 3.50" and axis.lines[0].get_ydata()[-1] == 1
    members = np.array([True, True, True, False, False])
    spread = Figure().subplots()
    parts.draw_spread(spread, [("few", members), ("none", members & False)], {"v": (values, "k", "o")})
    medians = [line for line in spread.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert [float(line.get_xdata()[0]) for line in medians] == [2.0]  # of 1 and 3; a group without neurons has none
    assert [label.get_text() for label in spread.get_yticklabels()] == ["few (2)", "none (0)"]  # one of three has no value


def test_explained_variances_are_drawn_as_they_are():
    axis = Figure().subplots()
    score_figures.draw_explained(axis, ["model", "ceiling", "mean_rate"], [("a", [0.4, 0.9, None]), ("b", [-3.0, 0.8, -0.2])], ["r", "b"])
    assert [bar.get_width() for bar in axis.patches][:2] == [0.4, -0.5]  # not below the left edge
    ceiling, baseline = (line.get_xdata() for line in axis.lines[:2])
    np.testing.assert_array_equal(ceiling, [0.9, 0.8])
    np.testing.assert_array_equal(baseline, [np.nan, -0.2])
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["network", "other half", "mean rate"]


def test_marks_of_resumed_training():
    """A sample without an iteration after samples with one is of another process."""
    samples = [{"verb": "train"}, {"verb": "train", "iteration": 4}, {"verb": "test"}, {"verb": "train"}, {"verb": "train"}]
    samples += [{"verb": "train", "iteration": 9}, {"verb": "train"}]
    assert training_figures.resumed_after(samples) == [4, 9] and training_figures.resumed_after(samples[:3]) == []


def test_rows_are_by_region_the_largest_first():
    region = np.array(["b", "a", "b", "", "b", "a"], dtype=object)
    rows = parts.Rows.of(region, np.array([5, 1, 2, 0, 9, 0]))
    assert (
        rows.order.tolist() == [2, 0, 4, 5, 1, 3] and list(rows.names) == ["b", "a", "no region"] and rows.starts.tolist() == [0, 3, 5, 6]
    )
    many = np.repeat([f"r{k:02}" for k in range(30)], np.arange(30, 0, -1))
    number, names = parts.main_regions(many, len(many))
    assert names == [*(f"r{k:02}" for k in range(parts.MAX_REGIONS - 1)), parts.OTHER]
    assert np.bincount(number).tolist() == [*range(30, 21, -1), sum(range(1, 22))]
    assert parts.shortened("a" * 40, 16) == "a" * 7 + "…" + "a" * 8
    part = parts.Rows.of(np.array(["a", "b"]), np.zeros(2), np.array(["a", "b", "b"]))
    assert list(part.names) == ["b", "a"] and part.order.tolist() == [1, 0]  # as in the whole


def test_names_of_small_regions_are_apart():
    """At least a line apart, in their order, within the axes, and as close to their rows as that allows."""
    place = np.array([5.0, 6.0, 7.0, 50.0, 99.0, 99.5])
    found = parts.apart(place, 10, 5, 95)
    assert np.diff(found).min() >= 10 - 1e-9 and found[0] >= 5 and found[-1] <= 95 and found[3] == 50
    np.testing.assert_allclose(parts.apart(np.array([20.0, 60.0]), 10, 0, 100), [20, 60])
    np.testing.assert_allclose(np.diff(parts.apart(np.zeros(11), 50, 0, 100)), 10)  # no room for more
    region = np.repeat(["big", "middle", *"abcdefg"], [60, 40, 1, 1, 1, 1, 1, 1, 1])
    rows = parts.Rows.of(region, np.zeros(len(region)))

    def draw(axes):
        axes[0].set(xlim=(0, 1), ylim=(len(region), 0))
        rows.draw(axes[0])

    figure = PanelFigure("a", (Panel("b", draw),) * 2, (3.6, 1.7))
    assert [label.get_text() for label in figure.compose().axes[0].get_yticklabels()] == ["big", "middle", *"abcdefg"]
    assert cut_texts_of(figure) == []


def test_long_titles_and_labels_are_wrapped():
    """And the check of cut text finds those that are not."""

    def draw(axes):
        axes[0].set_title("other neurons, the rate in the window and all that is known about it")
        axes[0].set(xlabel="correlation of the odd and the even trials of a recording (none)", ylabel="w" * 40)
        axes[0].plot([0, 1], [0, 1], label="a condition")
        axes[0].plot([0, 1], [1, 0], label="another one with a long name")
        parts.place_legend_above(axes[0])

    def draw_with_event(axes):
        axes[0].set_title("other neurons, the rate in the window and all that is known about it")
        axes[0].set_xlim(0, 1)
        style.draw_events(axes[0], {"an event at the end": 0.99}, (0, 1))

    handles = tuple(style.condition_handles(["a long name of a condition", "one that is longer than the other one"]))
    figure = PanelFigure(
        "A title with many words " * 8,
        (Panel("b", draw), Panel("b", draw), Panel("c", draw_with_event)),
        (2.4, 2.6),
        columns=3,
        handles=handles,
    )
    assert cut_texts_of(figure) == []
    composed = figure.compose()
    composed.axes[0].set_title("cut " * 40)
    composed.axes[2].set_title("cut " * 40)
    assert any("overlap" in words for words in cut_texts(composed)) and any("is cut" in words for words in cut_texts(composed))


def test_small_regions_together_are_sums_or_means():
    values, weight = np.arange(12.0).reshape(3, 4), np.array([5, 1, 3, 1])
    expected = np.stack([values[:, 0], (values[:, 1] + 3 * values[:, 2] + values[:, 3]) / 5], axis=1)
    np.testing.assert_allclose(region_figures.pooled(values, 1, 1, weight), expected)
    np.testing.assert_allclose(region_figures.pooled(values, 1, 0), [values[0], values[1] + values[2]])
    assert region_figures.pooled(values, 4, 1) is not None and region_figures.pooled(values, 4, 1).shape == (3, 4)


@pytest.mark.parametrize(
    ("values", "limits"), [([[12, 14], [13, 13.5]], (12, 14)), ([[-3, -2], [-2.5, -2]], (-3, -2)), ([[-1, 4], [2, 3]], (-4, 4))]
)
def test_colours_of_a_matrix_tell_alike_values_apart(values, limits):
    figure = Figure()
    axis = figure.subplots()
    region_figures._matrix(axis, np.array(values, float), ["a", "b"], ["a", "b"], "Hz")
    assert axis.images[0].get_clim() == limits


def test_a_learning_curve_far_below_zero(tmp_path):
    """Explained variances below the axis are drawn at its lower edge, and the label says so; they do not push the axes out."""
    run = Run(tmp_path / "run")
    run.path.mkdir()
    run.save_config(compose("config=tiny"))
    line = {"task": 0, "seconds": 0.1, "rate_hz": 3.0, "rate_exc_hz": 2.0, "rate_inh_hz": 4.0, "correlation": 0.5, "n_undefined": 0}
    for iteration, score in ((1, -32.0), (2, -0.7), (3, 0.2)):
        run.append_metrics({"iteration": iteration, **line, "validation": score})
    figure = training_figures.learning_curve(open_results(run)).compose()
    axes = figure.axes[1]
    assert axes.get_lines()[0].get_ydata().tolist() == [-0.5, -0.5, 0.2] and "-0.5 or less" in axes.get_ylabel()
    assert not cut_texts(figure) and axes.get_position().height > 0.4
