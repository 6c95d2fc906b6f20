"""A trained network in NEST 3: python simulate.py [--condition C] [--trials T] [--threads K].

The script reads the files in its own folder. Neurons are iaf_psc_exp_multisynapse, with a receptor for each decay time: static
excitatory, static inhibitory, plastic. One unit of the threshold is 1 mV, and C_m in pF equals tau_m in ms, so that currents in pA are
in units of the threshold too.

NEST solves the equations exactly within a step and rlsnet takes Euler steps; the time constants and the factors on the weights (nest.npz)
correct for that. One difference remains: a spike acts after two steps, not one. Spike times therefore differ after a while, and rates
agree within their statistical error. Noise is white noise of the same strength, from a noise_generator; NEST holds the voltage of
refractory neurons, so they get none.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("PYNEST_QUIET", "1")

import nest  # noqa: E402
import numpy as np  # noqa: E402

HERE = Path(__file__).resolve().parent
SYNAPSES_PER_BLOCK = 2**22
GENERATORS_PER_BLOCK = 1024


def arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--condition", type=int, help="number of a condition, from 0 (default: all)")
    parser.add_argument("--trials", type=int, default=1, help="trials of each condition")
    parser.add_argument("--seed", type=int, default=1, help="seed of noise, and of initial voltages that are not in v0.npy")
    parser.add_argument("--threads", type=int, default=1, help="threads of NEST")
    parser.add_argument("--out", default=str(HERE / "spikes.npz"), help="file for spikes and rates")
    return parser.parse_args()


def create(about: dict[str, Any], parameters: Any, v0: np.ndarray) -> Any:
    """The neurons, with initial voltages v0 [N]."""
    neurons = nest.Create("iaf_psc_exp_multisynapse", about["n_neurons"], {"tau_syn": parameters["tau_syn"].tolist()})
    neurons.set({"E_L": parameters["E_L"].tolist()})  # first, as it shifts the other voltages
    neurons.set({"V_reset": (parameters["V_reset"] - 1e3).tolist()})  # so low that any threshold is accepted
    neurons.set({name: parameters[name].tolist() for name in ("tau_m", "C_m", "I_e", "t_ref", "V_th")})
    neurons.set({"V_reset": parameters["V_reset"].tolist()})
    neurons.set({"V_m": np.asarray(v0, float).tolist()})
    return neurons


def connect(about: dict[str, Any], excitatory: np.ndarray, weight_factors: np.ndarray, neurons: Any, feedforward: Any) -> None:
    """Makes all synapses, in blocks."""
    dt, first = about["dt_ms"], neurons[0].global_id
    for kind in ("static", "plastic", "feedforward"):
        if not (HERE / f"{kind}_pre.npy").exists():
            continue
        files = {name: np.load(HERE / f"{kind}_{name}.npy", mmap_mode="r") for name in ("pre", "post", "weight")}
        label = HERE / f"{kind}_tau.npy"
        own = np.load(label, mmap_mode="r") if label.exists() else None
        late = np.load(path, mmap_mode="r") if (path := HERE / f"{kind}_delay.npy").exists() else None
        source = first if kind != "feedforward" else feedforward[0].global_id - about["n_neurons"]
        for start in range(0, len(files["pre"]), SYNAPSES_PER_BLOCK):
            part = slice(start, start + SYNAPSES_PER_BLOCK)
            pre, post = (np.asarray(files[name][part]).astype(int) for name in ("pre", "post"))
            weight = np.asarray(files["weight"][part]).astype(float)
            receptor = np.where(excitatory[pre], 0, 1) if kind == "static" else np.full(len(pre), 2) + (0 if own is None else own[part])
            delay = np.full(len(pre), dt) if late is None else np.rint(np.asarray(late[part]) / dt) * dt
            spec = {"weight": weight * weight_factors[receptor, post], "delay": delay, "receptor_type": receptor + 1}
            nest.Connect(pre + source, post + first, "one_to_one", spec)


def stimulate(about: dict[str, Any], condition: int, neurons: Any) -> None:
    """Connects a step_current_generator to each neuron, if there is a stimulus."""
    if about["stimulus_after_step"] is None:
        return
    dt, values = about["dt_ms"], np.load(HERE / "stimulus.npy", mmap_mode="r")[condition]
    # an amplitude that is set for time t acts from step t/dt + 2 on
    step = np.arange(len(values) + 1) + about["stimulus_after_step"] - 1
    used = step >= 1
    times = np.round(step[used] * dt, 9).tolist()
    for start in range(0, len(neurons), GENERATORS_PER_BLOCK):
        stop = min(len(neurons), start + GENERATORS_PER_BLOCK)
        block = values[:, start:stop]
        amplitudes = np.concatenate([block, np.zeros((1, block.shape[1]), block.dtype)])[used].astype(float)
        parameters = [{"amplitude_times": times, "amplitude_values": each.tolist()} for each in amplitudes.T]
        generators = nest.Create("step_current_generator", len(parameters), params=parameters)
        nest.Connect(generators, neurons[start:stop], "one_to_one", {"delay": dt})


def add_noise(about: dict[str, Any], values: Any, neurons: Any) -> None:
    """Connects white noise, independent for each neuron; voltage noise is added before the leak, hence the factor 1 - dt/tau_m."""
    sigma, dt, tau_m = values["noise_sigma"], about["dt_ms"], values["tau_m"]
    if not np.any(sigma):
        return
    strength = sigma * np.sqrt(tau_m / dt) * (1 - dt / tau_m if about["noise"]["kind"] == "voltage" else 1)
    generator = nest.Create("noise_generator", params={"mean": 0.0, "std": 1.0, "dt": dt})
    nest.Connect(generator, neurons, "all_to_all", {"weight": strength[:, None], "delay": dt})


def create_feedforward(about: dict[str, Any], condition: int) -> Any:
    """Feed-forward neurons: parrot neurons that repeat Poisson spikes; None without feed-forward neurons."""
    if not about["n_feedforward"]:
        return None
    dt, rates = about["dt_ms"], np.load(HERE / "feedforward_rate.npy", mmap_mode="r")[condition]
    step = np.arange(len(rates)) * about["feedforward_every_steps"] + about["first_step"] + 1
    if about["feedforward_before"]:  # from the start at the first rates; NEST has no rate in the very first step
        step[0] = 2
    times = np.round((step - 1) * dt, 9).tolist()
    parameters = [{"rate_times": times, "rate_values": each.tolist()} for each in np.asarray(rates, float).T]
    generators = nest.Create("inhomogeneous_poisson_generator", len(parameters), params=parameters)
    parrots = nest.Create("parrot_neuron", len(parameters))
    nest.Connect(generators, parrots, "one_to_one", {"delay": dt})
    return parrots


def run(about: dict[str, Any], values: Any, condition: int, v0: np.ndarray, seed: int, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """(step, neuron) of the spikes of a trial."""
    nest.ResetKernel()
    nest.verbosity = nest.VerbosityLevel.ERROR
    nest.set(resolution=about["dt_ms"], local_num_threads=threads, rng_seed=seed)
    parameters = np.load(HERE / "nest.npz")
    neurons = create(about, parameters, v0)
    feedforward = create_feedforward(about, condition)
    connect(about, values["excitatory"], parameters["weight_factor"], neurons, feedforward)
    stimulate(about, condition, neurons)
    add_noise(about, values, neurons)
    recorder = nest.Create("spike_recorder")
    nest.Connect(neurons, recorder)
    nest.Simulate(round(about["n_steps"] * about["dt_ms"], 9))
    events = recorder.events
    step = np.round(np.asarray(events["times"]) / about["dt_ms"]).astype(int)
    counted = step >= about["first_step"]
    return step[counted], (np.asarray(events["senders"]) - neurons[0].global_id)[counted]


def main() -> None:
    """Runs the trials, prints the mean rates beside those of `rlsnet test`, and saves the spikes."""
    args, about = arguments(), json.loads((HERE / "network.json").read_text())
    values = dict(np.load(HERE / "neurons.npz"))
    random, v0 = np.random.default_rng(args.seed), np.load(HERE / "v0.npy", mmap_mode="r")
    chosen = range(len(v0)) if args.condition is None else [args.condition]
    spikes: dict[str, list[np.ndarray]] = {"condition": [], "trial": [], "step": [], "neuron": []}
    for condition in chosen:
        for trial in range(args.trials):
            reset = values["reset"]
            drawn = random.normal(size=len(reset)) * (values["threshold"] - reset) + reset
            start = v0[condition, trial] if trial < v0.shape[1] else drawn
            step, neuron = run(about, values, condition, start, args.seed + trial + args.trials * condition, args.threads)
            for name, part in zip(spikes, (np.full(len(step), condition), np.full(len(step), trial), step, neuron), strict=True):
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
