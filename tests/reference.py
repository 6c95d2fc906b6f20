"""The whole method as a plain NumPy float64 program, one neuron after the other where it learns. Shares no code with rlsnet."""

import functools
import pickle

import numpy as np


def _computed_once(function):
    """Keeps the results of equal arguments: many forms of the same method are compared with one result."""
    results = {}

    @functools.wraps(function)
    def wrapper(*arguments, **options):
        key = pickle.dumps((arguments, sorted(options.items())))
        if key not in results:
            results[key] = function(*arguments, **options)
            for array in results[key]:
                array.flags.writeable = False
        return results[key]

    return wrapper


@_computed_once
def train(net: dict[str, np.ndarray], iterations: int, *, dt: float, stim_off: float, every: float, lam: float, mu=0.0,
          gain: str = "textbook", group_size: int = 1, refractory: int = 1, tau_m=10.0, tau_e=3.0, tau_i=3.0, tau_p=150.0,
          forgetting: float = 1.0, dale: bool = False, outside=None, outside_weight=None, lam_outside: float = 1.0,
          stimulus=None, stim_on: float = 0.0, stimulus_bin: float = 1.0, excited=None, held=None, voltage=None,
          every_nth: int = 1, correct: bool = False, rate_table=None, block: float = 1.0, delay=None):  # fmt: skip
    """Trains without noise; returns weights [N, X+L], P [N, X+L, X+L] and spike counts of each iteration [iterations, N].

    voltage [iterations, B, N], if given, are the first voltages of B trials that run side by side in each iteration and learn together;
    spikes are then counted over all of them. Otherwise an iteration is one trial.

    mu is one number or those of positive and negative weights, tau_p one number or one for each presynaptic neuron [N+X].
    outside [C, last steps of a trial, X] says who of X feed-forward neurons spikes when, outside_weight [N, X] their initial weights.
    excited (who [N] bool, first step, last step, current) get a current then; held (who, first, last, spikes [steps, N]) stay at
    reset and spike at given times. A target of NaN means not trained.
    every_nth: learning points from one update to the next; correct: an update also changes the present plastic current to that of the new
    weights. delay (ms, one number or [N+X]) is that of the spikes of a neuron; static/delay [edges] in net replaces it for static synapses.
    rate_table (inputs, rates) gives the regressors: filtered rates at the currents at the end of each block of `block` ms.
    """
    excitatory, bias = net["neuron/excitatory"], net["neuron/bias"]
    n, points = len(bias), net["target"].shape[1]
    x = 0 if outside is None else outside.shape[2]
    pre = np.concatenate([np.tile(n + np.arange(x), (len(net["plastic/pre"]), 1)), net["plastic/pre"]], axis=1).astype(int)
    w = net["plastic/weight"].astype(float).copy()
    if x:
        w = np.concatenate([outside_weight, w], axis=1)
    inputs = x + net["plastic/pre"].shape[1]
    tau_p = np.broadcast_to(np.asarray(tau_p, float), n + x)
    mu_plus, mu_minus = mu if isinstance(mu, tuple) else (mu, mu)
    late = np.rint(np.broadcast_to(np.asarray(dt if delay is None else delay, float), n + x) / dt).astype(int)
    static = {}
    for j in range(n):
        for edge in range(net["static/indptr"][j], net["static/indptr"][j + 1]):
            steps = max(1, round(float(net["static/delay"][edge]) / dt)) if "static/delay" in net else late[j]
            static.setdefault(steps, np.zeros((n, n)))[net["static/post"][edge], j] += net["static/weight"][edge]
    P = np.zeros((n, inputs, inputs))
    for i in range(n):
        inside = (pre[i // group_size] >= 0) & (pre[i // group_size] < n)
        sign = np.sign(w[i // group_size * group_size : (i // group_size + 1) * group_size].sum(axis=0))
        A = np.diag(np.where(pre[i // group_size] >= n, lam_outside, lam))
        for label, size in ((1, mu_plus), (-1, mu_minus)):
            member = (inside & (sign == label)).astype(float)
            A = A + size * np.outer(member, member)
        real = pre[i // group_size] >= 0
        P[i] = np.linalg.inv(A) * np.outer(real, real)
    off, step = round(stim_off / dt), round(every / dt)
    on, hold = round(stim_on / dt), round(stimulus_bin / dt)
    all_spikes = []
    for iteration in range(iterations):
        condition = iteration % len(net["target"])
        target = net["target"][condition]
        v = np.array([net["neuron/v0"]] if voltage is None else voltage[iteration], float)
        trials = len(v)
        wait, ue, ui = np.zeros((trials, n), int), np.zeros((trials, n)), np.zeros((trials, n))
        up, r = np.zeros((trials, n, inputs)), np.zeros((trials, n + x))
        in_e, in_i, in_p = np.zeros((trials, n)), np.zeros((trials, n)), np.zeros((trials, n, inputs))
        arrived, count, history = np.zeros((trials, n + x)), np.zeros(n, int), [np.zeros((trials, n + x))]
        expected, block_start = np.zeros((trials, n + x)), 0
        for t in range(1, off + points * step + 1):
            if t > off and t % step == off % step and (t - off) // step % every_nth == 0:
                m = (t - off) // step - 1
                for i in range(n):
                    group = i // group_size
                    mine = target[m, group * group_size : (group + 1) * group_size]
                    if np.all(np.isnan(mine)):
                        continue
                    known = r if rate_table is None else expected
                    regressors = np.where(pre[group] >= 0, sum(known[b, pre[group]] for b in range(trials)) / trials, 0)
                    k = P[i] @ regressors
                    den = 1 / (forgetting + regressors @ k)
                    e = w[i] @ regressors + sum(ue[b, i] + ui[b, i] for b in range(trials)) / trials - target[m, i]
                    P[i] = (P[i] - den * np.outer(k, k)) / forgetting
                    if np.isnan(target[m, i]):
                        continue
                    w[i] = w[i] - e * (k if gain == "tsn_head" else den * k)
                    if dale:
                        for place, j in enumerate(pre[group]):
                            if 0 <= j < n:
                                w[i, place] = max(w[i, place], 0) if excitatory[j] else min(w[i, place], 0)
                if correct:
                    for b in range(trials):
                        for i in range(n):
                            up[b, i], in_p[b, i] = w[i] * r[b, pre[i // group_size]], w[i] * arrived[b, pre[i // group_size]]
            ue += (-dt * ue + in_e) / tau_e
            ui += (-dt * ui + in_i) / tau_i
            for i in range(n):
                up[:, i] += (-dt * up[:, i] + in_p[:, i]) / tau_p[pre[i // group_size]]
            r += (-dt * r + arrived) / tau_p
            if t == off - 1 or t - block_start == round(block / dt):
                keep = (1 - dt / tau_p[:n]) ** (t - block_start)
                rate = 0 if rate_table is None else np.interp(bias + ue + ui + up.sum(axis=2), *rate_table)
                expected[:, :n], block_start = keep * expected[:, :n] + (1 - keep) * rate, t
            expected[:, n:] = r[:, n:]
            in_e, in_i, in_p, fired = np.zeros_like(in_e), np.zeros_like(in_i), np.zeros_like(in_p), np.zeros_like(arrived)
            arrived = np.zeros_like(arrived)
            for b in range(trials):
                for i in range(n):
                    if held is not None and held[0][i] and held[1] <= t <= held[2]:
                        v[b, i], wait[b, i], fired[b, i] = 0.0, 0, held[3][t - held[1], i]
                        count[i] += int(fired[b, i])
                        continue
                    if wait[b, i] > 0:
                        wait[b, i] -= 1
                        continue
                    given = 0.0
                    if stimulus is not None and on < t < off and (t - on - 1) // hold < stimulus.shape[1]:
                        given = stimulus[condition, (t - on - 1) // hold, i]
                    if excited is not None and excited[0][i] and excited[1] <= t <= excited[2]:
                        given += excited[3]
                    v[b, i] += dt / tau_m * (bias[i] + given + ue[b, i] + ui[b, i] + up[b, i].sum() - v[b, i])
                    if v[b, i] > 1:
                        v[b, i], wait[b, i], fired[b, i] = 0.0, refractory, 1.0
                        count[i] += 1
                if x and (row := t - 1 - (off + points * step - outside.shape[1])) >= 0:
                    fired[b, n:] = outside[condition, row]
            history.append(fired)
            for b in range(trials):
                for steps, weights in static.items():
                    for j in np.flatnonzero(history[max(0, t + 1 - steps)][b, :n]):
                        (in_e if excitatory[j] else in_i)[b] += weights[:, j]
                for j in range(n + x):
                    arrived[b, j] = history[max(0, t + 1 - late[j])][b, j]
                for j in np.flatnonzero(arrived[b]):
                    for i in range(n):
                        in_p[b, i] += w[i] * (pre[i // group_size] == j)
        all_spikes.append(count)
    return w, P, np.array(all_spikes)
