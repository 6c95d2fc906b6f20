"""The whole method as a plain NumPy float64 program, one neuron after the other where it learns. Shares no code with rlsnet."""

import numpy as np


def train(net: dict[str, np.ndarray], iterations: int, *, dt: float, stim_off: float, every: float, lam: float, mu: float,
          gain: str = "textbook", group_size: int = 1, refractory: int = 1, tau_m=10.0, tau_e=3.0, tau_i=3.0, tau_p=150.0):  # fmt: skip
    """Trains without noise and stimulus; returns weights [N, L], P [N, L, L] and spike counts of each trial [iterations, N]."""
    excitatory, bias, pre = net["neuron/excitatory"], net["neuron/bias"], net["plastic/pre"]
    n, (points, inputs) = len(bias), (net["target"].shape[1], pre.shape[1])
    static = np.zeros((n, n))
    for j in range(n):
        for edge in range(net["static/indptr"][j], net["static/indptr"][j + 1]):
            static[net["static/post"][edge], j] += net["static/weight"][edge]
    w = net["plastic/weight"].astype(float).copy()
    P = np.zeros((n, inputs, inputs))
    for i in range(n):
        real = pre[i // group_size] >= 0
        group = w[i // group_size * group_size : (i // group_size + 1) * group_size].sum(axis=0)
        same = (np.sign(group)[:, None] == np.sign(group)[None, :]) & real[:, None] & real[None, :]
        P[i] = np.linalg.inv(lam * np.eye(inputs) + mu * same)
    off, step = round(stim_off / dt), round(every / dt)
    all_spikes = []
    for iteration in range(iterations):
        target = net["target"][iteration % len(net["target"])]
        v, wait = net["neuron/v0"].astype(float).copy(), np.zeros(n, int)
        ue, ui, up, r = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
        in_e, in_i, in_p, fired = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
        count = np.zeros(n, int)
        for t in range(1, off + points * step + 1):
            if t > off and t % step == off % step:
                m = (t - off) // step - 1
                for i in range(n):
                    inputs_of = pre[i // group_size]
                    x = np.where(inputs_of >= 0, r[inputs_of], 0)
                    k = P[i] @ x
                    den = 1 / (1 + x @ k)
                    e = w[i] @ x + ue[i] + ui[i] - target[m, i]
                    P[i] = P[i] - den * np.outer(k, k)
                    w[i] = w[i] - e * (k if gain == "tsn_head" else den * k)
            ue += (-dt * ue + in_e) / tau_e
            ui += (-dt * ui + in_i) / tau_i
            up += (-dt * up + in_p) / tau_p
            r += (-dt * r + fired) / tau_p
            in_e, in_i, in_p, fired = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
            for i in range(n):
                if wait[i] > 0:
                    wait[i] -= 1
                    continue
                v[i] += dt / tau_m * (bias[i] + ue[i] + ui[i] + up[i] - v[i])
                if v[i] > 1:
                    v[i], wait[i], fired[i] = 0.0, refractory, 1.0
                    count[i] += 1
            for j in np.flatnonzero(fired):
                if excitatory[j]:
                    in_e += static[:, j]
                else:
                    in_i += static[:, j]
                for i in range(n):
                    in_p[i] += w[i][pre[i // group_size] == j].sum()
        all_spikes.append(count)
    return w, P, np.array(all_spikes)
