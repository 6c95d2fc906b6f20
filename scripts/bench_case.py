"""Timing of one experiment and of its parts, for bench.py and the profile."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

LIMIT = 20.0  # s, see `seconds`


def seconds(run: Callable[[int], Any], times: int, after_first: Callable[[Any], None] = lambda result: None) -> list[float]:
    """Wall-clock seconds of calls run(index), until there are `times` of them, or they took LIMIT seconds; at least of one.

    The first call, which takes longer, is not among them. after_first is called with its result.
    """
    import jax

    taken: list[float] = []
    while len(taken) < 2 or (len(taken) <= times and sum(taken) < LIMIT):
        start = time.perf_counter()
        result = jax.block_until_ready(run(len(taken)))
        taken.append(round(time.perf_counter() - start, 6))
        if len(taken) == 1:
            after_first(result)
    return taken[1:]


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_cores(number: int) -> None:
    """Restricts this process to some of its cores, before JAX starts; XLA then has as many threads."""
    os.environ["NPROC"] = str(number)  # read by XLA, where there is no affinity
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:number])


def checksum(values: Any) -> str:
    """Twelve hexadecimal digits that depend on every bit of all arrays of a pytree."""
    import jax
    import numpy as np

    digest = hashlib.sha256()
    for array in jax.tree.leaves(values):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:12]


def padded(n_bytes: int) -> int:
    """Bytes of a row that starts and ends with a cache line of 64 bytes."""
    return -(-n_bytes // 64) * 64


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of an iteration.

    seconds: measured.
    bytes: that it has to read and write; 0: not counted.
    accesses: to memory at random places.
    needs: (probe, amount) pairs whose costs add up to the least seconds: a probe of benchmarks/floor/floor.c and the number of its
      units, or "seconds" and seconds.
    normals: normal random numbers.
    """

    seconds: float
    bytes: float = 0.0
    accesses: float = 0.0
    needs: list[tuple[str, float]] = dataclasses.field(default_factory=list)
    normals: float = 0.0


class Case:
    """An experiment in this process, prepared for timing."""

    checksum = trial_checksum = ""
    spikes: Any = None  # [N] of the first trial that was timed

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

    def threads(self) -> int | None:
        """Number of threads of XLA for computations on the CPU, on Linux; they have a name of their own."""
        names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
        return sum("XLAEigen" in name for name in names) or None

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
        """Seconds of each of several iterations, and of their compilation; `checksum` is that of the weights after the first."""
        learn, compilation = self.compiled_iteration()

        def keep(_: Any) -> None:
            self.checksum = checksum(self.learner.w)

        return seconds(learn, times, keep), compilation

    def trials(self, times: int, fire: bool = True) -> list[float]:
        """Seconds of each of several trials with frozen weights; `trial_checksum` is that of the rates and currents of the first.

        With fire=False, no neuron ever fires, since its drive is far below the threshold.
        """
        import jax.numpy as jnp
        import numpy as np

        from rlsnet.simulation.trial import Program
        from rlsnet.workflows import evaluation

        zero, net = jnp.int32(0), self.net
        if not fire:
            net = dataclasses.replace(net, bias=jnp.full_like(net.bias, -1000), v0=jnp.zeros_like(net.bias))
        trial = Program(evaluation.run_trial, self.dynamics, (False,), net, self.learner.w, self.keys, zero, zero)
        one = partial(trial, net, self.learner.w, self.keys)

        def keep(result: Any) -> None:
            if fire:
                self.trial_checksum = checksum(result)
                self.spikes = np.asarray(result.counts).sum(0)

        return seconds(lambda index: one(jnp.int32(index), zero), times, keep)

    def delivery(self, simulation: float, silent: float) -> dict[str, Part]:
        """What the spikes of a trial cost: the difference between its seconds and those of a trial in which no neuron fires."""
        import numpy as np

        net, n = self.net, self.net.n_neurons  # spikes of feed-forward neurons are not counted: there are few
        groups, inputs, size = self.learner.w.shape
        reached = float(self.spikes @ np.diff(np.asarray(net.out_indptr))[:n])
        probe = f"weighted={groups},{inputs},{size},{max(1, groups * inputs // (n + net.n_feedforward))},{n + net.n_feedforward}"
        # index; weight; filter read and written:
        n_bytes, accesses, needs = (4 + 12 * size) * reached, 2 * reached, [(probe, reached * size)]
        if net.n_edges:
            reached = float(self.spikes @ np.diff(np.asarray(net.indptr))[:n])
            n_bytes, accesses = n_bytes + 12 * reached, accesses + reached  # index; filter read and written
            needs.append((f"adds={n},{max(1, net.n_edges // n)},{n}", reached))
        return {"delivery": Part(max(0.0, simulation - silent), n_bytes, accesses, needs)}

    def neurons(self, silent: float) -> dict[str, Part]:
        """All of a trial but delivery: passes over the state of all neurons, and normal numbers; seconds of a trial without spikes."""
        import jax
        import jax.numpy as jnp

        from rlsnet.config.schema import NoStimulusConfig
        from rlsnet.model import rng
        from rlsnet.simulation.state import initial_state
        from rlsnet.simulation.step import normal

        trial, net, n = self.dynamics.trial, self.net, self.net.n_neurons
        state = jax.eval_shape(lambda: initial_state(self.dynamics, net, self.keys.trial(jnp.int32(0), jnp.int32(0)), self.learner.w))

        def n_bytes(tree: Any) -> int:
            return sum(array.size * array.dtype.itemsize for array in jax.tree.leaves(tree))

        once = n_bytes(state.synapses) * (1 if net.n_edges else 1 / len(state.synapses)) + n_bytes(net.bias) + n_bytes(net.excitatory)
        step = once + 2 * (n_bytes(state.neuron) + n_bytes(state.spiked))  # read; read and written
        normals, draw, many = 0.0, normal(self.dynamics), 1 << 18
        if self.dynamics.sigma(net) is not None:
            normals += n * trial.n_steps
        if not isinstance(self.dynamics.stimulus, NoStimulusConfig):
            normals += n * (trial.steps(trial.stim_off) - trial.steps(trial.stim_on))

        @jax.jit
        def numbers(stream: Any) -> Any:
            def one(i: Any, total: Any) -> Any:
                return total + draw(rng.fold(stream, i), many, net.bias.dtype)[0]

            return jax.lax.fori_loop(0, 100, one, jnp.zeros((), net.bias.dtype))

        each = min(seconds(lambda _: numbers(self.keys.noise), 5)) / (100 * many)
        needs = [(f"pass={int(step)}", step * trial.n_steps), ("seconds", normals * each)]
        return {"neurons and noise": Part(silent, step * trial.n_steps, 0.0, needs, normals)}

    def learning(self) -> dict[str, Part]:
        """Parts of an iteration that update weights and P, from the filtered spikes of a trial: the updates, and the rewriting of P."""
        import jax
        import jax.numpy as jnp
        import numpy as np
        from jax import lax

        from rlsnet.learning import updates
        from rlsnet.simulation.step import currents
        from rlsnet.simulation.trial import advance, before_learning

        trial, backend, settings = self.dynamics.trial, self.dynamics.backend, self.config.rls
        keys = self.keys.trial(jnp.int32(0), jnp.int32(0))
        decay, learned = self.dynamics.decay_between_updates(self.net, settings.every), slice(settings.every - 1, None, settings.every)
        updates_ = trial.n_points // settings.every

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

            carry = learner, updates.begin(settings, backend, net, learner, updates_)
            return updates.finish(settings, backend, *lax.scan(one, carry, points)[0])

        def rewrite(net: Any, learner: Any, pending: Any) -> Any:
            return updates.finish(settings, backend, learner, pending)

        def timed(function: Any, *arguments: Any) -> float:
            run = jax.jit(function, donate_argnums=1)

            def once(_: int) -> Any:
                self.learner = run(self.net, self.learner, *arguments)
                return self.learner

            return statistics.median(seconds(once, 2))

        points = follow(self.net, self.learner.w, self.target[0])
        whole = timed(learn_all, points)
        if backend.update not in ("native", "cuda"):
            return {"learning": Part(whole)}
        pending = jax.jit(partial(updates.begin, settings, backend, points=updates_))(self.net, self.learner)
        most = pending.u.shape[1]
        rounds = -(-updates_ // most)
        spiked = np.asarray(points[1][1:] != points[1][:-1]).mean(0) if decay is not None else np.ones(len(points[1][0]))
        pre = np.asarray(self.net.pre)
        share = float(spiked[np.maximum(pre, 0)].mean())
        applied = rounds * timed(rewrite, dataclasses.replace(pending, count=jnp.int32(most)))
        return self._parts_of_learning(whole - applied, applied, updates_, rounds, most, share)

    def _parts_of_learning(self, update: float, applied: float, updates_: int, rounds: int, most: int, share: float) -> dict[str, Part]:
        """Parts of learning by native kernels.

        Args:
          update: seconds of all updates of a trial, without the application of pending updates to P.
          applied: seconds of the latter.
          updates_: number of updates of a trial.
          rounds: times that pending updates are applied to P; then, and at the first update, all of P is read, and no single rows.
          most: largest number of pending updates.
          share: mean share of the rows of P whose input spiked between two updates.
        """
        net, P = self.net, self.learner.P.numbers
        groups, inputs, size = self.learner.w.shape
        item, packed = P.dtype.itemsize, P.ndim == 2
        number = self.learner.w.dtype.itemsize
        row, vector = padded(inputs * item), groups * padded(inputs * number)  # of one row of P; of u or g of all groups
        whole = P.size * item if packed else groups * inputs * row  # P
        pending = vector * (updates_ - rounds) * (most - 1) / 2  # vectors u that are read
        sources = (2 * (net.n_neurons + net.n_feedforward) + net.n_neurons) * number  # r, its increase, residual input
        read = pending + updates_ * (4 * groups * inputs + sources)  # and pre
        changed = updates_ * (2 * groups * inputs * size * number + 3 * vector)  # w, g read and written; a new u written
        cycle = min(int(vector * most + groups * inputs * (4 + size * number) + vector), 1 << 30)  # bytes that come round at each update
        needs = [(f"read={cycle}", read), (f"pass={cycle}", changed)]
        of_P = f"read={min(int(whole), 1 << 30)}"
        if packed:  # a triangle is read in full
            accesses, sparse = 0.0, float(whole * (updates_ - rounds))
            needs.append((of_P, sparse + whole))
        else:
            accesses = (updates_ - rounds) * groups * inputs * share
            sparse = accesses * row
            needs += [(f"rows={row},{inputs},{groups},{share:.3g}", sparse), (of_P, whole)]
        both = 2.0 * rounds * whole
        return {
            "learning: updates": Part(update, read + changed + sparse + whole, accesses, needs),
            "learning: pending updates applied to P": Part(applied, both, 0.0, [(f"pass={min(int(whole), 1 << 30)}", both)]),
        }

    def correlation(self) -> float:
        """Seconds of the correlation at the end of an iteration."""
        import jax

        from rlsnet.learning import scores

        currents = self.target[0][::-1] + 0.1
        run = jax.jit(lambda currents, target: scores.current_correlation(self.dynamics.trial, currents, target))
        return statistics.median(seconds(lambda _: run(currents, self.target[0]), 3))
