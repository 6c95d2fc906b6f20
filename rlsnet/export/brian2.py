"""Brian2: a script with rlsnet's equations, and the wiring and weights beside it. All neuron models of rlsnet's own."""

from __future__ import annotations

from pathlib import Path

from rlsnet.config import GLIF1Config, GLIF2Config, GLIF3Config, GLIF4Config, GLIF5Config, LIFConfig
from rlsnet.export import simulator
from rlsnet.export.trained import Trained

NAME, MARKER = "brian2", simulator.MARKER
OPEN = "Run it where Brian2 is installed: python {out}/simulate.py"
MODELS = (LIFConfig, GLIF1Config, GLIF2Config, GLIF3Config, GLIF4Config, GLIF5Config)


def write(trained: Trained, path: Path) -> None:
    """Writes the folder `path`; raises UserError where Brian2 cannot do what the network does."""
    simulator.check_model(trained, "Brian2", MODELS)
    simulator.write(trained, path, "run_brian2.py")
