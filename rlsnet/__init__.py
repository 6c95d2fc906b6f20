"""Trains recurrent spiking networks to reproduce recorded neural activity, by recursive least squares.

    import rlsnet

    config = rlsnet.compose("config=tiny", "train.iterations=20")
    run = rlsnet.train(config, "first")
    results = rlsnet.test(run)
    rlsnet.plot(run)
    run

Settings and data
  compose("config=tiny", ...)     a configuration, with the settings of the command line; its class is Config
  import_recordings(files, out)   a recording of files: NWB, Phy, ALF, NumPy, MATLAB, HDF5, tables
  import_network(file, out)       the wiring of a connectome: tables, sparse matrices, SONATA
  recording_from_arrays(out, ...) a recording of arrays: rates, spike counts, spike times, or target currents of your own
  open_recording(path)            a recording that exists
Simulation
  train(config, folder)           trains a network; returns a Run
  test(run, ...)                  simulates the trained network, on request with neurons silenced, excited or clamped
  simulate(config, folder)        simulates a network with its initial weights
Results, of a Run; help(rlsnet.Run) describes these methods
  open_run(folder)                a run that exists
  run.psth(unit)                  firing rates, with the time of the recording
  run.spikes()                    a table of all spikes
  run.weights(pre, post)          a sparse matrix of weights, between regions or classes
  run.scores()                    a table of scores of each neuron; run.explained() has the main score, run.verdict() says it in words
  run.learning_curve()            a table of the iterations of training
  run.neurons()                   a table of the neurons and the recorded units that they reproduce
  run.to_xarray()                 the whole test; load(run) is the same as a Zarr group
  run.recording()                 the recording that the network was trained on
  run.draw(figure)                a figure of Matplotlib, on request in axes of your own
  analyse(run)                    trajectories, decoding, regions, silencing and more, data beside model
Pages and files
  plot(run)  report(run)  compare(run, run)  info(path)  export(run, format)

Each function has a help text, such as help(rlsnet.train). A mistake in the input raises UserError with one line, which says what is
wrong and what was expected. Tables need pandas, arrays with coordinates xarray: pip install 'rlsnet[notebook]' has both. Notebooks
with examples are in docs/notebooks. The package contents below are internal.
"""

from importlib import import_module
from typing import Any

__all__ = [
    "Config",
    "Run",
    "UserError",
    "analyse",
    "compare",
    "compose",
    "export",
    "import_network",
    "import_recordings",
    "info",
    "load",
    "open_recording",
    "open_run",
    "plot",
    "recording_from_arrays",
    "report",
    "simulate",
    "test",
    "train",
]


PLUGIN_MODULES = {
    "inputs": "rlsnet.simulation.inputs",
    "neurons": "rlsnet.model.neurons",
    "targets": "rlsnet.learning.targets",
    "wiring": "rlsnet.model.connectivity",
}  # modules with the functions that plugins register; these names do not change between versions


def __getattr__(name: str) -> Any:
    """The commands and the modules for plugins, imported at their first use because they need JAX."""
    if name in __all__:
        return getattr(import_module("rlsnet.api"), name)
    if name in PLUGIN_MODULES:
        return import_module(PLUGIN_MODULES[name])
    raise AttributeError(f"module 'rlsnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
