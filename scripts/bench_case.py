"""Timing of one experiment and of its parts, for bench.py and the profile."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any


def seconds(run: Callable[[int], Any], times: int) -> list[float]:
    """Wall-clock seconds of each of several calls."""
    import jax

    taken = []
    for index in range(times):
        start = time.perf_counter()
        jax.block_until_ready(run(index))
        taken.append(round(time.perf_counter() - start, 4))
    return taken


class Case:
    """An experiment in this process, prepared for timing."""

    def __init__(self, overrides: list[str], device: str):
        import jax.numpy as jnp

        from rlsnet.api import compose
        from rlsnet.kernels.device import configured
        from rlsnet.learning import rls
        from rlsnet.model import connectivity
        from rlsnet.runs.progress import Progress
        from rlsnet.simulation.state import TRAINING, Dynamics, TrialKeys
        from rlsnet.workflows import prepare, training

        self.config = compose(*overrides, f"engine.platform={device}")
        self.engine = configured(self.config.engine)  # for as long as this process lasts
        self.device = self.engine.__enter__()
        prepared = prepare.prepare(self.config, Progress("off"), learning=True)
        self.draw, self.targets = (round(value, 2) for value in prepared.seconds)
        self.net, self.target = training.with_rate_table(self.config, prepared.network), jnp.asarray(prepared.target)
        self.weight = prepared.weight
        self.dynamics = Dynamics.from_config(self.config)
        w = jnp.asarray(connectivity.to_groups(self.weight, self.net.group_size))
        self.learner = rls.init(self.config.rls, self.net, w, self.dynamics.backend.update)
        self.keys = TrialKeys.create(self.config.seed, TRAINING)

    def compiled_iteration(self) -> tuple[Callable[[int], Any], float]:
        """An iteration as a function of its number, from 0, and the seconds of its compilation."""
        from rlsnet.learning.iteration import Iteration

        trials = self.config.train.trials_per_update
        iteration = Iteration(self.dynamics, self.config.rls, self.net, self.learner, self.target, self.keys, None, trials)

        def learn(index: int) -> Any:
            self.learner, outcome = iteration(self.learner, index, index % len(self.target))
            return outcome

        return learn, iteration.seconds

    def iterations(self, times: int) -> tuple[list[float], float]:
        """Seconds of each of several iterations, and of their compilation."""
        learn, compilation = self.compiled_iteration()
        return seconds(learn, times), compilation

    def trials(self, times: int) -> list[float]:
        """Seconds of each of several trials with frozen weights."""
        import jax.numpy as jnp

        from rlsnet.simulation.trial import Program
        from rlsnet.workflows import evaluation

        zero = jnp.int32(0)
        trial = Program(evaluation.run_trial, self.dynamics, (False,), self.net, self.learner.w, self.keys, zero, zero)
        one = partial(trial, self.net, self.learner.w, self.keys)
        seconds(lambda index: one(jnp.int32(index), zero), 1)  # the first call takes longer
        return seconds(lambda index: one(jnp.int32(index), zero), times)

    def delivery(self) -> float:
        """Seconds of sending the spikes of a trial to their targets, from the spikes of ten learning intervals."""
        import jax
        import jax.numpy as jnp
        import numpy as np
        from jax import lax

        from rlsnet.simulation.step import deliver
        from rlsnet.simulation.trial import advance, before_learning
        from rlsnet.workflows.test_store import unpack

        trial, net, w = self.dynamics.trial, self.net, self.learner.w
        keys, steps = self.keys.trial(jnp.int32(0), jnp.int32(0)), 10 * trial.every

        @jax.jit
        def record(net: Any, w: Any) -> Any:
            state = before_learning(self.dynamics, net, w, keys)
            return advance(self.dynamics, net, w, state, keys, steps, record=True)

        @jax.jit
        def send(net: Any, w: Any, state: Any, spiked: Any) -> Any:
            def one(state: Any, spiked: Any) -> tuple[Any, None]:
                state = dataclasses.replace(state, spiked=spiked)
                return deliver(self.dynamics, net, w, state, jnp.ones(len(state.synapses), net.bias.dtype)), None

            return lax.scan(one, state, spiked)[0]

        state, words = record(net, w)
        spiked = np.zeros((len(words), net.n_neurons + net.n_feedforward), bool)  # without the spikes of feed-forward neurons
        spiked[unpack(np.asarray(words))] = True
        seconds(lambda _: send(net, w, state, spiked), 1)
        return statistics.median(seconds(lambda _: send(net, w, state, spiked), 3)) * trial.n_steps / steps

    def learning(self) -> tuple[float, float]:
        """Seconds of the updates of an iteration, and the share of inputs that spiked between two updates."""
        import jax
        import jax.numpy as jnp
        from jax import lax

        from rlsnet.learning import updates
        from rlsnet.simulation.step import currents
        from rlsnet.simulation.trial import advance, before_learning

        trial, backend, settings = self.dynamics.trial, self.dynamics.backend, self.config.rls
        keys = self.keys.trial(jnp.int32(0), jnp.int32(0))
        decay, learned = self.dynamics.decay_between_updates(self.net, settings.every), slice(settings.every - 1, None, settings.every)

        @jax.jit
        def follow(net: Any, w: Any, target: Any) -> Any:
            def one(state: Any, wanted: Any) -> tuple[Any, Any]:
                state, _ = advance(self.dynamics, net, w, state, keys, trial.every)
                return state, (state.regressors, state.n_delivered, currents(net, state.synapses)[0] - wanted)

            points = lax.scan(one, before_learning(self.dynamics, net, w, keys), target)[1]
            return jax.tree.map(lambda values: values[learned], points)

        def learn_all(net: Any, learner: Any, points: Any) -> Any:
            def one(carry: Any, point: Any) -> tuple[Any, None]:
                return updates.learn(settings, backend, net, *carry, decay, *point), None

            carry = learner, updates.begin(settings, backend, net, learner, trial.n_points // settings.every)
            return updates.finish(settings, backend, *lax.scan(one, carry, points)[0])

        points = follow(self.net, self.learner.w, self.target[0])
        run = jax.jit(learn_all, donate_argnums=1)

        def learn(_: int) -> Any:
            self.learner = run(self.net, self.learner, points)
            return self.learner

        seconds(learn, 1)
        counts = points[1]
        return statistics.median(seconds(learn, 2)), float(jnp.mean(counts[1:] != counts[:-1]))

    def correlation(self) -> float:
        """Seconds of the correlation at the end of an iteration."""
        import jax

        from rlsnet.learning import scores

        currents = self.target[0][::-1] + 0.1
        run = jax.jit(lambda currents, target: scores.current_correlation(self.dynamics.trial, currents, target))
        seconds(lambda _: run(currents, self.target[0]), 1)
        return statistics.median(seconds(lambda _: run(currents, self.target[0]), 3))

    def floor(self, share: float, bandwidth: float) -> float | None:
        """Seconds that the bytes of an iteration's updates take at the bandwidth of a copy; None for the dense update."""
        from rlsnet.learning.deferred import max_pending

        if self.dynamics.backend.update == "dense":
            return None
        groups, inputs, size = self.learner.w.shape
        row, points = inputs * self.learner.w.dtype.itemsize, self.dynamics.trial.n_points // self.config.rls.every
        sparse = self.dynamics.backend.update in ("native", "cuda") and self.net.rate_table is None
        share = share if sparse else 1.0  # otherwise all of P is read
        rounds = -(-points // max_pending(self.config.rls, inputs, self.learner.w.dtype))
        most = points / rounds
        rows = (points - rounds) * share * inputs * row  # rows of P whose input spiked
        pending = points * (most / 2 + 1) * row  # pending vectors, read; and one written
        whole = (2 * rounds + 1) * inputs * row  # P read and written once a round
        return groups * (rows + pending + whole + points * 2 * row * (size + 1)) / bandwidth  # w and g, read and written
