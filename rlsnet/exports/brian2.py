"""Brian2: a script with the equations of rlsnet, and files with synapses and weights. All neuron models that rlsnet ships."""

from __future__ import annotations

from pathlib import Path

from rlsnet.config.schema import GLIF1Config, GLIF2Config, GLIF3Config, GLIF4Config, GLIF5Config, LIFConfig
from rlsnet.exports import script_folder
from rlsnet.exports.trained_network import TrainedNetwork

FILE_NAME = "brian2"
HOW_TO_OPEN = "To run it where Brian2 is installed: python {out}/simulate.py"
MODELS = (LIFConfig, GLIF1Config, GLIF2Config, GLIF3Config, GLIF4Config, GLIF5Config)


def is_export(path: Path) -> bool:
    """Whether a folder is an export to Brian2, without other files."""
    return script_folder.is_export(path, "Brian2")


def write(trained: TrainedNetwork, path: Path) -> None:
    """Writes the folder `path`; raises UserError if the exported Brian2 script cannot simulate the network."""
    script_folder.check_model(trained, "Brian2", MODELS)
    script_folder.write_folder(trained, path, "run_brian2.py")
