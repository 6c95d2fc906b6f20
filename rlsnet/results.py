"""The run that a user of Python has: its folder, and methods that return what is stored in it as matrices, tables and arrays."""

from __future__ import annotations

import dataclasses
import html
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from rlsnet.errors import UserError
from rlsnet.io.formatting import counted
from rlsnet.runs import folder

if TYPE_CHECKING:
    import pandas
    import xarray

    from rlsnet.analysis.tables import Selection
    from rlsnet.analysis.test_results import RunResults
    from rlsnet.data.recordings import Recording

WIDTH = 100  # columns of a description
KINDS = ("plastic", "static", "all")  # of weights


class Run(folder.Run):
    """A run: the folder with a network, its training and its tests, as `rlsnet.train` and `rlsnet.open_run` return it.

    Methods read what is stored; nothing is simulated. Tables are of pandas and arrays with coordinates of xarray; both come with
    `pip install 'rlsnet[notebook]'`. Times are s of the recording, from the event that its trials are aligned to. An argument
    `neurons` (and `pre`, `post`) selects neurons of the network: a text as of perturb.neurons, such as "exc", "region:ALM & exc" or
    "0:100", a number, several numbers, or a mask. Neurons reproduce recorded units; `unit` is the id of such a unit in its session.

    Example:
      >>> import rlsnet
      >>> run = rlsnet.open_run("first")
      >>> run.weights(pre="exc", post="inh").shape            # [postsynaptic, presynaptic], threshold*ms
      (32, 32)
      >>> run.psth(neurons=0).dims                            # Hz; the coordinate time is in s
      ('condition', 'time')
      >>> run.spikes().columns.tolist()
      ['condition', 'trial', 'neuron', 'time']
      >>> run.learning_curve()["correlation"].plot().get_xlabel()
      'iteration'
    """

    def weights(
        self,
        pre: Selection = None,
        post: Selection = None,
        *,
        kind: str = "plastic",
        iteration: int | str | None = None,
        trust: bool = False,
    ) -> Any:
        """Synaptic weights as a SciPy sparse array [n, m] in CSR form, threshold*ms: a row for each postsynaptic neuron.

        Two synapses between the same two neurons are added up. Weights of feed-forward neurons are not among them;
        `rlsnet.export(run, to="npz")` writes those too.

        Args:
          pre: the presynaptic neurons, the columns in the order of `select`; None: all.
          post: the postsynaptic neurons, the rows; None: all.
          kind: plastic, static, or all for their sum.
          iteration: of a checkpoint; 0: the weights before training; "best", "last"; None: the best if they were saved, else the last.
          trust: whether the plugins that the run names may run, now and later.

        Raises:
          UserError: a selection matches no neuron, no such checkpoint, or the matrix does not fit in memory.
        """
        from rlsnet.analysis import tables
        from rlsnet.exports import synapses
        from rlsnet.exports.trained_network import TrainedNetwork
        from rlsnet.io import memory
        from rlsnet.kernels import device

        if kind not in KINDS:
            raise UserError(f"kind={kind}: expected {', '.join(KINDS)}.")
        results = self._results(trust)
        columns = tables.neuron_columns(results)
        rows, cols = tables.selected(post, columns, "post"), tables.selected(pre, columns, "pre")
        config = self.config(trust=trust, whole=True)
        with device.configured(dataclasses.replace(config.engine, platform="cpu", devices=1)):
            trained = TrainedNetwork.load(self, "auto" if iteration is None else str(iteration), config)
            numbers = {"static": trained.network.n_edges, "plastic": trained.n_plastic}
            kinds = list(numbers) if kind == "all" else [kind]
            memory.check_fits(synapses.BYTES_PER_SYNAPSE * sum(numbers[each] for each in kinds), f"{self.path}: its {kind} weights")
            whole = sum((synapses.matrix(trained, each) for each in kinds[1:]), synapses.matrix(trained, kinds[0]))
        found = whole.tocsr() if rows.size == cols.size == trained.n_neurons and pre is post is None else whole[rows][:, cols].tocsr()
        found.sum_duplicates()
        return found

    def select(self, neurons: Selection = None) -> np.ndarray:
        """[n] numbers of the neurons of a selection, the rows and columns of `weights`; raises UserError if it matches none."""
        from rlsnet.analysis import tables

        return tables.selected(neurons, tables.neuron_columns(self._results()))

    def neurons(self) -> pandas.DataFrame:
        """A row for each neuron: excitatory, and session, id, region, probe of the recorded unit, and its index in the recording."""
        from rlsnet.analysis import tables

        return tables.neuron_table(self._results())

    def psth(
        self,
        unit: Any = None,
        *,
        session: str | None = None,
        neurons: Selection = None,
        source: str = "model",
        perturbed: str | None = None,
        smooth: bool = True,
    ) -> xarray.DataArray:
        """Firing rates in the test [condition, time, neuron], Hz, with session, id and region of the units as coordinates.

        Args:
          unit: id of a recorded unit, for rates [condition, time]; or several ids.
          session: session of the units, where several sessions have such an id; without `unit`, all units of a session.
          neurons: neurons of the network instead; None: all.
          source: model; trained or heldout, the recorded rates of the trials that were trained on or held out.
          perturbed: label of a perturbed test, such as silence; None: the test without a perturbation.
          smooth: whether rates of the model are smoothed with the kernel of the recording, as figures show them, or averaged over 100 ms
            where it has none; false: as simulated. Recorded rates stay as they are.

        Raises:
          UserError: the run has not been tested, there is no such unit, or several sessions have one.
        """
        from rlsnet.analysis import tables

        return tables.psth(self._results(perturbed=perturbed), unit, session, neurons, source, smooth)

    def spikes(self, neurons: Selection = None, *, perturbed: str | None = None) -> pandas.DataFrame:
        """Spikes of the test, a row each: condition, trial (of its condition, from 0), neuron, session, id, region, and time in s.

        Args:
          neurons: neurons of the network; None: all.
          perturbed: as of `psth`, like errors.
        """
        from rlsnet.analysis import tables

        return tables.spikes(self._results(perturbed=perturbed), neurons)

    def scores(self, *, perturbed: str | None = None) -> pandas.DataFrame:
        """Scores of each neuron in each condition, a row each; `attrs["columns"]` of the table says what a score means."""
        from rlsnet.analysis import tables

        return tables.score_table(self._results(perturbed=perturbed))

    def explained(self) -> pandas.DataFrame:
        """The main score: share of the recorded rates' variance that the network, the other trials and baselines explain.

        A row for all neurons, for each condition and each region.
        """
        from rlsnet.analysis import tables

        return tables.explained_table(self._results())

    def verdict(self) -> str:
        """The main score in words, beside the limit of the data and the baselines; "" without a test against recorded rates."""
        from rlsnet.analysis import verdict

        return verdict.verdict(self._results().explained())

    def learning_curve(self) -> pandas.DataFrame:
        """Training by iteration, a row each: condition, correlation with the target, rates in Hz, seconds; as in metrics.jsonl."""
        from rlsnet.analysis import tables

        return tables.learning_curve(self._results())

    def to_xarray(self, *, perturbed: str | None = None) -> xarray.Dataset:
        """The whole test except the spikes, as stored: rates, currents, targets and scores; read from the disk where they are used."""
        from rlsnet.analysis import tables

        return tables.dataset(self._results(perturbed=perturbed))

    def recording(self) -> Recording | None:
        """The recording that the network was trained on; None without one, or if it is no longer there."""
        from rlsnet.workflows import prepare

        return prepare.find_recording(self.config(), self)

    def draw(self, name: str, axes: Any = None) -> Any:
        """One of the figures of `rlsnet.plot`, drawn now: a figure of Matplotlib.

        Args:
          name: of the figure, such as learning_curve, psth_examples, psth_heatmaps, raster or weights.
          axes: axes of Matplotlib to draw into, one, or one for each axes of the figure or of its first panels; None: a new figure.

        Raises:
          UserError: no such figure, no results for it, or another number of axes.
        """
        from rlsnet.analysis.plots import run_figures

        return run_figures.draw(self._results(), name, axes)

    def _results(self, trust: bool = False, perturbed: str | None = None) -> RunResults:
        """The stored results, or those of a perturbed test; raises UserError if the folder is no run."""
        from rlsnet.analysis import tables
        from rlsnet.analysis.test_results import open_results

        folder.Run.open(self.path)
        return tables.of_perturbed(open_results(self, trust=trust), perturbed)

    def _rows(self) -> Iterator[tuple[str, str]]:
        """(what, in words) for a reader: network, target, training, test."""
        from rlsnet.analysis import run_summary, verdict
        from rlsnet.io import zarr_store
        from rlsnet.io.formatting import number
        from rlsnet.learning.scores import SCORES
        from rlsnet.model import network_store

        if not (self.path / "config.yaml").exists():
            yield "state", "no run there yet"
            return
        summary = run_summary.summarize(self)
        settings, score = summary.settings, summary.primary_score
        if self.network.exists():
            n = zarr_store.open_group(self.network, "", network_store.FORMAT)["neuron/excitatory"].shape[0]
            yield "network", f"{n:,} neurons ({settings['neuron']['name']}), at most {settings['plastic']['n_inputs']} plastic inputs each"
        yield "target", settings["target"]["name"] + (f" {path}" if (path := settings["recording"]["path"]) else "")
        last = number(summary.last_correlation, ".2f")
        yield "training", summary.state + (f", last correlation {last}" if summary.metrics else "")
        if score is not None:
            attributes = summary.test_attributes
            trials = counted(int(attributes.get("trials", 0)), "trial")
            words = f"median {SCORES[score].title} {number(summary.typical(score), '.2f')}"
            yield (
                "test",
                f"weights of iteration {attributes.get('iteration')}, {trials} of each condition, {words}",
            )
        if sentences := verdict.verdict(summary.population):
            yield "verdict", sentences
        if labels := list(self.perturbed_results()):
            yield "perturbed", ", ".join(labels)

    def _described(self) -> list[tuple[str, str]]:
        """`_rows`, or what prevents them: a description is no place for errors."""
        try:
            return list(self._rows())
        except Exception as error:
            return [("state", f"cannot be read: {error}")]

    def __repr__(self) -> str:
        lines = (f"  {name:<9} {text}" for name, text in self._described())
        wrapped = (line for each in lines for line in textwrap.wrap(each, WIDTH, subsequent_indent=" " * 12, break_long_words=False))
        return "\n".join([f"rlsnet.Run({str(self.path)!r})", *wrapped])

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th><td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in self._described()
        )
        return f"<b>rlsnet.Run</b> {html.escape(str(self.path))}<table>{rows}</table>"
