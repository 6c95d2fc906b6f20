"""Figures of a run, from its stored results; nothing is simulated here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from rlsnet.analysis.analyses import analyse
from rlsnet.analysis.plots import analysis_figures, perturbation_figures
from rlsnet.analysis.plots.example_figures import examples
from rlsnet.analysis.plots.heatmap_figures import heatmaps
from rlsnet.analysis.plots.raster_figures import raster
from rlsnet.analysis.plots.score_figures import correlations, explained_variance, rates
from rlsnet.analysis.plots.style import PNG_DPI, PanelFigure, check_files
from rlsnet.analysis.plots.training_figures import learning_curve, weights
from rlsnet.analysis.test_results import RunResults, with_config
from rlsnet.config.quoting import typed_command
from rlsnet.config.schema import Config
from rlsnet.errors import UserError
from rlsnet.runs.folder import Run

log = logging.getLogger(__name__)


PERTURBED = "perturbed_"  # prefix of a figure's name, before the label of the perturbation


def available(results: RunResults) -> dict[str, Callable[[RunResults], PanelFigure]]:
    """Functions that draw the figures that a run has data for, by name."""
    draw: dict[str, Callable[[RunResults], PanelFigure]] = {}
    if results.run.metrics.exists():
        draw["learning_curve"] = learning_curve
    if results.run.iterations():
        draw["weights"] = weights
    if results.test is not None:
        if results.explained():
            draw["explained_variance"] = explained_variance
        draw |= {"psth_examples": examples, "psth_heatmaps": heatmaps, "correlations": correlations, "rates": rates}
        if results.has("spikes/trial_indptr"):
            draw["raster"] = raster
        for label in results.run.perturbed_results():
            draw[f"{PERTURBED}{label}"] = partial(perturbation_figures.perturbed, label)
        for name, result in analyse.stored(results.run).items():
            draw[f"{analysis_figures.PREFIX}{name}"] = partial(analysis_figures.draw, name, result)
    return draw


def draw(results: RunResults, name: str, axes: Any = None) -> Figure:
    """One figure of a run, in a new Matplotlib figure or on axes of the user's.

    Args:
      results: of the run.
      name: a key of `available`, such as "psth_examples".
      axes: Matplotlib axes, or a sequence or array of them, one for each axes of the figure or of its first panels; None: new ones.

    Raises:
      UserError: the run has no such figure, no data for it, or the number of axes is wrong.
    """
    found = available(results)
    if name not in found:
        raise UserError(f"{name}: no figure of {results.run.path}; expected one of {', '.join(found) or 'none, as it has no results'}.")
    figure = found[name](results)
    return figure.compose() if axes is None else figure.draw_on(axes)


def figures(results: RunResults) -> Iterator[tuple[str, PanelFigure | UserError]]:
    """(name, figure) of each figure that a run has data for, or (name, reason why it cannot be drawn)."""
    for name, draw in available(results).items():
        try:
            yield name, draw(results)
        except UserError as error:
            yield name, error


def plot(
    config: Config,
    run: Run,
    folder: Path | None = None,
    report: Callable[[str], None] = log.info,
    warn: Callable[[str], None] = log.warning,
    kind: str = "png",
    dpi: float = PNG_DPI,
) -> None:
    """Writes a file of each figure that a run has data for.

    Args:
      config: of the run.
      run: its folder.
      folder: of the files; None for figures/ in the run folder.
      report: called with the path of each file.
      warn: called with the reason why a figure is missing.
      kind: png, pdf or svg.
      dpi: dots per inch of a PNG, and of what has pixels in other files.

    Raises:
      UserError: the run has no results to draw.
    """
    results, folder, own_folder = with_config(config, run), folder or run.figures, folder is None
    if own_folder:
        run.refuse_links()
    if not available(results):
        raise UserError(f"{run.path}: has no results to draw; run rlsnet train or rlsnet test first.")
    check_files(folder, available(results), kind)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures(results):
        if isinstance(figure, UserError):
            warn(f"No {name}: {figure}")
            continue
        figure.save(folder / f"{name}.{kind}", dpi)
        report(str(folder / f"{name}.{kind}"))
    if results.test is None:
        report(f"No test.zarr: PSTHs, raster and scores are drawn after {typed_command('test', run.path)}.")
