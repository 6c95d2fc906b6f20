"""The schema of the configuration: typed, frozen dataclasses with units, ranges and cross-field checks.

YAML (configs/) holds the values, this file their types and meaning. `convert.from_dict` is the door: whatever Hydra composed
goes through it once, and nothing behind it knows of Hydra or OmegaConf. A mistake raises `UserError` with one line that
names the key and says what would be right.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any


class UserError(Exception):
    """A mistake in the input: the message is one line saying what is wrong, where, and what would be right."""


def _key(help: str, unit: str = "", **rule: Any) -> Any:
    """A field with its meaning, its unit and its allowed values (`least`, `above`, `most` or `choices`)."""
    return dataclasses.field(metadata={"help": help, "unit": unit, **rule})


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Who is in the network. Neurons 0..N_exc-1 are excitatory, the others inhibitory."""

    n_neurons: int | None = _key("number of neurons N; null: as many as the recording has units", least=2)
    fraction_excitatory: float = _key("share of excitatory neurons", least=0, most=1)
    load: str | None = _key("path of a network.zarr to use instead of drawing one")


@dataclasses.dataclass(frozen=True)
class LIFConfig:
    """Leaky integrate-and-fire neurons, equal for all."""

    name: str = _key("neuron model", choices=("lif",))
    tau_m: float = _key("membrane time constant", "ms", above=0)
    threshold: float = _key("spike threshold, which sets the unit of voltage")
    reset: float = _key("voltage after a spike")
    refractory: float = _key("time after a spike without integration, in whole steps", "ms", least=0)


@dataclasses.dataclass(frozen=True)
class SynapseConfig:
    """Decay times of the synaptic currents."""

    tau_exc: float = _key("static excitatory current", "ms", above=0)
    tau_inh: float = _key("static inhibitory current", "ms", above=0)
    tau_plas: float = _key("plastic current and the filtered spikes of RLS", "ms", above=0)


@dataclasses.dataclass(frozen=True)
class StaticConfig:
    """Fixed random wiring in the balanced state: weights and bias scale with the square root of the inputs.

    With K_e = out_degree/2 inputs of one class, a weight is `strength`/sqrt(K_e) times ee, ie, ei or ii (postsynaptic
    class first), the bias sqrt(K_e) times bias_exc or bias_inh.
    """

    out_degree: int = _key("static outputs of each neuron, K; 0 for none", least=0)
    strength: float = _key("weight scale J times sqrt(K_e)", "threshold*ms", least=0)
    ee: float = _key("E to E weight, in units of J", least=0)
    ie: float = _key("E to I weight, in units of J", least=0)
    ei: float = _key("I to E weight, in units of J", most=0)
    ii: float = _key("I to I weight, in units of J", most=0)
    bias_exc: float = _key("constant drive of E neurons, in units of sqrt(K_e)")
    bias_inh: float = _key("constant drive of I neurons, in units of sqrt(K_e)")


@dataclasses.dataclass(frozen=True)
class PlasticConfig:
    """Trained wiring: each group of neurons draws half its inputs from E and half from I neurons, without repeats."""

    n_inputs: int = _key("plastic inputs of a neuron, L, an even number", least=0)
    group_size: int = _key("neurons that share their plastic inputs and so one P, S", least=1)
    strength: float = _key("initial weights are +-strength/(2*sqrt(L/2))", "threshold*ms", least=0)


@dataclasses.dataclass(frozen=True)
class NoiseConfig:
    """White noise on the membrane."""

    sigma: float = _key("v += sigma*sqrt(dt/tau_m)*xi at each step", "threshold", least=0)


@dataclasses.dataclass(frozen=True)
class OUStimulusConfig:
    """Ornstein-Uhlenbeck current between stim_on and stim_off, one realisation per condition."""

    name: str = _key("kind of stimulus", choices=("ou",))
    tau: float = _key("correlation time", "ms", above=0)
    sigma: float = _key("ds = (mean - s)/tau dt + sigma dW", "threshold/sqrt(ms)", least=0)
    mean: float = _key("mean current", "threshold")


@dataclasses.dataclass(frozen=True)
class NoStimulusConfig:
    """No stimulus."""

    name: str = _key("kind of stimulus", choices=("none",))


@dataclasses.dataclass(frozen=True)
class TrialConfig:
    """Times of one trial. Every time is a multiple of dt."""

    dt: float = _key("Euler time step", "ms", above=0)
    stim_on: float = _key("start of the stimulus", "ms", least=0)
    stim_off: float = _key("end of the stimulus and start of learning", "ms", least=0)
    duration: float = _key("learning time, counted from stim_off", "ms", above=0)
    learn_every: float = _key("time between RLS updates, and the bin of targets and PSTHs", "ms", above=0)

    def steps(self, time: float) -> int:
        """A time in ms as a whole number of steps."""
        return round(time / self.dt)

    @property
    def n_points(self) -> int:
        """Learning points of a trial, M."""
        return round(self.duration / self.learn_every)

    @property
    def every(self) -> int:
        """Steps between two learning points."""
        return self.steps(self.learn_every)

    @property
    def block(self) -> int:
        """Steps simulated between two looks at the currents: 1 ms, or less where that does not divide learn_every."""
        most = max(1, self.steps(1.0))
        return max(size for size in range(1, most + 1) if self.every % size == 0)

    @property
    def n_steps(self) -> int:
        """Steps of a trial, T."""
        return self.steps(self.stim_off + self.duration)


@dataclasses.dataclass(frozen=True)
class SinusoidTargetConfig:
    """amplitude*sin(2 pi (t - phase)/period) around each neuron's mean current in the static network."""

    name: str = _key("kind of target", choices=("sinusoid",))
    amplitude: float = _key("amplitude of the current", "threshold")
    period: float = _key("period", "ms", above=0)
    n_conditions: int = _key("conditions C, each with its own phases", least=1)


@dataclasses.dataclass(frozen=True)
class RecordingTargetConfig:
    """Recorded rates turned into currents by the inverse transfer function."""

    name: str = _key("kind of target", choices=("recording",))
    rate_floor: float = _key("rates below this are raised to it", "Hz", above=0)
    euler_correction: bool = _key("correct the transfer function for the finite time step")


@dataclasses.dataclass(frozen=True)
class RecordingConfig:
    """Where recorded rates come from."""

    path: str | None = _key("a recording.zarr; null: a synthetic stand-in of 66,002 units, made once")


@dataclasses.dataclass(frozen=True)
class RLSConfig:
    """Recursive least squares."""

    penlambda: float = _key("ridge penalty: P starts as inv(penlambda*I + penmu*[same sign])", above=0)
    penmu: float = _key("penalty on the sums of same-sign weights", least=0)
    gain: str = _key("weight update: textbook den*k, or k as TrainSpikingNet.jl since 2024", choices=("textbook", "tsn_head"))
    method: str = _key("form of the update: dense writes P each time, deferred every 16 times", choices=("auto", "dense", "deferred"))
    storage: str = _key("how P is kept", choices=("full",))


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The training loop."""

    iterations: int = _key("total number of trials, those of a resumed run included", least=1)
    checkpoint_every: int = _key("save a checkpoint each this many iterations, and at the end", least=1)
    save_best: bool = _key("keep the weights of the best iteration so far")
    resources_every: float = _key("time between two lines of resources.jsonl (processor, memory, GPU), of any verb; 0: none", "s", least=0)


@dataclasses.dataclass(frozen=True)
class TestConfig:
    """Runs with frozen weights."""

    __test__ = False  # not a test class, whatever pytest makes of the name
    trials: int = _key("trials per condition", least=1)
    neurons: str | None = _key("whose results are stored: null for all, [0,5,17], 0:100, exc or inh", items=True)
    checkpoint: str = _key("last, best, an iteration, or the path of a checkpoint")
    spikes: bool = _key("store every spike")


@dataclasses.dataclass(frozen=True)
class EngineConfig:
    """Where and how numbers are computed."""

    platform: str = _key("device", choices=("auto", "cpu", "gpu"))
    precision: str = _key("floating point type", choices=("float32", "float64"))
    kernels: str = _key(
        "the hot loops: native (CPU, made by its C++ compiler), xla, wide (XLA for GPUs); auto: the fastest",
        choices=("auto", "native", "xla", "wide"),
    )
    devices: int = _key("number of devices; one in this version", least=1, most=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that describes one experiment; see configs/config.yaml for the values."""

    seed: int = _key("seed of everything random", least=0, most=2**63 - 1)
    resume: str | None = _key("run folder to continue, or auto for the folder of this very run")
    run: str | None = _key("run folder to test or plot")
    progress: str = _key("how progress is shown", choices=("auto", "rich", "plain", "off"))
    network: NetworkConfig
    neuron: LIFConfig
    synapse: SynapseConfig
    static: StaticConfig
    plastic: PlasticConfig
    noise: NoiseConfig
    stimulus: OUStimulusConfig | NoStimulusConfig
    trial: TrialConfig
    target: SinusoidTargetConfig | RecordingTargetConfig
    recording: RecordingConfig
    rls: RLSConfig
    train: TrainConfig
    test: TestConfig
    engine: EngineConfig


def is_multiple(value: float, unit: float) -> bool:
    """Whether `value` is a whole number of `unit`s, but for rounding."""
    return abs(value / unit - round(value / unit)) < 1e-6


def validate(config: Config) -> None:
    """Checks that look at more than one key; raises UserError."""
    trial, neuron, plastic, static = config.trial, config.neuron, config.plastic, config.static
    times = {f"trial.{k}": getattr(trial, k) for k in ("stim_on", "stim_off", "learn_every", "duration")}
    for key, value in {**times, "neuron.refractory": neuron.refractory}.items():
        if not is_multiple(value, trial.dt):
            near = round(value / trial.dt) or 1
            raise UserError(f"{key}={value:g} ms: should be a multiple of trial.dt={trial.dt:g} ms, such as {near * trial.dt:g}.")
    if trial.stim_on > trial.stim_off:
        raise UserError(f"trial.stim_on={trial.stim_on:g} ms: should not be after trial.stim_off={trial.stim_off:g} ms.")
    if trial.stim_off < trial.dt:
        raise UserError(f"trial.stim_off={trial.stim_off:g} ms: should be at least one step (trial.dt={trial.dt:g} ms).")
    if not is_multiple(trial.duration, trial.learn_every):
        near = max(1, round(trial.duration / trial.learn_every)) * trial.learn_every
        raise UserError(
            f"trial.duration={trial.duration:g} ms: should be a multiple of trial.learn_every={trial.learn_every:g} ms, such as {near:g}."
        )
    if neuron.reset >= neuron.threshold:
        raise UserError(f"neuron.reset={neuron.reset:g}: should be below neuron.threshold={neuron.threshold:g}.")
    taus = {f"synapse.{k}": getattr(config.synapse, k) for k in ("tau_exc", "tau_inh", "tau_plas")}
    if isinstance(config.stimulus, OUStimulusConfig):
        taus["stimulus.tau"] = config.stimulus.tau
    for key, tau in {**taus, "neuron.tau_m": neuron.tau_m}.items():
        if tau < 2 * trial.dt:
            raise UserError(f"{key}={tau:g} ms: should be at least twice trial.dt={trial.dt:g} ms, for the Euler scheme's sake.")
    if plastic.n_inputs % 2:
        raise UserError(f"plastic.n_inputs={plastic.n_inputs}: should be even, half excitatory and half inhibitory.")
    if static.out_degree % 2:
        raise UserError(f"static.out_degree={static.out_degree}: should be even, as the weights scale with half of it.")
    if not re.fullmatch(r"last|best|\d+|.*(/|\\|\.zarr).*", config.test.checkpoint):
        raise UserError(
            f"test.checkpoint={config.test.checkpoint}: should be last, best, an iteration such as 100, or a path such as"
            " RUN/checkpoints/000100.zarr."
        )
    chosen = config.test.neurons
    if chosen is not None and not all(re.fullmatch(r"\s*(exc|inh|\d+|\d*:\d*)\s*", item) for item in chosen.split(",")):
        raise UserError(f"test.neurons={chosen or '[]'}: should be null, indices such as [0,5,17], a range such as 0:100, exc or inh.")
