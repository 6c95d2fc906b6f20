"""Seconds of an iteration of several networks that are computed together (hydra/launcher=packed), and one after another.

    python scripts/bench_packed.py tiny                                 # 8 networks with the seeds 1 to 8
    python scripts/bench_packed.py sinusoid --networks 4 rls.penlambda=.4

Both are measured in turn, in one process, without compilation; the first round is left out. The results are medians (least to most), and
the median ratio of a round: above 1, computing together is faster.
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from bench_case import cores

from rlsnet.api import compose
from rlsnet.config.schema import Config
from rlsnet.kernels import backend
from rlsnet.kernels.device import configured
from rlsnet.learning import rls, targets
from rlsnet.learning.iteration import Iteration
from rlsnet.model import build, joined
from rlsnet.model.connectivity import to_groups
from rlsnet.simulation.state import TRAINING, Dynamics, TrialKeys


def starting_point(config: Config) -> tuple:
    """Network, learner, targets and keys of an experiment with targets of its own."""
    network, weight, _ = build.build(config)
    target = jnp.asarray(targets.make(config, network, None, lambda *_: None), network.bias.dtype)
    learner = rls.init(config.rls, network, jnp.asarray(to_groups(weight, network.group_size)), backend.from_config(config).update)
    return network, learner, target, TrialKeys.create(config.seed, TRAINING)


def together(configs: list[Config], starts: list[tuple]) -> tuple:
    """As `starting_point`, of the joined network."""
    networks, learners, currents, keys = zip(*starts, strict=True)
    network = joined.join(networks, [config.noise.sigma for config in configs])
    learner = jax.tree.map(lambda *parts: jnp.concatenate(parts), *learners)
    return network, learner, jnp.concatenate(currents, axis=-1), jax.tree.map(lambda *parts: jnp.stack(parts), *keys)


def main() -> None:
    """Measures and prints both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment")
    parser.add_argument("settings", nargs="*", help="key=value")
    parser.add_argument("--networks", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_intermixed_args()
    count = options.networks
    configs = [compose(f"config={options.experiment}", f"seed={seed + 1}", *options.settings) for seed in range(count)]
    jax.config.update("jax_enable_compilation_cache", False)  # compilation is timed from scratch
    with configured(configs[0].engine) as device:
        starts = [starting_point(config) for config in configs]
        dynamics, settings = Dynamics.from_config(configs[0]), configs[0].rls
        both = [[together(configs, starts)], starts]
        programs = [[Iteration(dynamics, settings, *each) for each in those] for those in both]
        learners, seconds = [[each[1] for each in those] for those in both], []
        for number in range(options.rounds + 1):
            taken = []
            for those, which in zip(programs, learners, strict=True):
                counter = np.full(count, number) if len(those) == 1 else number
                start = time.perf_counter()
                for k, program in enumerate(those):
                    which[k], outcome = program(which[k], counter, counter * 0)
                    jax.block_until_ready(outcome)
                taken.append(time.perf_counter() - start)
            seconds.append(taken)
        print(f"{options.experiment}, {count} networks, {device}, {cores()} cores, JAX {jax.__version__}")
        compiled = [sum(program.seconds for program in those) for those in programs]
        for name, times, compilation in zip(("together", "one after another"), zip(*seconds[1:], strict=True), compiled, strict=True):
            spread = f"{min(times):.3g} to {max(times):.3g}"
            print(f"{name:<18} {statistics.median(times):.3g} s ({spread}); compilation {compilation:.1f} s")
        print(f"ratio              {statistics.median(alone / joint for joint, alone in seconds[1:]):.2f}")


if __name__ == "__main__":
    main()
