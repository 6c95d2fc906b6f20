"""A trained network in Brian2, as rlsnet simulates it: python simulate.py [--condition C] [--trials T]. It reads the files beside it.

Equations (ms, threshold units), by Euler steps of dt, with spikes acting one step later:

    tau_m dv/dt = drive - (v - rest)          a spike where v > threshold; not while refractory
    drive       = bias + u_exc + u_inh + u_plastic + stimulus
    du/dt       = -u/tau, and u += weight/tau for each spike that arrives

GLIF models add after-spike currents and a threshold that moves. Noise is v += sigma*sqrt(dt/tau_m)*xi in each step. Without noise
(and with numbers of 64 bits) the spikes are those of `rlsnet test`, whose initial voltages are in v0.npy.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import brian2 as b2
import numpy as np

HERE = Path(__file__).resolve().parent


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--condition", type=int, help="number of a condition, from 0 (default: all)")
    parser.add_argument("--trials", type=int, default=1, help="trials of each condition")
    parser.add_argument("--seed", type=int, default=1, help="of noise, and of initial voltages beyond those given")
    parser.add_argument("--codegen", default="auto", choices=("auto", "numpy", "cython"), help="how Brian2 computes")
    parser.add_argument("--out", default=str(HERE / "spikes.npz"), help="what to write spikes and rates to")
    return parser.parse_args()


def equations(about: dict[str, Any], values: Any) -> tuple[str, str, str]:
    """(differential equations, threshold, reset) of the neurons."""
    plastic = [f"u_plastic{k}" for k in range(len(about["tau_plastic_ms"]))]
    taus = {"u_exc": about["tau_exc_ms"], "u_inh": about["tau_inh_ms"], **dict(zip(plastic, about["tau_plastic_ms"], strict=True))}
    lines = [f"d{u}/dt = -{u}/({tau!r}*ms) : 1" for u, tau in taus.items()]
    free = "int(not_refractory)"  # and not "(unless refractory)", which would keep noise off refractory neurons
    drive, rest, threshold, reset = " + ".join(["bias", *taus, "stimulus", "current_noise"]), "0", "threshold", ["v = reset"]
    if "rest" in values:
        rest = "rest"
    if "reset" not in values:
        reset = ["v = rest + reset_fraction*(v - rest) - reset_drop"]
    if "asc_tau_1" in values:
        drive += " + asc_1 + asc_2"
        for j in "12":
            lines.append(f"dasc_{j}/dt = -{free}*asc_{j}/asc_tau_{j} : 1")
            reset.append(f"asc_{j} = asc_keep_{j}*asc_{j}*exp(-refractory_time/asc_tau_{j}) + asc_jump_{j}")
    if "threshold_tau" in values:
        threshold += " + raised"
        lines.append(f"draised/dt = -{free}*raised/threshold_tau : 1")
        reset.append("raised = raised*exp(-refractory_time/threshold_tau) + threshold_jump")
    if "adaptation_tau" in values:
        threshold += " + followed"
        lines.append(f"dfollowed/dt = {free}*(adaptation_rate*(v - rest) - followed/adaptation_tau) : 1")
    lines.append(f"dv/dt = {free}*({drive} - (v - {rest}))/tau_m : 1")
    lines += ["stimulus : 1", "current_noise : 1", "refractory_time : second", "missed : second"]
    for name in values.files:
        if name not in ("excitatory", "refractory"):
            unit = "second" if name == "tau_m" or "_tau" in name else "Hz" if name == "adaptation_rate" else "1"
            lines.append(f"{name} : {unit} (constant)")
    return "\n".join(lines), f"v > {threshold}", "\n".join(reset)


def neurons(about: dict[str, Any], values: Any) -> Any:
    """The NeuronGroup."""
    model, threshold, reset = equations(about, values)
    group = b2.NeuronGroup(about["n_neurons"], model, threshold=threshold, reset=reset, refractory="missed", method="euler")
    for name in values.files:
        if name not in ("excitatory", "refractory"):
            unit = b2.ms if name == "tau_m" or "_tau" in name else 1 / b2.ms if name == "adaptation_rate" else 1
            setattr(group, name, values[name] * unit)
    group.refractory_time = values["refractory"] * b2.ms
    # Brian2 lets a neuron go in the step that comes `missed` after its spike; rlsnet has it miss that many steps
    group.missed = (np.rint(values["refractory"] / about["dt_ms"]) + 1) * about["dt_ms"] * b2.ms
    return group


def synapses(about: dict[str, Any], excitatory: np.ndarray, group: Any, outside: Any) -> list[Any]:
    """All synapses, one object for each current that they feed."""
    found = []

    def add(kind: str, source: Any, current: str, tau: float, chosen: Any, first: int = 0) -> None:
        if not np.any(chosen):
            return
        pre, post, weight = (np.asarray(np.load(HERE / f"{kind}_{name}.npy", mmap_mode="r")[chosen]) for name in ("pre", "post", "weight"))
        made = b2.Synapses(source, group, "weight : 1 (constant)", on_pre=f"{current}_post += weight")
        made.connect(i=pre - first, j=post)
        made.weight = weight.astype(float) / tau
        found.append(made)

    if (HERE / "static_pre.npy").exists():
        from_exc = excitatory[np.load(HERE / "static_pre.npy", mmap_mode="r")]
        add("static", group, "u_exc", about["tau_exc_ms"], from_exc)
        add("static", group, "u_inh", about["tau_inh_ms"], ~from_exc)
    for kind, source, first in (("plastic", group, 0), ("feedforward", outside, about["n_neurons"])):
        if not (HERE / f"{kind}_pre.npy").exists():
            continue
        file = HERE / f"{kind}_tau.npy"
        label = np.load(file) if file.exists() else np.zeros(len(np.load(HERE / f"{kind}_pre.npy", mmap_mode="r")), int)
        for k, tau in enumerate(about["tau_plastic_ms"]):
            add(kind, source, f"u_plastic{k}", tau, label == k, first)
    return found


def main() -> None:
    """Runs the trials and says how often the neurons fire, beside what rlsnet found."""
    args, about, values = arguments(), json.loads((HERE / "network.json").read_text()), np.load(HERE / "neurons.npz")
    b2.prefs.codegen.target = args.codegen
    b2.seed(args.seed)
    random = np.random.default_rng(args.seed)
    dt, first, n_steps = about["dt_ms"], about["first_step"], about["n_steps"]
    b2.defaultclock.dt = dt * b2.ms
    group = neurons(about, values)
    if np.any(values["noise_sigma"]):  # at the start of a step, before v moves; refractory neurons get the voltage's too
        kick = f"noise_sigma*sqrt({dt!r}*ms/tau_m)*randn()"
        voltage = about["noise"]["kind"] == "voltage"
        group.run_regularly(f"v += {kick}" if voltage else f"current_noise = {kick}*tau_m/({dt!r}*ms)", dt=dt * b2.ms, when="start")
    outside, objects = None, [group]
    if about["n_feedforward"]:
        outside = b2.NeuronGroup(about["n_feedforward"], "rate : Hz", threshold="rand() < rate*dt")
        objects.append(outside)
    monitor = b2.SpikeMonitor(group)
    objects += [*synapses(about, values["excitatory"], group, outside), monitor]
    given = np.load(HERE / "stimulus.npy", mmap_mode="r") if about["stimulus_after_step"] is not None else None
    rates = np.load(HERE / "feedforward_rate.npy", mmap_mode="r") if outside is not None else None
    now = {"condition": 0}

    @b2.network_operation(when="start")  # type: ignore[untyped-decorator]
    def drive(t: Any) -> None:
        step = round(float(t / b2.ms) / dt) + 1  # rlsnet counts from 1
        if given is not None:
            since = step - about["stimulus_after_step"]
            if 1 <= since <= given.shape[1] + 1:
                group.stimulus = given[now["condition"], since - 1] if since <= given.shape[1] else 0
        if rates is not None:
            since = step - first
            if since >= 1 and (since - 1) % about["feedforward_every_steps"] == 0:
                row = min((since - 1) // about["feedforward_every_steps"], rates.shape[1] - 1)
                outside.rate = rates[now["condition"], row] * b2.Hz  # type: ignore[union-attr]

    net = b2.Network(*objects, drive)
    net.store()
    v0 = np.load(HERE / "v0.npy", mmap_mode="r")
    chosen = range(len(v0)) if args.condition is None else [args.condition]
    found: dict[str, list[np.ndarray]] = {"condition": [], "trial": [], "step": [], "neuron": []}
    for condition in chosen:
        for trial in range(args.trials):
            net.restore()
            now["condition"] = condition
            low = values["reset"] if "reset" in values else values["rest"]
            drawn = random.normal(size=len(group)) * (values["threshold"] - low) + low
            group.v = v0[condition, trial] if trial < v0.shape[1] else drawn
            net.run(n_steps * dt * b2.ms)
            step = np.round(np.asarray(monitor.t / b2.ms) / dt).astype(int) + 1
            kept = step >= first
            parts = np.full(kept.sum(), condition), np.full(kept.sum(), trial), step[kept], np.asarray(monitor.i)[kept]
            for name, part in zip(found, parts, strict=True):
                found[name].append(part)
    report(about, values["excitatory"], {name: np.concatenate(parts) for name, parts in found.items()}, list(chosen), args)


def report(about: dict[str, Any], excitatory: np.ndarray, spikes: dict[str, np.ndarray], chosen: list[int], args: Any) -> None:
    """Prints mean rates and saves spikes and each neuron's rate."""
    seconds = args.trials * about["trial"]["duration_ms"] / 1000
    rate = np.zeros((len(chosen), len(excitatory)))
    for row, condition in enumerate(chosen):
        rate[row] = np.bincount(spikes["neuron"][spikes["condition"] == condition], minlength=len(excitatory)) / seconds
        for name, word, who in (("exc", "excitatory", excitatory), ("inh", "inhibitory", ~excitatory)):
            if who.any():
                theirs = about["rlsnet_rates_hz"].get(name)
                beside = f", rlsnet test {theirs[condition]:.3f} Hz" if theirs else ""
                print(f"condition {about['conditions'][condition]}, {word}: {rate[row, who].mean():.3f} Hz{beside}")
    result: dict[str, Any] = {**spikes, "rate": rate, "conditions": chosen, "dt_ms": about["dt_ms"]}
    np.savez(args.out, **result)
    print(f"Wrote {args.out}: condition, trial, step (of {about['dt_ms']:g} ms) and neuron of {len(spikes['step']):,} spikes; rates in Hz.")


if __name__ == "__main__":
    main()
