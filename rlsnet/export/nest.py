"""NEST: a script, and the wiring and weights beside it. LIF and GLIF1 neurons, as iaf_psc_exp_multisynapse."""

from __future__ import annotations

from pathlib import Path

from rlsnet.config import GLIF1Config, LIFConfig
from rlsnet.export import simulator
from rlsnet.export.trained import Trained

SUFFIX, MARKER = "", simulator.MARKER
OPEN = "Run it where NEST is installed: python {out}/simulate.py"
MODELS = (LIFConfig, GLIF1Config)


def write(trained: Trained, path: Path) -> None:
    """Writes the folder `path`; raises UserError where NEST cannot do what the network does."""
    simulator.check_model(trained, "NEST", MODELS)
    simulator.write(trained, path, "run_nest.py")
