"""The schema of the configuration: typed, frozen dataclasses with units, ranges and cross-field checks.

YAML (configs/) holds the values, this file their types and meaning. `convert.from_dict` is the door: whatever Hydra composed
goes through it once, and nothing behind it knows of Hydra or OmegaConf. A mistake raises `UserError` with one line that
names the key and says what would be right.
"""

from __future__ import annotations

import abc
import dataclasses
import math
import operator
import re
from typing import TYPE_CHECKING, Any, ClassVar


class UserError(Exception):
    """A mistake in the input: the message is one line saying what is wrong, where, and what would be right."""


def key(help: str, unit: str = "", *, default: Any = dataclasses.MISSING, **rule: Any) -> Any:
    """A field with its meaning, its unit and its allowed values (`least`, `above`, `most` or `choices`)."""
    return dataclasses.field(default=default, metadata={"help": help, "unit": unit, **rule})


LIMITS = (("least", operator.lt, "at least"), ("above", operator.le, "above"), ("most", operator.gt, "at most"))  # rule, broken, words


if TYPE_CHECKING:
    ByClass = Any  # within a step it is a number or an array; see `neurons.of`
else:
    ByClass = float | tuple[float, float]  # one value, or one for excitatory and one for inhibitory neurons


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Who is in the network. Neurons 0..N_exc-1 are excitatory, the others inhibitory."""

    n_neurons: int | None = key("number of neurons N; null: as many as the recording has units", least=2)
    fraction_excitatory: float = key("share of excitatory neurons", least=0, most=1)
    bias: ByClass | None = key("constant drive X_bal; null: what the static wiring says", "threshold")
    load: str | None = key("path of a network.zarr to use instead of drawing one")


class Variant:
    """One of the alternatives of a section, chosen by `name`. Those of a section are the subclasses of its base class.

    A dataclass in a module that `plugins` lists is as good as one here; what it does is registered with the function of
    its section: `neurons.step`, `wiring.static_edges`, `wiring.plastic_inputs`, `inputs.stimulus`, `targets.currents`.
    """


class NeuronConfig(Variant):
    """A neuron model. Values are per class or, with an array `neuron/KEY` in network.load, per neuron."""

    name: str
    threshold: ByClass
    reset: ByClass


@dataclasses.dataclass(frozen=True)
class LIFConfig(NeuronConfig):
    """Leaky integrate-and-fire neurons."""

    name: str = key("neuron model", choices=("lif",))
    tau_m: ByClass = key("membrane time constant", "ms", above=0)
    threshold: ByClass = key("spike threshold, which sets the unit of voltage", "threshold")
    reset: ByClass = key("voltage after a spike", "threshold")
    refractory: ByClass = key("time after a spike without integration, in whole steps", "ms", least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GLIFConfig(NeuronConfig):
    """What all generalized leaky integrate-and-fire neurons have (Teeter et al., Nat. Commun. 9:709, 2018)."""

    tau_m: ByClass = key("membrane time constant", "ms", above=0)
    rest: ByClass = key("resting potential E_L", "threshold")
    threshold: ByClass = key("spike threshold at rest, which sets the unit of voltage", "threshold")
    refractory: ByClass = key("time after a spike in which all of the neuron's state stands still, in whole steps", "ms", least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FixedReset(GLIFConfig):
    """A spike resets the voltage to one value."""

    reset: ByClass = key("voltage after a spike", "threshold")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResetRules(GLIFConfig):
    """A spike leaves a share of the voltage, and raises the threshold for a while."""

    reset_fraction: ByClass = key("f_v: share of v - E_L that a spike leaves")
    reset_drop: ByClass = key("delta_V: what is taken off v then", "threshold")
    threshold_jump: ByClass = key("delta_Theta_s: what a spike adds to the threshold", "threshold")
    threshold_tau: ByClass = key("1/b_s: decay time of that", "ms", above=0)

    @property
    def reset(self) -> ByClass:
        """Where trials start from, as with a fixed reset."""
        return self.rest


@dataclasses.dataclass(frozen=True, kw_only=True)
class AfterSpikeCurrents(GLIFConfig):
    """Two currents that a spike changes: I_j <- keep_j*I_j + jump_j, and that decay in between."""

    asc_tau_1: ByClass = key("1/k_1: decay time of the first after-spike current", "ms", above=0)
    asc_jump_1: ByClass = key("delta_I_1: what a spike adds to it (times the membrane resistance)", "threshold")
    asc_keep_1: ByClass = key("f_1: share of it that a spike leaves")
    asc_tau_2: ByClass = key("1/k_2: decay time of the second after-spike current", "ms", above=0)
    asc_jump_2: ByClass = key("delta_I_2: what a spike adds to it (times the membrane resistance)", "threshold")
    asc_keep_2: ByClass = key("f_2: share of it that a spike leaves")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GLIF1Config(FixedReset):
    """GLIF1: leaky integrate-and-fire with a resting potential of its own."""

    name: str = key("neuron model", choices=("glif1",))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GLIF2Config(ResetRules):
    """GLIF2: with reset rules."""

    name: str = key("neuron model", choices=("glif2",))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GLIF3Config(AfterSpikeCurrents, FixedReset):
    """GLIF3: with after-spike currents."""

    name: str = key("neuron model", choices=("glif3",))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GLIF4Config(AfterSpikeCurrents, ResetRules):
    """GLIF4: with reset rules and after-spike currents."""

    name: str = key("neuron model", choices=("glif4",))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GLIF5Config(AfterSpikeCurrents, ResetRules):
    """GLIF5: with reset rules, after-spike currents and a threshold that follows the voltage."""

    name: str = key("neuron model", choices=("glif5",))
    adaptation_rate: ByClass = key("a_v: dTheta_v/dt = a_v*(v - E_L) - b_v*Theta_v", "1/ms")
    adaptation_tau: ByClass = key("1/b_v", "ms", above=0)


@dataclasses.dataclass(frozen=True)
class SynapseConfig:
    """Decay times of the synaptic currents."""

    tau_exc: float = key("static excitatory current", "ms", above=0)
    tau_inh: float = key("static inhibitory current", "ms", above=0)
    tau_plas: ByClass = key("plastic current and the filtered spikes of RLS, by the presynaptic neuron", "ms", above=0)


class StaticConfig(Variant):
    """Static wiring."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BalancedConfig(StaticConfig, abc.ABC):
    """Fixed random wiring in the balanced state: weights and bias scale with the square root of the inputs.

    With K_e inputs of one class, a weight is `strength`/sqrt(K_e) times ee, ie, ei or ii (postsynaptic class first), the bias
    sqrt(K_e) times bias_exc or bias_inh.
    """

    strength: float = key("weight scale J times sqrt(K_e)", "threshold*ms", least=0)
    ee: float = key("E to E weight, in units of J", least=0)
    ie: float = key("E to I weight, in units of J", least=0)
    ei: float = key("I to E weight, in units of J", most=0)
    ii: float = key("I to I weight, in units of J", most=0)
    bias_exc: float = key("constant drive of E neurons, in units of sqrt(K_e)")
    bias_inh: float = key("constant drive of I neurons, in units of sqrt(K_e)")

    @abc.abstractmethod
    def class_inputs(self, n: int) -> float:
        """K_e in a network of n neurons."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FixedDegreeConfig(BalancedConfig):
    """Every neuron has the same number of static outputs: K_e = out_degree/2."""

    name: str = key("static wiring", choices=("fixed",))
    out_degree: int = key("static outputs of each neuron, K; 0 for none", least=0)
    storage: str = key("stored, or procedural: the targets of a spike are drawn again and take no memory", choices=("stored", "procedural"))

    def class_inputs(self, n: int) -> float:
        """K_e."""
        return self.out_degree / 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ErdosRenyiConfig(BalancedConfig):
    """Any two neurons are connected, each way, with the same probability: K_e = probability*N/2."""

    name: str = key("static wiring", choices=("erdos_renyi",))
    probability: float = key("of a synapse from one neuron to another", least=0, most=1)

    def class_inputs(self, n: int) -> float:
        """K_e."""
        return self.probability * n / 2


@dataclasses.dataclass(frozen=True)
class NoStaticConfig(StaticConfig):
    """No static synapses and no constant drive."""

    name: str = key("static wiring", choices=("none",))


@dataclasses.dataclass(frozen=True)
class EdgesConfig(StaticConfig):
    """Static synapses out of a file; a pair of neurons that is listed twice has two synapses, whose weights add up."""

    name: str = key("static wiring", choices=("edges",))
    path: str = key("a SciPy sparse .npz, or a .csv, .tsv or .parquet with columns pre, post, weight (threshold*ms)")
    rows: str = key("what the rows of a sparse matrix are", choices=("pre", "post"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlasticConfig(Variant):
    """Trained wiring. Groups of neurons share their inputs."""

    n_inputs: int = key("most plastic inputs of a neuron, L", least=0)
    group_size: int = key("neurons that share their plastic inputs and so one P, S", least=1)
    strength: float = key("initial weights are +-strength/(2*sqrt(L/2))", "threshold*ms", least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomInputsConfig(PlasticConfig):
    """Each group draws half its inputs from E and half from I neurons, without repeats."""

    name: str = key("plastic wiring", choices=("random",))
    least_inputs: int | None = key("each group draws a number of inputs from this to n_inputs; null: all have n_inputs", least=0)
    active_fraction: float = key("inputs are drawn from this share of each class, those most active in the static run", above=0, most=1)


@dataclasses.dataclass(frozen=True)
class NoiseConfig:
    """White noise."""

    sigma: ByClass = key("s.d. of the free membrane is sigma/sqrt(2)", "threshold", least=0)
    kind: str = key(
        "voltage: v += sigma*sqrt(dt/tau_m)*xi, refractory or not; current: sigma*sqrt(tau_m/dt)*xi is part of u_bal",
        choices=("voltage", "current"),
    )


class StimulusConfig(Variant):
    """What tells the network which condition it is in."""


@dataclasses.dataclass(frozen=True)
class OUStimulusConfig(StimulusConfig):
    """Ornstein-Uhlenbeck current between stim_on and stim_off, one realisation per condition."""

    name: str = key("kind of stimulus", choices=("ou",))
    tau: float = key("correlation time", "ms", above=0)
    sigma: float = key("ds = (mean - s)/tau dt + sigma dW", "threshold/sqrt(ms)", least=0)
    mean: float = key("mean current", "threshold")


@dataclasses.dataclass(frozen=True)
class NoStimulusConfig(StimulusConfig):
    """No stimulus."""

    name: str = key("kind of stimulus", choices=("none",))


@dataclasses.dataclass(frozen=True)
class GivenStimulusConfig(StimulusConfig):
    """Currents out of a file, held for `bin` each from stim_on on."""

    name: str = key("kind of stimulus", choices=("given",))
    path: str = key("a .npy or .zarr array of currents [C, bins, N], in units of the threshold")
    bin: float = key("time for which a value holds, a multiple of trial.dt", "ms", above=0)


class FeedforwardConfig(Variant):
    """Poisson neurons that every neuron of the network listens to, with trained weights."""


@dataclasses.dataclass(frozen=True)
class NoFeedforwardConfig(FeedforwardConfig):
    """None."""

    name: str = key("feed-forward neurons", choices=("none",))


@dataclasses.dataclass(frozen=True)
class OUFeedforwardConfig(FeedforwardConfig):
    """Rates are Ornstein-Uhlenbeck processes from stim_off on, one realisation per condition, cut off at 0."""

    name: str = key("feed-forward neurons", choices=("ou",))
    n_neurons: int = key("number of feed-forward neurons X", least=1)
    mean: float = key("mean rate, and the one at the start", "Hz", least=0)
    tau: float = key("correlation time", "ms", above=0)
    sigma: float = key("dR = (mean - R)/tau dt + sigma dW", "Hz/sqrt(ms)", least=0)
    strength: float = key("s.d. of the initial weights, which are normal", "threshold*ms", least=0)


@dataclasses.dataclass(frozen=True)
class GivenFeedforwardConfig(FeedforwardConfig):
    """Rates out of a file, from stim_off on."""

    name: str = key("feed-forward neurons", choices=("given",))
    path: str = key("a .npy or .zarr array of rates [C, M, X] in Hz, one row for each learning bin")
    strength: float = key("s.d. of the initial weights, which are normal", "threshold*ms", least=0)


@dataclasses.dataclass(frozen=True)
class TrialConfig:
    """Times of one trial. Every time is a multiple of dt."""

    dt: float = key("Euler time step", "ms", above=0)
    stim_on: float = key("start of the stimulus", "ms", least=0)
    stim_off: float = key("end of the stimulus and start of learning", "ms", least=0)
    duration: float = key("learning time, counted from stim_off", "ms", above=0)
    learn_every: float = key("time between RLS updates, and the bin of targets and PSTHs", "ms", above=0)

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


class TargetConfig(Variant):
    """What is learned. One with `recorded = "rate"` or `"current"` gets the recording that has that array."""

    name: str
    recorded: ClassVar[str | None] = None


@dataclasses.dataclass(frozen=True)
class SinusoidTargetConfig(TargetConfig):
    """amplitude*sin(2 pi (t - phase)/period) around each neuron's mean current in the static network, and a bias common to all."""

    name: str = key("kind of target", choices=("sinusoid",))
    amplitude: float = key("amplitude of the current", "threshold")
    period: float = key("period", "ms", above=0)
    n_conditions: int = key("conditions C, each with its own phases", least=1)
    bias: str = key(
        "added to all neurons: zero; ou, an Ornstein-Uhlenbeck process from 0 at the start of the trial, one realisation per condition;"
        " ramp, from 0 at stim_off to ramp_height at the end",
        choices=("zero", "ou", "ramp"),
    )
    bias_mean: float = key("of the ou bias b", "threshold")
    bias_tau: float = key("its correlation time", "ms", above=0)
    bias_sigma: float = key("db = (bias_mean - b)/bias_tau dt + bias_sigma dW", "threshold/sqrt(ms)", least=0)
    ramp_height: float = key("the ramp at the end of the trial", "threshold")


@dataclasses.dataclass(frozen=True)
class RecordingTargetConfig(TargetConfig):
    """Recorded rates turned into currents by the inverse transfer function."""

    recorded: ClassVar[str | None] = "rate"
    name: str = key("kind of target", choices=("recording",))
    rate_floor: float = key("rates below this are raised to it", "Hz", above=0)
    euler_correction: bool = key("correct the transfer function for the finite time step")


@dataclasses.dataclass(frozen=True)
class CurrentsTargetConfig(TargetConfig):
    """Recorded currents (`current` in recording.path), used as they are."""

    recorded: ClassVar[str | None] = "current"
    name: str = key("kind of target", choices=("currents",))


@dataclasses.dataclass(frozen=True)
class RecordingConfig:
    """Where recorded rates or currents come from."""

    path: str | None = key("a recording.zarr; null: for target=recording a synthetic stand-in of 66,002 units, made once")
    half: str | None = key(
        "train on each unit's odd- or even-numbered trials, and test on the others; null: all trials", choices=("odd", "even")
    )


@dataclasses.dataclass(frozen=True)
class RLSConfig:
    """Recursive least squares."""

    penlambda: float = key("ridge penalty: P starts as inv(penlambda*I + penmu*[same sign])", above=0)
    penmu: ByClass = key("penalty on the sums of excitatory and of inhibitory weights", least=0)
    penlam_ff: float = key("ridge penalty of feed-forward weights", above=0)
    forgetting: float = key(
        "factor by which what was learned counts less at each update; 1: never (P grows for inputs that never spike)", above=0, most=1
    )
    gain: str = key("weight update: textbook den*k, or k as TrainSpikingNet.jl since 2024", choices=("textbook", "tsn_head"))
    dale: bool = key("keep every plastic weight's sign: positive from E, negative from I neurons")
    apply: bool = key("false: compute every update and change nothing, for timing")
    method: str = key("form of the update: dense writes P each time, deferred every 16 times", choices=("auto", "dense", "deferred"))
    storage: str = key(
        "P in full, its packed upper triangle, or window: no P, computed from the last updates", choices=("full", "packed", "window")
    )
    precision: str = key(
        "numbers of P; sums are in engine.precision, which is auto", choices=("auto", "float64", "float32", "bfloat16", "float16", "int16")
    )
    window: int = key("updates that storage=window looks back on", least=1)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The training loop."""

    iterations: int = key("total number of trials, those of a resumed run included", least=1)
    order: str = key(
        "whose turn it is: conditions in_turn; shuffled, a new order each round; weighted, drawn with train.weights",
        choices=("in_turn", "shuffled", "weighted"),
    )
    weights: tuple[float, ...] | None = key("how often each condition is drawn, relative to the others; for order=weighted", least=0)
    checkpoint_every: int = key("save a checkpoint each this many iterations, and at the end", least=1)
    save_best: bool = key("keep the weights of the best iteration so far")
    resources_every: float = key("time between two lines of resources.jsonl (processor, memory, GPU), of any verb; 0: none", "s", least=0)


@dataclasses.dataclass(frozen=True)
class TestConfig:
    """Runs with frozen weights."""

    __test__ = False  # not a test class, whatever pytest makes of the name
    trials: int = key("trials per condition", least=1)
    neurons: str | None = key(
        "whose results are stored: null for all, [0,5,17], 0:100, exc, inh, region:NAME or region:NAME&inh", items=True
    )
    checkpoint: str = key("last, best, an iteration, or the path of a checkpoint")
    spikes: bool = key("store every spike")


class PerturbConfig(Variant):
    """What is done to some neurons in a window of time, in trials with frozen weights."""

    name: str


@dataclasses.dataclass(frozen=True)
class NoPerturbConfig(PerturbConfig):
    """Nothing."""

    name: str = key("perturbation", choices=("none",))


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowConfig(PerturbConfig, abc.ABC):
    """What all perturbations have: who, when, and the name of the result."""

    neurons: str | None = key("who: null for all, [0,5,17], 0:100, exc, inh, region:NAME, or both of region:NAME&inh", items=True)
    fraction: float = key("share of those, drawn with the seed", above=0, most=1)
    start: float | None = key("when it starts, in the trial's own time; null: after a third of the learned time", "ms", least=0)
    stop: float | None = key("when it stops; null: after two thirds of the learned time", "ms", above=0)
    label: str | None = key("name of the stored result, perturbed/LABEL.zarr; null: the perturbation's")

    def window(self, trial: TrialConfig) -> tuple[int, int]:
        """(start, stop) in whole steps of a trial; what is null is at the edge of a learning bin."""
        off, points = trial.steps(trial.stim_off), trial.n_points
        start = off + points // 3 * trial.every if self.start is None else trial.steps(self.start)
        return start, off + -(-2 * points // 3) * trial.every if self.stop is None else trial.steps(self.stop)

    @property
    def result(self) -> str:
        """Under which name it is stored."""
        return self.label or self.name


@dataclasses.dataclass(frozen=True, kw_only=True)
class SilenceConfig(WindowConfig):
    """Held at the reset potential, without spikes."""

    name: str = key("perturbation", choices=("silence",))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExciteConfig(WindowConfig):
    """A constant current on top of all other input."""

    name: str = key("perturbation", choices=("excite",))
    strength: float = key("the current, also below 0", "threshold")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClampConfig(WindowConfig):
    """Poisson spikes whatever the input; the potential is held at reset."""

    name: str = key("perturbation", choices=("clamp",))
    rate: float = key("of the spikes, at most one a step", "Hz", least=0)


@dataclasses.dataclass(frozen=True)
class EngineConfig:
    """Where and how numbers are computed."""

    platform: str = key("device", choices=("auto", "cpu", "gpu"))
    precision: str = key("floating point type", choices=("float32", "float64"))
    kernels: str = key(
        "the hot loops: native (CPU, built by its C++ compiler), xla, fixed_shape (XLA for GPUs); auto: the fastest",
        choices=("auto", "native", "xla", "fixed_shape", "wide"),
    )
    devices: int = key("number of devices; one in this version", least=1, most=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that describes one experiment; see configs/config.yaml for the values."""

    seed: int = key("seed of everything random", least=0, most=2**63 - 1)
    resume: str | None = key("run folder to continue, or auto for the folder of this very run")
    run: str | None = key("run folder to test")
    sweep: str | None = key("folder of a sweep over the keys that have several values; the same command goes on with it")
    tracking: str = key(
        "where metrics and scores of train and test go besides the run folder's files", choices=("none", "tensorboard", "wandb", "mlflow")
    )
    progress: str = key("how progress is shown", choices=("auto", "rich", "plain", "off"))
    plugins: tuple[str, ...] = key("modules, or paths of .py files, that register models of your own")
    network: NetworkConfig
    neuron: NeuronConfig
    synapse: SynapseConfig
    static: StaticConfig
    plastic: PlasticConfig
    feedforward: FeedforwardConfig
    noise: NoiseConfig
    stimulus: StimulusConfig
    trial: TrialConfig
    target: TargetConfig
    recording: RecordingConfig
    rls: RLSConfig
    train: TrainConfig
    test: TestConfig
    perturb: PerturbConfig
    engine: EngineConfig


def is_multiple(value: float, unit: float) -> bool:
    """Whether `value` is a whole number of `unit`s, but for rounding."""
    return abs(value / unit - round(value / unit)) < 1e-6


def by_class(value: ByClass) -> tuple[float, float]:
    """The values of excitatory and of inhibitory neurons."""
    return value if isinstance(value, tuple) else (value, value)


def validate(config: Config) -> None:
    """Checks that look at more than one key; raises UserError."""
    trial, neuron, plastic, static, rls = config.trial, config.neuron, config.plastic, config.static, config.rls
    times: dict[str, Any] = {f"trial.{k}": getattr(trial, k) for k in ("stim_on", "stim_off", "learn_every", "duration")}
    times["neuron.refractory"] = getattr(neuron, "refractory", trial.dt)
    if isinstance(config.stimulus, GivenStimulusConfig):
        times["stimulus.bin"] = config.stimulus.bin
    for name, values in times.items():
        for value in by_class(values):
            if not is_multiple(value, trial.dt):
                nearest = (round(value / trial.dt) or 1) * trial.dt
                raise UserError(f"{name}={value:g} ms: expected a multiple of trial.dt={trial.dt:g} ms, such as {nearest:g}.")
    if trial.stim_on > trial.stim_off:
        raise UserError(f"trial.stim_on={trial.stim_on:g} ms: should not be after trial.stim_off={trial.stim_off:g} ms.")
    if trial.stim_off < trial.dt:
        raise UserError(f"trial.stim_off={trial.stim_off:g} ms: expected at least one step (trial.dt={trial.dt:g} ms).")
    if not is_multiple(trial.duration, trial.learn_every):
        near = max(1, round(trial.duration / trial.learn_every)) * trial.learn_every
        raise UserError(
            f"trial.duration={trial.duration:g} ms: expected a multiple of trial.learn_every={trial.learn_every:g} ms, such as {near:g}."
        )
    for reset, threshold in zip(by_class(neuron.reset), by_class(neuron.threshold), strict=True):
        if reset >= threshold:
            raise UserError(f"neuron.reset={reset:g}: expected to be below neuron.threshold={threshold:g}.")
    taus: dict[str, Any] = {f"synapse.{k}": getattr(config.synapse, k) for k in ("tau_exc", "tau_inh", "tau_plas")}
    decays = ("tau_m", "threshold_tau", "asc_tau_1", "asc_tau_2", "adaptation_tau")
    taus |= {f"neuron.{k}": getattr(neuron, k) for k in decays if hasattr(neuron, k)}
    taus |= {f"{k}.tau": getattr(config, k).tau for k in ("stimulus", "feedforward") if hasattr(getattr(config, k), "tau")}
    if getattr(config.target, "bias", None) == "ou":
        taus["target.bias_tau"] = getattr(config.target, "bias_tau", math.inf)
    for name, values in taus.items():
        for tau in by_class(values):
            if tau < 2 * trial.dt:
                raise UserError(f"{name}={tau:g} ms: expected at least twice trial.dt={trial.dt:g} ms, for the Euler scheme's sake.")
    if plastic.n_inputs % 2:
        raise UserError(f"plastic.n_inputs={plastic.n_inputs}: expected to be even, half excitatory and half inhibitory.")
    least = getattr(plastic, "least_inputs", None)
    if least is not None and (least % 2 or least > plastic.n_inputs):
        raise UserError(f"plastic.least_inputs={least}: expected to be even and at most plastic.n_inputs={plastic.n_inputs}.")
    if isinstance(static, FixedDegreeConfig) and static.out_degree % 2:
        raise UserError(f"static.out_degree={static.out_degree}: expected to be even, as the weights scale with half of it.")
    if not hasattr(neuron, "tau_m") and any(by_class(config.noise.sigma)):
        raise UserError(f"noise.sigma={config.noise.sigma}: expected 0, as {type(neuron).__name__} has no tau_m.")
    if getattr(config.feedforward, "mean", 0) * trial.dt > 1000:
        raise UserError(f"feedforward.mean={config.feedforward.mean:g} Hz: expected at most {1000 / trial.dt:g}, a spike a step.")  # type: ignore[attr-defined]
    if rls.precision == "float16" and min(rls.penlambda, rls.penlam_ff) < 2e-5:
        raise UserError("rls.precision=float16: expected another with penalties below 2e-5, for which P starts above 65504.")
    if rls.precision == "float64" and config.engine.precision != "float64":
        raise UserError("rls.precision=float64: expected another unless engine.precision=float64, in which sums would be as exact.")
    if rls.storage == "window":
        for name, wanted in (("precision", "auto"), ("forgetting", 1), ("method", "auto")):
            if (value := getattr(rls, name)) != wanted:
                raise UserError(f"rls.{name}={value}: expected {wanted} with rls.storage=window, which keeps no P.")
    weights, order = config.train.weights, config.train.order
    if order == "weighted" and not any(weights or ()):
        given = "null" if weights is None else list(weights)
        raise UserError(f"train.weights={given}: expected a number for each condition, one above 0 at least, for train.order=weighted.")
    if order != "weighted" and weights is not None:
        raise UserError(f"train.order={order}: expected weighted, for train.weights to count; or those should be null.")
    if config.recording.half is not None and config.target.recorded != "rate":
        raise UserError(f"recording.half={config.recording.half}: expected null with target={config.target.name}, which takes no rates.")
    if not re.fullmatch(r"last|best|\d+|.*(/|\\|\.zarr).*", config.test.checkpoint):
        raise UserError(
            f"test.checkpoint={config.test.checkpoint}: expected last, best, an iteration such as 100, or a path such as"
            " RUN/checkpoints/000100.zarr."
        )
    _validate_neurons("test.neurons", config.test.neurons)
    if isinstance(config.perturb, WindowConfig):
        _validate_perturb(config.perturb, trial)


def _validate_neurons(name: str, chosen: str | None) -> None:
    """Whether a choice of neurons can be read."""
    for item in [] if chosen is None else re.split("[,&]", chosen):
        if not re.fullmatch(r"\s*(exc|inh|\d+|\d*:\d*|region:.+)\s*", item):
            right = "null, indices such as [0,5,17], a range such as 0:100, exc, inh or region:NAME"
            raise UserError(f"{name}={chosen or '[]'}: expected {right}.")


def _validate_perturb(perturb: WindowConfig, trial: TrialConfig) -> None:
    """Whether a perturbation's window is one of the trial, and the rest makes sense."""
    _validate_neurons("perturb.neurons", perturb.neurons)
    end = trial.stim_off + trial.duration
    for name in ("start", "stop"):
        value = getattr(perturb, name)
        if value is not None and not is_multiple(value, trial.dt):
            raise UserError(f"perturb.{name}={value:g} ms: expected a multiple of trial.dt={trial.dt:g} ms.")
        if value is not None and value > end:
            raise UserError(f"perturb.{name}={value:g} ms: expected to be within the trial, which ends at {end:g} ms.")
    start, stop = perturb.window(trial)
    if start >= stop:
        raise UserError(f"perturb.start={start * trial.dt:g} ms: expected to be before perturb.stop={stop * trial.dt:g} ms.")
    if isinstance(perturb, ClampConfig) and perturb.rate * trial.dt > 1000:
        raise UserError(f"perturb.rate={perturb.rate:g} Hz: expected at most {1000 / trial.dt:g}, a spike a step.")
    if not re.fullmatch(r"\w[\w.-]*", perturb.result):
        raise UserError(f"perturb.label={perturb.label}: expected letters, digits, and . _ or - between them.")
