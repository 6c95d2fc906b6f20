"""NEST: a script, and files with synapses and weights. LIF and GLIF1 neurons, as iaf_psc_exp_multisynapse.

NEST solves the equations exactly within a time step; rlsnet takes Euler steps. With time constants -dt/log(1 - dt/tau) the
exponential factors of NEST equal those of Euler steps. A factor on each weight corrects for the different effect that a current has
on the voltage within a step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np

from rlsnet.config.schema import GLIF1Config, LIFConfig
from rlsnet.exports import script_folder
from rlsnet.exports.neuron_parameters import neuron_parameters
from rlsnet.exports.trained_network import TrainedNetwork

FILE_NAME = "nest"
HOW_TO_OPEN = "To run it where NEST is installed: python {out}/simulate.py"
MODELS = (LIFConfig, GLIF1Config)


def is_export(path: Path) -> bool:
    """Whether a folder is an export to NEST, without other files."""
    return script_folder.is_export(path, "NEST")


def write(trained: TrainedNetwork, path: Path) -> None:
    """Writes the folder `path`; raises UserError if NEST cannot simulate the network."""
    script_folder.check_model(trained, "NEST", MODELS)
    script_folder.write_folder(trained, path, "run_nest.py")
    values = {**nest_parameters(trained), "tau_syn": nest_taus(trained), "weight_factor": weight_factors(trained)}
    np.savez(path / "nest.npz", **cast(Any, values))


def euler_equivalent(tau: Any, dt: float) -> Any:
    """The time constant (ms) whose exponential decay in a step of `dt` equals that of an Euler step with time constant `tau`."""
    return -dt / np.log1p(-dt / tau)


def receptor_taus(trained: TrainedNetwork) -> list[float]:
    """Decay times (ms) of the currents, one for each receptor: static excitatory, static inhibitory, then plastic ones."""
    synapse = trained.config.synapse
    return [synapse.tau_exc, synapse.tau_inh, *np.unique(trained.tau_plastic).tolist()]


def nest_taus(trained: TrainedNetwork) -> list[float]:
    """`receptor_taus` as NEST needs them, ms."""
    return [float(euler_equivalent(tau, trained.config.trial.dt)) for tau in receptor_taus(trained)]


def weight_factors(trained: TrainedNetwork) -> np.ndarray:
    """[receptors, N] factor from a weight in threshold*ms to a weight of NEST, by receptor and postsynaptic neuron.

    A spike adds weight/tau to the current, and in the next Euler step v changes by dt/tau_m times the current. In NEST, with its
    own time constants, v changes by 1/(1/tau_m - 1/tau)/tau_m * (exp(-dt/tau) - exp(-dt/tau_m)) times the current.
    """
    dt, tau_m = trained.config.trial.dt, neuron_parameters(trained)["tau_m"][0]
    m = euler_equivalent(tau_m, dt)
    factors = []
    for tau in receptor_taus(trained):
        s = euler_equivalent(tau, dt)
        equal = np.isclose(m, s, rtol=1e-9)
        distinct = np.where(equal, 2 * s, m)  # avoids a division by 0 in the branch that is not used
        change = s / (distinct - s) * (np.exp(-dt / distinct) - np.exp(-dt / s))
        factors.append(dt / tau_m / np.where(equal, dt / s * np.exp(-dt / s), change) / tau)
    return np.stack(factors)


def nest_parameters(trained: TrainedNetwork) -> dict[str, np.ndarray]:
    """[N] parameters of the neurons: 1 mV is one unit of the threshold, C_m in pF equals tau_m in ms, so 1 pA is one unit too."""
    own = {name: values for name, (values, _) in neuron_parameters(trained).items()}
    tau_m = euler_equivalent(own["tau_m"], trained.config.trial.dt)
    parameters = {"tau_m": tau_m, "C_m": tau_m, "E_L": own.get("rest", 0 * tau_m), "I_e": own["bias"], "t_ref": own["refractory"]}
    return parameters | {"V_th": own["threshold"], "V_reset": own["reset"]}
