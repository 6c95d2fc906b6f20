"""NEST: a script, and the wiring and weights beside it. LIF and GLIF1 neurons, as iaf_psc_exp_multisynapse.

NEST solves the equations exactly within a step, where rlsnet takes Euler steps. With time constants -dt/log(1 - dt/tau) its
exponentials are the factors of Euler steps, and a factor on the weights makes up for how a current moves v in a step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np

from rlsnet.config import GLIF1Config, LIFConfig
from rlsnet.export import simulator
from rlsnet.export.trained import Trained

NAME, MARKER = "nest", simulator.MARKER
OPEN = "Run it where NEST is installed: python {out}/simulate.py"
MODELS = (LIFConfig, GLIF1Config)


def write(trained: Trained, path: Path) -> None:
    """Writes the folder `path`; raises UserError where NEST cannot do what the network does."""
    simulator.check_model(trained, "NEST", MODELS)
    simulator.write(trained, path, "run_nest.py")
    values = {**parameters(trained), "tau_syn": tau_syn(trained), "gain": gains(trained)}
    np.savez(path / "nest.npz", **cast(Any, values))


def of_euler(tau: Any, dt: float) -> Any:
    """The time constant, in ms, whose exponential decays in a step of `dt` as an Euler step of `tau` does."""
    return -dt / np.log1p(-dt / tau)


def taus(trained: Trained) -> list[float]:
    """Decay times in ms of the currents, a receptor each: static excitatory, static inhibitory, plastic ones."""
    synapse = trained.config.synapse
    return [synapse.tau_exc, synapse.tau_inh, *np.unique(trained.tau_plastic).tolist()]


def tau_syn(trained: Trained) -> list[float]:
    """What NEST takes for `taus`."""
    return [float(of_euler(tau, trained.config.trial.dt)) for tau in taus(trained)]


def gains(trained: Trained) -> np.ndarray:
    """[receptors, N] what a weight in threshold*ms is multiplied by, by receptor and postsynaptic neuron, to be one of NEST's.

    A spike adds weight/tau to the current, and v moves by dt/tau_m times the current at the start of a step. NEST's moves by
    1/(1/tau_m - 1/tau)/tau_m * (exp(-dt/tau) - exp(-dt/tau_m)) times it, of its own time constants.
    """
    dt, tau_m = trained.config.trial.dt, trained.values()["tau_m"][0]
    m = of_euler(tau_m, dt)
    found = []
    for tau in taus(trained):
        s = of_euler(tau, dt)
        equal = np.isclose(m, s, rtol=1e-9)
        apart = np.where(equal, 2 * s, m)
        moved = s / (apart - s) * (np.exp(-dt / apart) - np.exp(-dt / s))
        found.append(dt / tau_m / np.where(equal, dt / s * np.exp(-dt / s), moved) / tau)
    return np.stack(found)


def parameters(trained: Trained) -> dict[str, np.ndarray]:
    """[N] parameters of the neurons: 1 mV is a unit of the threshold, C_m in pF is tau_m in ms, so 1 pA is a unit too."""
    own = {name: values for name, (values, _) in trained.values().items()}
    tau_m = of_euler(own["tau_m"], trained.config.trial.dt)
    found = {"tau_m": tau_m, "C_m": tau_m, "E_L": own.get("rest", 0 * tau_m), "I_e": own["bias"], "t_ref": own["refractory"]}
    return found | {"V_th": own["threshold"], "V_reset": own["reset"]}
