"""Table of the commands: a line of help for each, its settings, and the modules of those that need no experiment."""

from __future__ import annotations

COMMANDS = {
    "train": "train a network; also resumes (resume=RUN) and sweeps (sweep=FOLDER)",
    "simulate": "run a network with its initial weights, without training",
    "test": "run a trained network with frozen weights (run=RUN)",
    "import": "make a recording.zarr of NWB, Phy, ALF, NumPy, MATLAB or HDF5 files (import SOURCE... OUT.zarr)",
    "plot": "draw figures of a run or a recording from stored results (plot PATH)",
    "report": "put a run's results on one page, an HTML file (report RUN)",
    "analyse": "analyse a tested run: trajectories, decoding, regions, silencing, and more (analyse RUN)",
    "compare": "compare runs or the jobs of a sweep, as a table and a page (compare RUNS)",
    "info": "show the content of a run, network, recording or checkpoint (info PATH)",
    "export": "write a trained network and its spikes for other tools (export RUN to=FORMAT)",
    "completion": "print the script with which a shell completes this command line (completion bash)",
}
PLAIN = {
    "import": "rlsnet.cli.commands.import_",
    "plot": "rlsnet.cli.commands.plot",
    "report": "rlsnet.cli.commands.report",
    "analyse": "rlsnet.cli.commands.analyse",
    "compare": "rlsnet.cli.commands.compare",
    "export": "rlsnet.cli.commands.export",
    "info": "rlsnet.cli.commands.info",
    "completion": "rlsnet.cli.completion",
}  # commands that need no experiment: modules with Options, USAGE and main(paths, options)
# sections of settings that the help and the completion of a command show; None: all
SECTIONS: dict[str, tuple[str, ...] | None] = {
    "train": None,
    "simulate": None,
    "test": ("run", "progress", "test", "perturb", "plugins", "trust", "recording.path", "resources_every", "engine"),
}
