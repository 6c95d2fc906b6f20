"""Command `rlsnet analyse`: analyses of a tested run, with figures."""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from typing import TYPE_CHECKING

from rlsnet.config.schema import key
from rlsnet.errors import UserError
from rlsnet.io.terminal import say

if TYPE_CHECKING:
    from rlsnet.runs.folder import Run


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of rlsnet analyse."""

    only: tuple[str, ...] | None = key("names of the analyses to do, such as [trajectories,silencing]; null: all", default=None)
    conditions: tuple[str, ...] | None = key("two conditions that are compared, such as [left,right]; null: the first two", default=None)
    window: tuple[float, float] | None = key(
        "start and end of the time in which two conditions are compared and regions are silenced, in the time of the recording; null: the"
        " half second before the event at time 0, or the whole trial",
        "s",
        default=None,
    )
    neurons: tuple[int, ...] | None = key(
        "numbers of the neurons whose voltage and currents are shown; null: those with the best, median and worst score", default=None
    )
    trials: int = key("simulated trials of each condition for each silenced region", default=10, least=1)
    decoded_units: int | None = key(
        "units that a decoder of the condition is given, drawn at random 20 times; null: all units of a session", default=10, least=1
    )
    trust: bool = key("true: run the plugins that the run names, now and later", default=False)


USAGE = """RUN [key=value ...]
  RUN   a tested run, such as outputs/2026-11-21/10-00-00, or last for the newest run

Results are stored in RUN/analysis.zarr, and figures in RUN/figures. The analyses:
  trajectories      trial averages of data and model in principal components
  coding_direction  activity on the direction that separates two conditions
  decoding          how well the condition can be read from single trials, over time
  selectivity       difference of the rates in two conditions, by region
  dimensionality    participation ratio of data and model
  variability       Fano factors, intervals between spikes, correlations, power spectrum
  region_weights    number and strength of synapses between regions, before and after training
  region_currents   currents between regions over time
  silencing         effect of silencing each region in turn (simulates new trials)
  single_neuron     voltage, currents and spikes of single neurons (simulates a new trial)
  eigenvalues       eigenvalues of the trained coupling"""


def main(paths: list[str], options: Options) -> None:
    """Runs `rlsnet analyse RUN`."""
    if len(paths) != 1:
        raise UserError("analyse: expected one run, such as rlsnet analyse outputs/2026-11-21/10-00-00.")
    from rlsnet.runs.folder import Run
    from rlsnet.runs.progress import working

    run = Run.open(paths[0])
    with working("Analysing"):
        _analyse(run, options)


def _analyse(run: Run, options: Options) -> None:
    """Analyses a run, stores results and figures, and prints the main number of each analysis."""
    from rlsnet.analysis.analyses import analyse
    from rlsnet.analysis.plots import analysis_figures
    from rlsnet.analysis.plots.style import check_files
    from rlsnet.analysis.test_results import open_results
    from rlsnet.kernels.device import configured

    chosen = analyse.AnalysisOptions(
        options.only, options.conditions, options.window, options.neurons, options.trials, options.decoded_units
    )
    results = open_results(run, trust=options.trust)
    check_files(run.figures, analysis_figures.FIGURES)
    with configured(dataclasses.replace(results.config.engine, devices=1)):
        found = analyse.analyse(results, chosen, say, partial(say, stream=sys.stderr))
    say(f"Wrote {run.analysis}.")
    run.figures.mkdir(exist_ok=True)
    for name, figure in analysis_figures.figures(results, found):
        figure.save(run.figures / f"{name}.png")
        say(str(run.figures / f"{name}.png"))
    for name, words in analyse.summary(found):
        line = words if words.startswith(f"{name} ") else f"{name}: {words}"
        say(f"{line[0].upper()}{line[1:]}.")
