"""Table of the commands: a line of help for each, its settings, and the modules of those that need no experiment."""

from __future__ import annotations

COMMANDS = {
    "train": "train a network, or continue a run (train [EXPERIMENT or RUN])",
    "simulate": "run a network with its initial weights, without training (simulate [EXPERIMENT])",
    "test": "run a trained network with frozen weights (test RUN)",
    "import": "make a recording.zarr from NWB, Phy, ALF, NumPy, MATLAB or HDF5 files (import SOURCE... OUT.zarr)",
    "runs": "list the runs below a folder, the newest first (runs [FOLDER])",
    "plot": "draw the figures of a run or of a recording (plot RUN)",
    "report": "write the results of a run as one HTML page (report RUN)",
    "analyse": "analyse a tested run: trajectories, decoding, regions, silencing, and more (analyse RUN)",
    "compare": "compare runs, or the jobs of a sweep, as a table and as a page (compare RUNS)",
    "info": "summarise a run, network, recording or checkpoint (info PATH)",
    "export": "write a trained network and its spikes for other tools (export RUN to=FORMAT)",
    "completion": "print the script that completes rlsnet commands in a shell (completion bash)",
}
PLAIN = {
    "import": "rlsnet.cli.commands.import_",
    "runs": "rlsnet.cli.commands.runs",
    "plot": "rlsnet.cli.commands.plot",
    "report": "rlsnet.cli.commands.report",
    "analyse": "rlsnet.cli.commands.analyse",
    "compare": "rlsnet.cli.commands.compare",
    "export": "rlsnet.cli.commands.export",
    "info": "rlsnet.cli.commands.info",
    "completion": "rlsnet.cli.completion",
}  # commands that need no experiment: modules with Options, USAGE and main(paths, options)
WORK = {
    "import": "Reading recordings",
    "plot": "Drawing figures",
    "report": "Writing the report",
    "export": "Exporting",
    "analyse": "Analysing",
}  # what a terminal shows while a command is at work
DRY_RUN = "--dry-run"
WITHOUT_RUNS = ("import", "runs", "completion")  # plain commands for whose paths `last` does not stand for the newest run
# sections of settings that the help and the completion of a command show; None: all
SECTIONS: dict[str, tuple[str, ...] | None] = {
    "train": None,
    "simulate": None,
    "test": ("run", "progress", "test", "perturb", "plugins", "trust", "recording.path", "resources_every", "engine"),
}
# settings at the top of the help of a command
ESSENTIAL: dict[str, tuple[str, ...]] = {
    "train": (
        "recording.path",
        "recording.half",
        "network.n_neurons",
        "plastic.n_inputs",
        "trial.duration",
        "trial.learn_every",
        "rls.penlambda",
        "train.iterations",
    ),
    "simulate": (
        "network.n_neurons",
        "network.load",
        "network.fraction_excitatory",
        "static.out_degree",
        "static.strength",
        "noise.sigma",
        "trial.duration",
        "test.trials",
    ),
    "test": ("test.trials", "test.checkpoint", "test.neurons", "test.spikes", "recording.path"),
    "import": ("preset", "align", "window", "bin", "conditions", "units", "regions", "min_trials"),
}
# headings of the other settings in the help, by section ("": settings outside of a section), in their order
HEADINGS = {
    "recording": "Recording",
    "network": "Network",
    "neuron": "Neuron model",
    "synapse": "Synaptic currents",
    "static": "Static synapses",
    "plastic": "Plastic synapses",
    "feedforward": "Feed-forward neurons",
    "noise": "Noise",
    "stimulus": "Stimulus",
    "trial": "Times of a trial",
    "target": "Target of learning",
    "rls": "Learning by recursive least squares (RLS)",
    "train": "Training",
    "test": "Test",
    "perturb": "Perturbation",
    "engine": "Computation",
    "": "Run, sweep and display",
}
