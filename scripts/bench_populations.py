"""Seconds for 3 s of a network of populations, in rlsnet and in NEST, after the first 0.5 s and without drawing the network.

    pip install -e '.[test,simulators]'
    python scripts/bench_populations.py                                             # config=microcircuit
    python scripts/bench_populations.py config=microcircuit engine.precision=float64

Both use all cores, in turn. NEST draws its own network from the same file of populations, and computes in float64.
"""

from __future__ import annotations

import sys
import time

import jax
from bench import machine
from bench_case import cores
from bench_programs import ROOT

from rlsnet.api import compose
from rlsnet.kernels.device import configured
from rlsnet.model import build
from rlsnet.simulation.state import TRAINING, Dynamics, TrialKeys, initial_state
from rlsnet.simulation.trial import advance

sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "simulation")]
BEFORE, DURATION, ROUNDS = 500.0, 3000.0, 3


def main() -> None:
    """Measures and prints both."""
    from test_published_networks import rates_in_nest

    config = compose(*(sys.argv[1:] or ["config=microcircuit"]))
    with configured(config.engine):
        dynamics, keys = Dynamics.from_config(config), TrialKeys.create(config.seed, TRAINING)
        network, _, _ = build.build(config)
        state, _ = advance(dynamics, network, None, initial_state(dynamics, network, keys), keys, config.trial.steps(BEFORE))
        run = jax.jit(lambda network, state: advance(dynamics, network, None, state, keys, config.trial.steps(DURATION))[0])
        run = run.lower(network, state).compile()
        print(f"{', '.join(f'{key} {value}' for key, value in machine().items())}")
        print(f"{network.n_neurons:,} neurons, {network.n_edges:,} synapses, {config.engine.precision}")
        for _ in range(ROUNDS):
            start = time.perf_counter()
            jax.block_until_ready(run(network, state))
            ours, theirs = time.perf_counter() - start, rates_in_nest(config, BEFORE, DURATION, cores())[1]
            print(f"rlsnet {ours:.2f} s, NEST {theirs:.2f} s, ratio {theirs / ours:.1f}", flush=True)


if __name__ == "__main__":
    main()
