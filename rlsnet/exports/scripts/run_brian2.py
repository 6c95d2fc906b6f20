"""A trained network in Brian2, as rlsnet simulates it: python simulate.py [--condition C] [--trials T].

The script reads the files in its own folder. Equations (ms, units of the threshold), solved by Euler steps of dt; a spike acts one
step later:

    tau_m dv/dt = drive - (v - rest)          a spike where v > threshold; neither in the refractory period
    drive       = bias + u_exc + u_inh + u_plastic + stimulus
    du/dt       = -u/tau, and u += weight/tau for each spike that arrives

GLIF models add after-spike currents and a variable threshold. Noise is v += sigma*sqrt(dt/tau_m)*xi in each step. Without noise, and
in double precision, the spikes are those of `rlsnet test`, from the initial voltages in v0.npy.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import brian2 as b2
import numpy as np

HERE = Path(__file__).resolve().parent


def arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--condition", type=int, help="number of a condition, from 0 (default: all)")
    parser.add_argument("--trials", type=int, default=1, help="trials of each condition")
    parser.add_argument("--seed", type=int, default=1, help="seed of noise, and of initial voltages that are not in v0.npy")
    parser.add_argument("--codegen", default="auto", choices=("auto", "numpy", "cython"), help="code generation target of Brian2")
    parser.add_argument("--out", default=str(HERE / "spikes.npz"), help="file for spikes and rates")
    return parser.parse_args()


def equations(about: dict[str, Any], values: Any) -> tuple[str, str, str]:
    """(differential equations, threshold, reset) of the neurons."""
    plastic = [f"u_plastic{k}" for k in range(len(about["tau_plastic_ms"]))]
    taus = {"u_exc": about["tau_exc_ms"], "u_inh": about["tau_inh_ms"], **dict(zip(plastic, about["tau_plastic_ms"], strict=True))}
    lines = [f"d{u}/dt = -{u}/({tau!r}*ms) : 1" for u, tau in taus.items()]
    active = "int(not_refractory)"  # "(unless refractory)" would also remove the noise of refractory neurons
    drive, rest, threshold, reset = " + ".join(["bias", *taus, "stimulus", "current_noise"]), "0", "threshold", ["v = reset"]
    if "rest" in values:
        rest = "rest"
    if "reset" not in values:
        reset = ["v = rest + reset_fraction*(v - rest) - reset_drop"]
    if "asc_tau_1" in values:
        drive += " + asc_1 + asc_2"
        for j in "12":
            lines.append(f"dasc_{j}/dt = -{active}*asc_{j}/asc_tau_{j} : 1")
            reset.append(f"asc_{j} = asc_keep_{j}*asc_{j}*exp(-refractory_time/asc_tau_{j}) + asc_jump_{j}")
    if "threshold_tau" in values:
        threshold += " + threshold_raise"
        lines.append(f"dthreshold_raise/dt = -{active}*threshold_raise/threshold_tau : 1")
        reset.append("threshold_raise = threshold_raise*exp(-refractory_time/threshold_tau) + threshold_jump")
    if "adaptation_tau" in values:
        threshold += " + threshold_adaptation"
        lines.append(f"dthreshold_adaptation/dt = {active}*(adaptation_rate*(v - rest) - threshold_adaptation/adaptation_tau) : 1")
    lines.append(f"dv/dt = {active}*({drive} - (v - {rest}))/tau_m : 1")
    lines += ["stimulus : 1", "current_noise : 1", "refractory_time : second", "refractory_duration : second"]
    for name in values.files:
        if name not in ("excitatory", "refractory"):
            unit = "second" if name == "tau_m" or "_tau" in name else "Hz" if name == "adaptation_rate" else "1"
            lines.append(f"{name} : {unit} (constant)")
    return "\n".join(lines), f"v > {threshold}", "\n".join(reset)


def neurons(about: dict[str, Any], values: Any) -> Any:
    """The NeuronGroup."""
    model, threshold, reset = equations(about, values)
    group = b2.NeuronGroup(about["n_neurons"], model, threshold=threshold, reset=reset, refractory="refractory_duration", method="euler")
    for name in values.files:
        if name not in ("excitatory", "refractory"):
            unit = b2.ms if name == "tau_m" or "_tau" in name else 1 / b2.ms if name == "adaptation_rate" else 1
            setattr(group, name, values[name] * unit)
    group.refractory_time = values["refractory"] * b2.ms
    # Brian2 counts the step of the spike itself as refractory, rlsnet does not
    group.refractory_duration = (np.rint(values["refractory"] / about["dt_ms"]) + 1) * about["dt_ms"] * b2.ms
    return group


def synapses(about: dict[str, Any], excitatory: np.ndarray, group: Any, feedforward: Any) -> list[Any]:
    """All synapses, one Synapses object for each postsynaptic current."""
    objects = []

    def add(kind: str, source: Any, current: str, tau: float, chosen: Any, first: int = 0) -> None:
        if not np.any(chosen):
            return
        pre, post, weight = (np.asarray(np.load(HERE / f"{kind}_{name}.npy", mmap_mode="r")[chosen]) for name in ("pre", "post", "weight"))
        made = b2.Synapses(source, group, "weight : 1 (constant)", on_pre=f"{current}_post += weight")
        made.connect(i=pre - first, j=post)
        made.weight = weight.astype(float) / tau
        if (path := HERE / f"{kind}_delay.npy").exists():  # without a delay, a spike acts in the next step
            made.delay = (np.rint(np.load(path)[chosen] / about["dt_ms"]) - 1) * about["dt_ms"] * b2.ms
        objects.append(made)

    if (HERE / "static_pre.npy").exists():
        from_exc = excitatory[np.load(HERE / "static_pre.npy", mmap_mode="r")]
        add("static", group, "u_exc", about["tau_exc_ms"], from_exc)
        add("static", group, "u_inh", about["tau_inh_ms"], ~from_exc)
    for kind, source, first in (("plastic", group, 0), ("feedforward", feedforward, about["n_neurons"])):
        if not (HERE / f"{kind}_pre.npy").exists():
            continue
        file = HERE / f"{kind}_tau.npy"
        label = np.load(file) if file.exists() else np.zeros(len(np.load(HERE / f"{kind}_pre.npy", mmap_mode="r")), int)
        for k, tau in enumerate(about["tau_plastic_ms"]):
            add(kind, source, f"u_plastic{k}", tau, label == k, first)
    return objects


def main() -> None:
    """Runs the trials, prints the mean rates beside those of `rlsnet test`, and saves the spikes."""
    args, about, values = arguments(), json.loads((HERE / "network.json").read_text()), np.load(HERE / "neurons.npz")
    b2.prefs.codegen.target = args.codegen
    b2.seed(args.seed)
    random = np.random.default_rng(args.seed)
    dt, first, n_steps = about["dt_ms"], about["first_step"], about["n_steps"]
    b2.defaultclock.dt = dt * b2.ms
    group = neurons(about, values)
    if np.any(values["noise_sigma"]):  # at the start of a step, before v changes; voltage noise also acts on refractory neurons
        noise = f"noise_sigma*sqrt({dt!r}*ms/tau_m)*randn()"
        voltage = about["noise"]["kind"] == "voltage"
        group.run_regularly(f"v += {noise}" if voltage else f"current_noise = {noise}*tau_m/({dt!r}*ms)", dt=dt * b2.ms, when="start")
    feedforward, objects = None, [group]
    if about["n_feedforward"]:
        feedforward = b2.NeuronGroup(about["n_feedforward"], "rate : Hz", threshold="rand() < rate*dt")
        objects.append(feedforward)
    monitor = b2.SpikeMonitor(group)
    objects += [*synapses(about, values["excitatory"], group, feedforward), monitor]
    stimuli = np.load(HERE / "stimulus.npy", mmap_mode="r") if about["stimulus_after_step"] is not None else None
    rates = np.load(HERE / "feedforward_rate.npy", mmap_mode="r") if feedforward is not None else None
    current = {"condition": 0}

    @b2.network_operation(when="start")  # type: ignore[untyped-decorator]
    def drive(t: Any) -> None:
        step = round(float(t / b2.ms) / dt) + 1  # rlsnet counts from 1
        if stimuli is not None:
            since = step - about["stimulus_after_step"]
            if 1 <= since <= stimuli.shape[1] + 1:
                group.stimulus = stimuli[current["condition"], since - 1] if since <= stimuli.shape[1] else 0
        if rates is not None:
            since = step - first
            if step == 1 and about["feedforward_before"]:
                feedforward.rate = rates[current["condition"], 0] * b2.Hz  # type: ignore[union-attr]
            if since >= 1 and (since - 1) % about["feedforward_every_steps"] == 0:
                row = min((since - 1) // about["feedforward_every_steps"], rates.shape[1] - 1)
                feedforward.rate = rates[current["condition"], row] * b2.Hz  # type: ignore[union-attr]

    net = b2.Network(*objects, drive)
    net.store()
    v0 = np.load(HERE / "v0.npy", mmap_mode="r")
    chosen = range(len(v0)) if args.condition is None else [args.condition]
    spikes: dict[str, list[np.ndarray]] = {"condition": [], "trial": [], "step": [], "neuron": []}
    for condition in chosen:
        for trial in range(args.trials):
            net.restore()
            current["condition"] = condition
            reset_voltage = values["reset"] if "reset" in values else values["rest"]
            drawn = random.normal(size=len(group)) * (values["threshold"] - reset_voltage) + reset_voltage
            group.v = v0[condition, trial] if trial < v0.shape[1] else drawn
            net.run(n_steps * dt * b2.ms)
            step = np.round(np.asarray(monitor.t / b2.ms) / dt).astype(int) + 1
            counted = step >= first
            parts = np.full(counted.sum(), condition), np.full(counted.sum(), trial), step[counted], np.asarray(monitor.i)[counted]
            for name, part in zip(spikes, parts, strict=True):
                spikes[name].append(part)
    report(about, values["excitatory"], {name: np.concatenate(parts) for name, parts in spikes.items()}, list(chosen), args)


def report(about: dict[str, Any], excitatory: np.ndarray, spikes: dict[str, np.ndarray], chosen: list[int], args: Any) -> None:
    """Prints mean rates; saves the spikes and the rate of each neuron."""
    seconds = args.trials * about["trial"]["duration_ms"] / 1000
    rate = np.zeros((len(chosen), len(excitatory)))
    for row, condition in enumerate(chosen):
        rate[row] = np.bincount(spikes["neuron"][spikes["condition"] == condition], minlength=len(excitatory)) / seconds
        for name, word, members in (("exc", "excitatory", excitatory), ("inh", "inhibitory", ~excitatory)):
            if members.any():
                expected = about["rlsnet_rates_hz"].get(name)
                comparison = f", rlsnet test {expected[condition]:.3f} Hz" if expected else ""
                print(f"condition {about['conditions'][condition]}, {word}: {rate[row, members].mean():.3f} Hz{comparison}")
    result: dict[str, Any] = {**spikes, "rate": rate, "conditions": chosen, "dt_ms": about["dt_ms"]}
    np.savez(args.out, **result)
    print(f"Wrote {args.out}: condition, trial, step (of {about['dt_ms']:g} ms) and neuron of {len(spikes['step']):,} spikes; rates in Hz.")


if __name__ == "__main__":
    main()
