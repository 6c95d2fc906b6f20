"""Table of the commands: a line of help for each, its settings, and the modules of those that need no experiment."""

from __future__ import annotations

COMMANDS = {
    "train": "train a network, or continue a run (train [EXPERIMENT or RUN])",
    "simulate": "run a network with its initial weights (simulate [EXPERIMENT])",
    "watch": "train while an experiment runs (watch SOURCE [RUN])",
    "test": "run a trained network with frozen weights (test RUN)",
    "import": "import NWB, Phy, MATLAB and other files (import SOURCE... OUT.zarr)",
    "import-network": "import the wiring of a connectome (import-network SOURCE OUT.zarr)",
    "live": "show a run while it trains, on a page or in the terminal (live RUN)",
    "runs": "list the runs below a folder, the newest first (runs [FOLDER])",
    "plot": "draw the figures of a run or of a recording (plot RUN)",
    "report": "write the results of a run as one HTML page (report RUN)",
    "analyse": "analyse a tested run: decoding, silencing, and more (analyse RUN)",
    "compare": "compare runs, or the jobs of a sweep, in a table (compare RUNS)",
    "info": "summarise a run, network, recording or checkpoint (info PATH)",
    "export": "write network and spikes for other tools (export RUN to=FORMAT)",
    "completion": "print the completion script for a shell (completion bash)",
}
PLAIN = {
    "import": "rlsnet.cli.commands.import_",
    "import-network": "rlsnet.cli.commands.import_network",
    "live": "rlsnet.cli.commands.live",
    "runs": "rlsnet.cli.commands.runs",
    "plot": "rlsnet.cli.commands.plot",
    "report": "rlsnet.cli.commands.report",
    "analyse": "rlsnet.cli.commands.analyse",
    "compare": "rlsnet.cli.commands.compare",
    "export": "rlsnet.cli.commands.export",
    "info": "rlsnet.cli.commands.info",
    "completion": "rlsnet.cli.completion",
}  # commands that need no experiment: modules with Options, USAGE and main(paths, options)
DRY_RUN = "--dry-run"
WITHOUT_RUNS = ("import", "import-network", "runs", "completion")  # plain commands for whose paths `last` does not stand for the newest run
# sections of settings that the help and the completion of a command show; None: all but those in HIDDEN
SECTIONS: dict[str, tuple[str, ...] | None] = {
    "train": None,
    "simulate": None,
    "watch": None,
    "test": ("progress", "test", "perturb", "plugins", "trust", "recording.path", "resources_every", "engine"),
}
HIDDEN: dict[str, tuple[str, ...]] = {
    "train": ("run", "perturb", "watch"),
    "simulate": ("run", "resume", "rls", "train", "tracking", "watch"),
    "watch": (
        *("run", "resume", "sweep", "perturb", "test", "tracking", "target", "network.load"),
        *("recording.path", "recording.excitatory", "recording.inhibitory"),
        *(f"train.{name}" for name in ("iterations", "order", "weights", "save_best", "validate_every", "stop_when")),
    ),
    "test": (),
}  # sections of settings without influence on a command, and settings that another form has replaced
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
    "watch": (
        "watch.align",
        "watch.start",
        "watch.conditions",
        "watch.iterations",
        "network.n_neurons",
        "trial.duration",
        "trial.learn_every",
    ),
    "test": ("test.trials", "test.checkpoint", "test.neurons", "test.spikes", "recording.path"),
    "import": ("preset", "align", "window", "bin", "conditions", "units", "regions", "min_trials"),
    "import-network": ("pre", "post", "count", "weight", "neuron_table", "transmitter", "unknown", "normalise", "plastic", "max_inputs"),
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
    "background": "Input from outside of the network",
    "stimulus": "Stimulus",
    "trial": "Times of a trial",
    "target": "Target of learning",
    "rls": "Learning by recursive least squares (RLS)",
    "train": "Training",
    "test": "Test",
    "watch": "Training while an experiment runs",
    "perturb": "Perturbation",
    "engine": "Computation",
    "": "Run, sweep and display",
}


def is_shown(command: str, key: str) -> bool:
    """Whether the help and the completion of a command show a section or a setting."""
    sections, names = SECTIONS[command], {key, key.split(".")[0]}
    return bool(names & set(sections)) if sections is not None else not names & set(HIDDEN[command])
