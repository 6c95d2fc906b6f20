"""Schema of the configuration: typed, frozen dataclasses with defaults, units, ranges and checks.

A field defines a setting: default, meaning, unit, allowed values and, if there is one, the source of the default. The YAML files of
the variants and docs/configuration.md are generated from the fields (`scripts/configuration.py`), and so is the help. Sections and
variants have checks of their own (`check`). A mistake raises `UserError` with one line that names the key and the allowed values.
"""

from __future__ import annotations

import abc
import dataclasses
import math
import operator
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from rlsnet.errors import UserError
from rlsnet.io.precision import AMOUNTS, fits


def key(help: str, unit: str = "", *, default: Any = dataclasses.MISSING, source: str = "", **rule: Any) -> Any:
    """A field of a section: one setting, given by keyword.

    Args:
      help: meaning of the setting.
      unit: unit of its number, "" for none.
      default: default value; without it the setting is required.
      source: publication of the default, or the reason for it.
      **rule: allowed values: `least`, `above`, `most` or `choices`; `decay=True` for a time constant, at least two time steps;
        `steps=True` for a time in whole time steps; `items=True` for a text that may be written as a list;
        `texts=True` for texts under names that the user chooses; `path=True` for a path,
        with `paths=True` for a list of paths.
    """
    return dataclasses.field(default=default, kw_only=True, metadata={"help": help, "unit": unit, "source": source, **rule})


def variant(help: str, name: str) -> Any:
    """The field `name` of a variant, with the only value that it can have."""
    return key(help, default=name, choices=(name,))


KERNELS = ("gaussian", "boxcar", "causal_exp", "none")  # for smoothing rates over time


def smoothing_kernel() -> Any:
    """The field of a kernel that smooths rates."""
    return key("smoothing kernel of the rates", default="gaussian", choices=KERNELS)


def smoothing_width() -> Any:
    """The field of the width of such a kernel."""
    words = "width of the smoothing kernel: standard deviation (gaussian), half width (boxcar) or time constant (causal_exp)"
    return key(words, "ms", default=50.0, above=0)


MOST = 2**31 - 1  # largest whole number of most settings, that of an int32
# rule, comparison of a value that breaks it, words for what is expected
LIMITS = (("least", operator.lt, "at least"), ("above", operator.le, "a value above"), ("most", operator.gt, "at most"))


ARTHUR = "Arthur et al. 2023"  # Front. Neuroinform. 17:1099510


TEETER = "Teeter et al. 2018"  # Nat. Commun. 9:709


TSN = "TrainSpikingNet.jl"


if TYPE_CHECKING:
    ByClass = Any  # a number, or an array within a step
else:
    ByClass = float | tuple[float, float]  # one value, or one for excitatory and one for inhibitory neurons


def by_class(value: ByClass) -> tuple[float, float]:
    """Values of excitatory and of inhibitory neurons."""
    return value if isinstance(value, tuple) else (value, value)


def is_multiple(value: float, unit: float) -> bool:
    """Whether `value` is a whole multiple of `unit`, up to rounding."""
    count = round(value / unit)
    return abs(value / unit - count) < 1e-6 and (count != 0 or value == 0)


def check_steps(name: str, value: ByClass, dt: float) -> None:
    """Raises UserError unless a time, of each class of neurons, is a whole number of time steps."""
    for each in by_class(value):
        if not is_multiple(each, dt):
            nearest = (round(each / dt) or 1) * dt
            raise UserError(f"{name}={each:g} ms: expected a multiple of trial.dt={dt:g} ms, such as {nearest:g}.")


def check_decay(name: str, tau: ByClass, dt: float) -> None:
    """Raises UserError unless a time constant, of each class of neurons, is at least twice the time step."""
    for each in by_class(tau):
        if each < 2 * dt:
            raise UserError(f"{name}={each:g} ms: expected at least twice trial.dt={dt:g} ms, for stability of the Euler scheme.")


FILTER = re.compile(r"[=!]=|[<>]|\b(and|or|not|in|is)\b|^\s*(excitatory|inhibitory)\s*$")  # what a filter of neurons contains


def is_filter(chosen: str | None) -> bool:
    """Whether a selection of neurons is a filter by columns, such as region == 'ALM' and excitatory, and not a list of terms."""
    return chosen is not None and not _are_terms(chosen) and FILTER.search(chosen) is not None


def _are_terms(chosen: str) -> bool:
    """Whether a selection of neurons consists of indices, ranges, classes and regions."""
    return all(re.fullmatch(r"\s*(exc|inh|\d+|\d*:\d*|region:.+)\s*", item) for item in re.split("[,&]", chosen))


def check_neurons(name: str, chosen: str | None) -> None:
    """Raises UserError unless a selection of neurons has the right syntax; a filter by columns is read when the columns are known."""
    if chosen is not None and not is_filter(chosen) and not _are_terms(chosen):
        right = "null, indices such as [0,5,17], a range such as 0:100, exc, inh, region:NAME, or a filter such as region == 'ALM'"
        word = re.fullmatch(r"\s*([A-Za-z]\w*)\s*", chosen)
        raise UserError(f"{name}={chosen or '[]'}: expected {right}." + (f" Did you mean region:{word[1]}?" if word else ""))


class Section:
    """Section: settings that belong together, under one name in `Config`."""

    def check(self, config: Config) -> None:
        """Checks settings that depend on each other; each section or variant may define its own.

        Args:
          config: the configuration that contains the section.

        Raises:
          UserError: settings contradict each other.
        """

    def check_numbers(self, section: str, precision: str) -> None:
        """Checks that all real numbers of the section, `section` in the configuration, can be used in a precision such as float32.

        Raises:
          UserError: a number is too large, or so small that it would become 0.
        """
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            for each in value if isinstance(value, tuple) else (value,):
                if isinstance(each, float) and not fits(each, precision):
                    least, most = AMOUNTS[precision]
                    unit = f" {field.metadata['unit']}" if field.metadata.get("unit") else ""
                    wanted = f"0 or an amount from {least:g} to {most:g}{unit}, which engine.precision={precision} can use"
                    raise UserError(f"{section}.{field.name}={each:g}: expected {wanted}.")

    def check_times(self, section: str, dt: float) -> None:
        """Checks all time constants (`decay`) and times in whole time steps (`steps`) of the section.

        Args:
          section: name of the section in the configuration.
          dt: time step, ms.

        Raises:
          UserError: a time is too short for the time step, or not a multiple of it.
        """
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            for rule, check in (("steps", check_steps), ("decay", check_decay)):
                if field.metadata.get(rule) and getattr(self, field.name) is not None:
                    check(f"{section}.{field.name}", getattr(self, field.name), dt)


@dataclasses.dataclass(frozen=True)
class NetworkConfig(Section):
    """Neurons of the network. Without a recording, 0 to N_exc-1 are excitatory and the others inhibitory."""

    n_neurons: int | None = key("number of neurons (N); null: one for each unit of the recording", default=4096, source=ARTHUR, least=2)
    fraction_excitatory: float = key(
        "fraction of neurons that are excitatory; with a recording, the fraction of those units whose cell class it does not contain,"
        " drawn at random in each region",
        default=0.5,
        source=ARTHUR,
        least=0,
        most=1,
    )
    bias: ByClass | None = key(
        "constant drive of each neuron (X_bal); null: computed from the settings of the static synapses", "threshold", default=None
    )
    load: str | None = key(
        "path of a network.zarr, or of an export to zarr or npz, whose connectivity, weights, initial voltages or targets replace the"
        " random ones",
        default=None,
        path=True,
    )


class Variant(Section):
    """Variant of a section, chosen by its `name`. The variants of a section are the subclasses of its base class.

    A dataclass in a module of the setting `plugins` has the same rights as one in this module; its computation is registered with the
    function of its section: `neurons.step`, `wiring.static_edges`, `wiring.plastic_inputs`, `inputs.stimulus`, `targets.currents`.
    """


class NeuronConfig(Variant):
    """Neuron model. Values are per class or, with an array `neuron/KEY` in network.load, per neuron."""

    name: str
    threshold: ByClass
    reset: ByClass
    tau_m: ByClass | None = None  # a model without a membrane time constant has no noise

    def check(self, config: Config) -> None:
        """Reset below threshold, and no noise without a membrane time constant."""
        for reset, threshold in zip(by_class(self.reset), by_class(self.threshold), strict=True):
            if reset >= threshold:
                raise UserError(f"neuron.reset={reset:g}: expected a value below neuron.threshold={threshold:g}.")
        if self.tau_m is None and any(by_class(config.noise.sigma)):
            raise UserError(f"noise.sigma={config.noise.sigma}: expected 0, as {type(self).__name__} has no tau_m.")


@dataclasses.dataclass(frozen=True)
class LIFConfig(NeuronConfig):
    """Leaky integrate-and-fire neurons."""

    name: str = variant("neuron model", "lif")
    tau_m: ByClass = key("membrane time constant", "ms", default=10.0, source=ARTHUR, above=0, decay=True)
    threshold: ByClass = key("spike threshold of the membrane potential; voltages are in units of it", "threshold", default=1.0)
    reset: ByClass = key("membrane potential after a spike", "threshold", default=0.0, source=ARTHUR)
    refractory: ByClass = key(
        "refractory period after a spike, in which input is not integrated; a multiple of trial.dt",
        "ms",
        default=0.1,
        source=ARTHUR,
        least=0,
        steps=True,
    )


@dataclasses.dataclass(frozen=True)
class GLIFConfig(NeuronConfig):
    """Settings of all generalized leaky integrate-and-fire neurons (Teeter et al., Nat. Commun. 9:709, 2018)."""

    tau_m: ByClass = key("membrane time constant", "ms", default=10.0, source="as lif", above=0, decay=True)
    rest: ByClass = key("resting membrane potential (E_L)", "threshold", default=0.0)
    threshold: ByClass = key("spike threshold at rest; voltages are in units of it", "threshold", default=1.0)
    refractory: ByClass = key(
        "refractory period, in which all state variables of the neuron stay constant; a multiple of trial.dt",
        "ms",
        default=0.1,
        source="as lif",
        least=0,
        steps=True,
    )


@dataclasses.dataclass(frozen=True)
class FixedReset(GLIFConfig):
    """Reset of the voltage to one value."""

    reset: ByClass = key("membrane potential after a spike", "threshold", default=0.0)


@dataclasses.dataclass(frozen=True)
class ResetRules(GLIFConfig):
    """Reset that keeps a share of the voltage, and raises the threshold for a while."""

    reset_fraction: ByClass = key("fraction of v - E_L that remains after a spike (f_v)", default=0.3)
    reset_drop: ByClass = key("voltage that is subtracted from v after a spike (delta_V)", "threshold", default=0.1)
    threshold_jump: ByClass = key("increase of the threshold at a spike (delta_Theta_s)", "threshold", default=0.2)
    threshold_tau: ByClass = key(
        "decay time constant of the spike-induced increase of the threshold (1/b_s)", "ms", default=50.0, above=0, decay=True
    )

    @property
    def reset(self) -> ByClass:
        """Lower bound of the initial voltages, as with a fixed reset."""
        return self.rest


@dataclasses.dataclass(frozen=True)
class AfterSpikeCurrents(GLIFConfig):
    """Two currents that change at a spike, I_j <- keep_j*I_j + jump_j, and decay in between."""

    asc_tau_1: ByClass = key("decay time constant of the first after-spike current (1/k_1)", "ms", default=10.0, above=0, decay=True)
    asc_jump_1: ByClass = key(
        "amount added to the first after-spike current at a spike, times the membrane resistance (delta_I_1)", "threshold", default=-0.3
    )
    asc_keep_1: ByClass = key("fraction of the first after-spike current that remains after a spike (f_1)", default=1.0, source=TEETER)
    asc_tau_2: ByClass = key("decay time constant of the second after-spike current (1/k_2)", "ms", default=100.0, above=0, decay=True)
    asc_jump_2: ByClass = key(
        "amount added to the second after-spike current at a spike, times the membrane resistance (delta_I_2)", "threshold", default=-0.05
    )
    asc_keep_2: ByClass = key("fraction of the second after-spike current that remains after a spike (f_2)", default=1.0, source=TEETER)


@dataclasses.dataclass(frozen=True)
class GLIF1Config(FixedReset):
    """GLIF1: leaky integrate-and-fire with a resting potential of its own."""

    name: str = variant("neuron model", "glif1")


def has_transfer_formula(neuron: NeuronConfig) -> bool:
    """Whether the transfer function of a neuron model has a formula; models derived from one that has may differ from it."""
    return type(neuron) in (LIFConfig, GLIF1Config)


def check_transfer_formula(neuron: NeuronConfig, where: str) -> None:
    """Raises UserError unless the transfer function of a neuron model has a formula; `where` is the setting that needs one."""
    if not has_transfer_formula(neuron):
        raise UserError(f"{where}: expected neuron=lif or glif1, not {neuron.name}, whose transfer function has no formula.")


@dataclasses.dataclass(frozen=True)
class GLIF2Config(ResetRules):
    """GLIF2: with reset rules."""

    name: str = variant("neuron model", "glif2")


@dataclasses.dataclass(frozen=True)
class GLIF3Config(AfterSpikeCurrents, FixedReset):
    """GLIF3: with after-spike currents."""

    name: str = variant("neuron model", "glif3")


@dataclasses.dataclass(frozen=True)
class GLIF4Config(AfterSpikeCurrents, ResetRules):
    """GLIF4: with reset rules and after-spike currents."""

    name: str = variant("neuron model", "glif4")


@dataclasses.dataclass(frozen=True)
class GLIF5Config(AfterSpikeCurrents, ResetRules):
    """GLIF5: with reset rules, after-spike currents and a threshold that follows the voltage."""

    name: str = variant("neuron model", "glif5")
    adaptation_rate: ByClass = key(
        "rate at which the threshold follows the voltage (a_v in dTheta_v/dt = a_v*(v - E_L) - b_v*Theta_v)", "1/ms", default=0.005
    )
    adaptation_tau: ByClass = key(
        "decay time constant of the voltage-dependent threshold Theta_v (1/b_v)", "ms", default=50.0, above=0, decay=True
    )


@dataclasses.dataclass(frozen=True)
class SynapseConfig(Section):
    """Decay times of the synaptic currents."""

    tau_exc: float = key(
        "decay time constant of currents through static excitatory synapses", "ms", default=3.0, source=ARTHUR, above=0, decay=True
    )
    tau_inh: float = key(
        "decay time constant of currents through static inhibitory synapses", "ms", default=3.0, source=ARTHUR, above=0, decay=True
    )
    tau_plas: ByClass = key(
        "decay time constant of currents through plastic synapses, and of the filtered spikes that RLS uses; two values: of excitatory"
        " and of inhibitory presynaptic neurons",
        "ms",
        default=150.0,
        source=ARTHUR,
        above=0,
        decay=True,
    )
    delay: ByClass | None = key(
        "time from a spike to the first step in which it acts, a multiple of trial.dt; two values: of excitatory and of inhibitory"
        " presynaptic neurons; null: one time step. Static synapses may have delays of their own (`static/delay`)",
        "ms",
        default=None,
        above=0,
        steps=True,
    )

    def delays(self, dt: float) -> tuple[float, float]:
        """Delays of synapses from excitatory and from inhibitory neurons, ms; dt: time step, ms."""
        return by_class(dt if self.delay is None else self.delay)


class StaticConfig(Variant):
    """Static synapses."""

    name: str
    edge_weights: ClassVar[bool] = False  # whether each static synapse has a weight of its own in memory

    def n_neurons(self) -> int | None:
        """Number of neurons, if the connectivity sets it."""
        return None

    def n_edges(self, n: int) -> int:
        """Mean number of static synapses that a network of n neurons keeps in memory."""
        return 0


@dataclasses.dataclass(frozen=True)
class BalancedConfig(StaticConfig, abc.ABC):
    """Random static synapses in the balanced state: weights and bias scale with the square root of the inputs.

    With K_e inputs of one class, a weight is `strength`/sqrt(K_e) times ee, ie, ei or ii (postsynaptic class first), the bias
    sqrt(K_e) times bias_exc or bias_inh.
    """

    strength: float = key(
        "scale of static weights: J*sqrt(K_e), where K_e is the mean number of inputs from one class",
        "threshold*ms",
        default=20.0,
        source=TSN,
        least=0,
    )
    ee: float = key("static weight from excitatory to excitatory neurons, in units of J", default=0.15, source=TSN, least=0)
    ie: float = key("static weight from excitatory to inhibitory neurons, in units of J", default=1.0, source=TSN, least=0)
    ei: float = key("static weight from inhibitory to excitatory neurons, in units of J", default=-0.75, source=TSN, most=0)
    ii: float = key("static weight from inhibitory to inhibitory neurons, in units of J", default=-1.0, source=TSN, most=0)
    bias_exc: float = key("constant drive of excitatory neurons, in units of sqrt(K_e)", default=0.12, source=TSN)
    bias_inh: float = key("constant drive of inhibitory neurons, in units of sqrt(K_e)", default=0.08, source=TSN)

    @abc.abstractmethod
    def class_inputs(self, n: int) -> float:
        """K_e in a network of n neurons."""


@dataclasses.dataclass(frozen=True)
class FixedDegreeConfig(BalancedConfig):
    """Balanced random connectivity: every neuron with the same number of static outputs: K_e = out_degree/2."""

    name: str = variant("static connectivity", "fixed")
    out_degree: int = key("number of static outputs of each neuron (K); 0: no static synapses", default=410, source=ARTHUR, least=0)
    storage: str = key(
        "how static synapses are kept: stored, in memory; procedural, drawn again for each spike, without memory",
        default="stored",
        choices=("stored", "procedural"),
    )

    def class_inputs(self, n: int) -> float:
        """K_e."""
        return self.out_degree / 2

    def n_edges(self, n: int) -> int:
        """n*K, or 0 with procedural connectivity."""
        return n * self.out_degree if self.storage == "stored" else 0

    def check(self, config: Config) -> None:
        """Even out-degree."""
        if self.out_degree % 2:
            raise UserError(f"static.out_degree={self.out_degree}: expected an even number, as the weights scale with half of it.")


@dataclasses.dataclass(frozen=True)
class ErdosRenyiConfig(BalancedConfig):
    """Balanced random connectivity: each synapse between two neurons exists with the same probability: K_e = probability*N/2."""

    name: str = variant("static connectivity", "erdos_renyi")
    probability: float = key("probability of a static synapse from one neuron to another", default=0.1, least=0, most=1)

    def class_inputs(self, n: int) -> float:
        """K_e."""
        return self.probability * n / 2

    def n_edges(self, n: int) -> int:
        """n^2*probability."""
        return int(n * (self.probability * n))


LONG_RANGE = "neurons that have synapses to other regions"


@dataclasses.dataclass(frozen=True)
class RegionalConfig(BalancedConfig):
    """Balanced connectivity whose probabilities depend on the regions and classes of the two neurons, and on their distance.

    K_e is the mean number of excitatory static inputs. Where inhibitory inputs are fewer or more, their weights are larger or smaller by
    that ratio, so that excitation and inhibition balance as with static=fixed.
    """

    name: str = variant("static connectivity", "regional")
    within: float = key("probability of a synapse from one neuron to another of the same region", default=0.1, least=0, most=1)
    between: float = key("probability of a synapse to a neuron of another region", default=0.02, least=0, most=1)
    long_range: str = key(LONG_RANGE, default="exc", choices=("exc", "all"))
    table: str | None = key(
        "table of probabilities in place of the three settings above: a .csv or .tsv with columns pre, post (names of regions, * for every"
        " other one) and probability and, where classes differ, pre_class and post_class (exc, inh or *); pairs that are not listed have no"
        " synapses",
        default=None,
        path=True,
    )
    length: float | None = key(
        "distance at which the probability has fallen to 1/e of that at the same place, in the unit of the coordinates; null: it does not"
        " depend on the distance",
        default=None,
        above=0,
    )
    coordinates: tuple[str, ...] = key("columns of the recording with the place of a unit, for static.length", default=("x", "y", "z"))

    def class_inputs(self, n: int) -> float:
        """Largest K_e that the probabilities allow; that of a network follows from its synapses."""
        return self._largest() * n / 2

    def n_edges(self, n: int) -> int:
        """Largest mean number of synapses that the probabilities allow; in networks of several regions there are fewer."""
        return int(n * (self._largest() * n))

    def _largest(self) -> float:
        """Largest probability."""
        from rlsnet.io import edge_count

        return max(self.within, self.between) if self.table is None else edge_count.largest(self.table, "probability")


@dataclasses.dataclass(frozen=True)
class NoStaticConfig(StaticConfig):
    """No static synapses and no constant drive."""

    name: str = variant("static connectivity", "none")


@dataclasses.dataclass(frozen=True)
class EdgesConfig(StaticConfig):
    """Static synapses from a file; a pair of neurons that is listed twice has two synapses, whose weights add up.

    The constant drive is network.bias, or neuron/bias in network.load.
    """

    edge_weights: ClassVar[bool] = True
    name: str = variant("static connectivity", "edges")
    path: str = key(
        "file of static synapses: a SciPy sparse matrix (.npz), or a table (.csv, .tsv, .parquet) with columns pre, post, weight"
        " (threshold*ms)",
        path=True,
    )
    rows: str = key(
        "what the rows of the sparse matrix in static.path are: presynaptic (pre) or postsynaptic (post) neurons",
        default="pre",
        choices=("pre", "post"),
    )

    def n_edges(self, n: int) -> int:
        """Edges that the file lists, counted without reading them; 0 where that is not possible."""
        from rlsnet.io import edge_count

        return edge_count.count(self.path) or 0


@dataclasses.dataclass(frozen=True)
class PopulationsConfig(StaticConfig):
    """Random synapses between populations of neurons, whose sizes, numbers of synapses, weights and delays are in a file.

    The neurons of a population have consecutive numbers. Fewer inputs get larger weights, and a constant current that keeps the mean of
    the input (van Albada et al. 2015).
    """

    edge_weights: ClassVar[bool] = True
    name: str = variant("static connectivity", "populations")
    path: str = key(
        "YAML file of populations, or a model that ships: microcircuit (Potjans & Diesmann 2014), brunel (Brunel 2000)", path=True
    )
    scale: float = key("number of neurons, as a fraction of those in the file", default=1.0, above=0, most=1)
    in_degrees: float | None = key(
        "number of inputs of each neuron, as a fraction of those in the file; null: the same as static.scale", default=None, above=0, most=1
    )
    inhibition: float = key("factor of the weights from inhibitory populations", default=1.0, least=0)

    @property
    def inputs(self) -> float:
        """Number of inputs of each neuron, as a fraction of those in the file."""
        return self.scale if self.in_degrees is None else self.in_degrees

    def n_neurons(self) -> int:
        """N."""
        from rlsnet.io import population_files

        return int(population_files.read(self.path).scaled(self.scale, self.inputs)[0].sum())

    def n_edges(self, n: int) -> int:
        """Total number of synapses."""
        from rlsnet.io import population_files

        return int(population_files.read(self.path).scaled(self.scale, self.inputs)[1].sum())


@dataclasses.dataclass(frozen=True)
class PlasticConfig(Variant):
    """Plastic synapses. The neurons of a group share their inputs."""

    n_inputs: int = key(
        "number of plastic inputs of each neuron (L), half of them excitatory; with plastic.least_inputs, the largest number",
        default=58,
        source=ARTHUR,
        least=0,
    )
    group_size: int = key(
        "number of neurons that share their plastic inputs and one matrix P of RLS (S); larger groups need less memory and time",
        default=1,
        source=ARTHUR,
        least=1,
    )
    strength: float = key(
        "scale of the initial plastic weights, which are +-strength/(2*sqrt(L/2))", "threshold*ms", default=20.0, source=TSN, least=0
    )

    @property
    def needs_activity(self) -> bool:
        """Whether inputs are chosen by the spikes of the calibration."""
        return False

    def check(self, config: Config) -> None:
        """Even number of inputs."""
        if self.n_inputs % 2:
            raise UserError(f"plastic.n_inputs={self.n_inputs}: expected an even number, half excitatory and half inhibitory.")


@dataclasses.dataclass(frozen=True)
class RandomInputsConfig(PlasticConfig):
    """Each group draws half its inputs from E and half from I neurons, without repeats."""

    name: str = variant("plastic connectivity", "random")
    least_inputs: int | None = key(
        "smallest number of plastic inputs; each group draws a number between this and plastic.n_inputs; null: all have plastic.n_inputs",
        default=None,
        least=0,
    )
    active_fraction: float = key(
        "fraction of each class that plastic inputs are drawn from: the neurons most active in the calibration; 1: all neurons",
        default=1.0,
        above=0,
        most=1,
    )

    @property
    def needs_activity(self) -> bool:
        """Whether inputs are chosen by the spikes of the calibration."""
        return self.active_fraction < 1

    def check(self, config: Config) -> None:
        """Even numbers of inputs, the least not above the most."""
        super().check(config)
        least = self.least_inputs
        if least is not None and (least % 2 or least > self.n_inputs):
            raise UserError(f"plastic.least_inputs={least}: expected an even number, at most plastic.n_inputs={self.n_inputs}.")


@dataclasses.dataclass(frozen=True)
class RegionalInputsConfig(PlasticConfig):
    """Each group draws half its inputs from E and half from I neurons, and a set share of each from its own region, without repeats.

    Where too few neurons can be drawn from, a group has fewer inputs.
    """

    name: str = variant("plastic connectivity", "regional")
    local: float = key("share of the inputs of a class that are of the neuron's own region", default=0.5, least=0, most=1)
    long_range: str = key(LONG_RANGE + "; with exc, all inhibitory inputs are of the own region", default="exc", choices=("exc", "all"))


@dataclasses.dataclass(frozen=True)
class NoiseConfig(Section):
    """White noise."""

    sigma: ByClass = key(
        "amplitude of white noise; without other input the membrane potential has a standard deviation of sigma/sqrt(2)",
        "threshold",
        default=0.0,
        source=ARTHUR,
        least=0,
    )
    kind: str = key(
        "where white noise is added: voltage (v += sigma*sqrt(dt/tau_m)*xi, also in the refractory period) or current"
        " (sigma*sqrt(tau_m/dt)*xi, a part of u_bal)",
        default="voltage",
        choices=("voltage", "current"),
    )


@dataclasses.dataclass(frozen=True)
class BackgroundConfig(Section):
    """Input from outside of the network: a Poisson process of each neuron, through excitatory synapses."""

    kind: str = key(
        "poisson: spikes of a Poisson process of its own for each neuron, filtered with synapse.tau_exc; constant: the mean of that"
        " current; none: no background",
        default="none",
        choices=("none", "poisson", "constant"),
    )
    n_inputs: ByClass = key(
        "number of background inputs of a neuron; with static=populations, that of its population instead", default=1000.0, least=0
    )
    rate: ByClass = key("rate of each background input", "Hz", default=8.0, least=0)
    weight: ByClass = key("weight of the background inputs", "threshold*ms", default=0.1)

    def check(self, config: Config) -> None:
        """Few enough spikes in a step."""
        for number, rate in zip(by_class(self.n_inputs), by_class(self.rate), strict=True):
            if self.kind == "poisson" and number * rate * config.trial.dt > 1e6:
                raise UserError(
                    f"background.rate={rate:g} Hz: makes more than 1000 spikes of {number:g} inputs in a step of {config.trial.dt:g} ms;"
                    " expected fewer, or background.kind=constant."
                )


class StimulusConfig(Variant):
    """Stimulus current, which differs between conditions."""

    def n_values(self, n: int, stored: tuple[int, ...] | None) -> int:
        """Numbers of a stimulus that is kept in memory.

        Args:
          n: number of neurons N.
          stored: shape of the array in network.load, which is used instead of a file; or None.
        """
        return 0


@dataclasses.dataclass(frozen=True)
class OUStimulusConfig(StimulusConfig):
    """Ornstein-Uhlenbeck current between stim_on and stim_off, one realisation per neuron and condition."""

    name: str = variant("stimulus", "ou")
    tau: float = key("correlation time of the stimulus current", "ms", default=20.0, source=ARTHUR, above=0, decay=True)
    sigma: float = key(
        "amplitude of the fluctuations of the stimulus current s: ds = (mean - s)/tau dt + sigma dW",
        "threshold/sqrt(ms)",
        default=0.2,
        source=ARTHUR,
        least=0,
    )
    mean: float = key("mean of the stimulus current", "threshold", default=0.0, source=ARTHUR)


@dataclasses.dataclass(frozen=True)
class NoStimulusConfig(StimulusConfig):
    """No stimulus."""

    name: str = variant("stimulus", "none")


@dataclasses.dataclass(frozen=True)
class GivenStimulusConfig(StimulusConfig):
    """Currents from a file, each held for `bin` from stim_on on."""

    name: str = variant("stimulus", "given")
    path: str = key("file (.npy or .zarr) of stimulus currents [C, bins, N], in units of the threshold", path=True)
    bin: float = key("length of a bin of the stimulus currents; a multiple of trial.dt", "ms", default=10.0, above=0, steps=True)

    def n_values(self, n: int, stored: tuple[int, ...] | None) -> int:
        """C*bins*N."""
        from rlsnet.io import zarr_store

        return math.prod(stored or zarr_store.open_plain(self.path, "stimulus.path", ["C", "bins", n]).shape)


class FeedforwardConfig(Variant):
    """Poisson neurons that project to every neuron of the network, with trained weights."""

    before: bool = False  # whether they fire before stim_off

    def n_inputs(self, trial: TrialConfig, stored: tuple[int, ...] | None) -> int:
        """Number of feed-forward neurons, X.

        Args:
          trial: for the number of learning points.
          stored: shape of the array in network.load, which is used instead of a file; or None.
        """
        return 0


@dataclasses.dataclass(frozen=True)
class NoFeedforwardConfig(FeedforwardConfig):
    """No feed-forward neurons."""

    name: str = variant("feed-forward neurons", "none")


@dataclasses.dataclass(frozen=True)
class OUFeedforwardConfig(FeedforwardConfig):
    """Poisson neurons with rates from Ornstein-Uhlenbeck processes from stim_off on, one realisation per condition, at least 0.

    They tell a network the time in the trial and the condition, as inputs from elsewhere in the brain do.
    """

    name: str = variant("feed-forward neurons", "ou")
    n_neurons: int = key("number of feed-forward neurons (X)", default=32, least=1)
    mean: float = key("mean rate of the feed-forward neurons, and their rate at the start", "Hz", default=5.0, source=TSN, least=0)
    tau: float = key("correlation time of the rates of the feed-forward neurons", "ms", default=400.0, source=TSN, above=0, decay=True)
    sigma: float = key(
        "amplitude of the fluctuations of the rate R of a feed-forward neuron: dR = (mean - R)/tau dt + sigma dW",
        "Hz/sqrt(ms)",
        default=0.2,
        source=TSN,
        least=0,
    )
    before: bool = key(
        "true: feed-forward neurons also fire before trial.stim_off, at their first rates, so that the network can reach the state in"
        " which the target begins",
        default=False,
    )
    strength: float = key(
        "standard deviation of the initial weights of feed-forward neurons, which are normally distributed",
        "threshold*ms",
        default=0.0,
        least=0,
    )

    def n_inputs(self, trial: TrialConfig, stored: tuple[int, ...] | None) -> int:
        """X."""
        return self.n_neurons

    def check(self, config: Config) -> None:
        """At most one spike a step."""
        if self.mean * config.trial.dt > 1000:
            raise UserError(f"feedforward.mean={self.mean:g} Hz: expected at most {1000 / config.trial.dt:g}, a spike a step.")


@dataclasses.dataclass(frozen=True)
class GivenFeedforwardConfig(FeedforwardConfig):
    """Poisson neurons with rates from a file, from stim_off on."""

    name: str = variant("feed-forward neurons", "given")
    path: str = key(
        "file (.npy or .zarr) of rates of the feed-forward neurons [C, M, X] in Hz, with one row for each learning bin", path=True
    )
    before: bool = key(
        "true: feed-forward neurons also fire before trial.stim_off, at their first rates, so that the network can reach the state in"
        " which the target begins",
        default=False,
    )
    strength: float = key(
        "standard deviation of the initial weights of feed-forward neurons, which are normally distributed",
        "threshold*ms",
        default=0.0,
        least=0,
    )

    def n_inputs(self, trial: TrialConfig, stored: tuple[int, ...] | None) -> int:
        """X of the rates."""
        from rlsnet.io import zarr_store

        return int((stored or zarr_store.open_plain(self.path, "feedforward.path", ["C", trial.n_points, "X"]).shape)[2])


@dataclasses.dataclass(frozen=True)
class TrialConfig(Section):
    """Times of one trial. Every time is a multiple of dt."""

    dt: float = key("time step of the simulation (Euler)", "ms", default=0.1, source=ARTHUR, above=0)
    stim_on: float = key("start of the stimulus, from the start of the trial", "ms", default=800.0, source=ARTHUR, least=0, steps=True)
    stim_off: float = key(
        "end of the stimulus and start of learning, from the start of the trial", "ms", default=1000.0, source=ARTHUR, least=0, steps=True
    )
    learn_every: float = key(
        "time between learning points, which is also the bin of targets and PSTHs; it must equal the bin of a recording",
        "ms",
        default=10.0,
        source=ARTHUR,
        above=0,
        steps=True,
    )
    duration: float = key(
        "length of the learned part of a trial, from trial.stim_off on", "ms", default=1000.0, source=ARTHUR, above=0, steps=True
    )

    def check(self, config: Config) -> None:
        """Order of the times, and a whole number of learning points."""
        if self.stim_on > self.stim_off:
            raise UserError(f"trial.stim_on={self.stim_on:g} ms: expected a time that is not after trial.stim_off={self.stim_off:g} ms.")
        if self.stim_off < self.dt:
            raise UserError(f"trial.stim_off={self.stim_off:g} ms: expected at least one step (trial.dt={self.dt:g} ms).")
        if not is_multiple(self.duration, self.learn_every):
            near = max(1, round(self.duration / self.learn_every)) * self.learn_every
            raise UserError(
                f"trial.duration={self.duration:g} ms: expected a multiple of trial.learn_every={self.learn_every:g} ms, such as {near:g}."
            )

    def check_length(self) -> None:
        """Raises UserError if a trial has more steps than can be counted."""
        if (steps := (self.stim_off + self.duration) / self.dt) > MOST:
            raise UserError(f"trial.dt={self.dt:g} ms: makes {steps:.3g} steps of a trial; expected at most {MOST:,}.")

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
        """Steps simulated between two samples of the currents: 1 ms, or less where that does not divide learn_every."""
        most = max(1, self.steps(1.0))
        return max(size for size in range(1, most + 1) if self.every % size == 0)

    @property
    def n_steps(self) -> int:
        """Steps of a trial, T."""
        return self.steps(self.stim_off + self.duration)


class TargetConfig(Variant):
    """Target of learning. A target with `recorded = "rate"` or `"current"` receives the recording with that array."""

    name: str
    recorded: ClassVar[str | None] = None
    n_conditions: int = 1  # conditions C of a target without a recording
    euler_correction: bool = False  # whether the transfer function is that of simulated neurons


@dataclasses.dataclass(frozen=True)
class SinusoidTargetConfig(TargetConfig):
    """Sinusoid amplitude*sin(2 pi (t - phase)/period) around the mean static current of each neuron, plus a common bias."""

    name: str = variant("kind of target", "sinusoid")
    amplitude: float = key("amplitude of the target current", "threshold", default=0.5, source=ARTHUR)
    period: float = key("period of the target current", "ms", default=1000.0, source=ARTHUR, above=0)
    n_conditions: int = key("number of conditions (C), each with its own phases of the target currents", default=1, source=ARTHUR, least=1)
    bias: str = key(
        "current added to the targets of all neurons: zero; ou, an Ornstein-Uhlenbeck process from 0 at the start of the trial, one per"
        " condition;"
        " ramp, from 0 at stim_off to ramp_height at the end",
        default="zero",
        choices=("zero", "ou", "ramp"),
    )
    bias_mean: float = key("mean of the bias current b, for target.bias=ou", "threshold", default=0.0, source=TSN)
    bias_tau: float = key("correlation time of the bias current, for target.bias=ou", "ms", default=400.0, source=TSN, above=0)
    bias_sigma: float = key(
        "amplitude of the fluctuations of the bias current, for target.bias=ou: db = (bias_mean - b)/bias_tau dt + bias_sigma dW",
        "threshold/sqrt(ms)",
        default=0.02,
        source=TSN,
        least=0,
    )
    ramp_height: float = key("bias current at the end of the trial, for target.bias=ramp", "threshold", default=0.25, source=TSN)

    def check(self, config: Config) -> None:
        """Correlation time of the bias, where there is one."""
        if self.bias == "ou":
            check_decay("target.bias_tau", self.bias_tau, config.trial.dt)


@dataclasses.dataclass(frozen=True)
class RecordingTargetConfig(TargetConfig):
    """Recorded rates turned into currents by the inverse transfer function; units and bins that are NaN are not trained."""

    recorded: ClassVar[str | None] = "rate"
    name: str = variant("kind of target", "recording")
    rate_floor: float = key("lowest rate that is converted to a current; lower recorded rates are raised to it", "Hz", default=0.1, above=0)
    euler_correction: bool = key(
        "true: convert rates with the transfer function of simulated neurons, with their time step and refractory period; false: with"
        " that of continuous time, as published",
        default=True,
    )


@dataclasses.dataclass(frozen=True)
class CurrentsTargetConfig(TargetConfig):
    """Recorded synaptic currents (array `current` [C, M, N] in recording.path), used as they are."""

    recorded: ClassVar[str | None] = "current"
    name: str = variant("kind of target", "currents")


@dataclasses.dataclass(frozen=True)
class RecordingConfig(Section):
    """Source of recorded rates or currents."""

    path: str | None = key(
        "path of a recording.zarr, made by rlsnet import; null: for target=recording, synthetic data of 66,002 units, made once",
        default=None,
        path=True,
    )
    half: str | None = key(
        "trials of each unit to train on, odd or even; rlsnet test compares with the other half; null: train on all trials",
        default=None,
        choices=("odd", "even"),
    )
    excitatory: str | None = key(
        "expression that selects the excitatory units, such as 'waveform_duration > 0.4'; other units are inhibitory, or unknown if"
        " recording.inhibitory is given too; null: from the column cell_class or, without it, at random within each region",
        default=None,
    )
    inhibitory: str | None = key(
        "expression that selects the inhibitory units; other units are excitatory, or unknown if recording.excitatory is given too",
        default=None,
    )

    def check(self, config: Config) -> None:
        """Checks that recording.half is used with recorded rates only, and rules of cell classes with a recording only."""
        if self.half is not None and config.target.recorded != "rate":
            raise UserError(f"recording.half={self.half}: expected null with target={config.target.name}, which takes no rates.")
        for name in ("excitatory", "inhibitory"):
            rule, no_recording = getattr(self, name), config.target.recorded is None
            if rule is not None and (no_recording or config.network.load is not None):
                why = f"target={config.target.name}, which has no recording" if no_recording else "network.load, which has its own classes"
                raise UserError(f"recording.{name}={rule}: expected null with {why}.")


@dataclasses.dataclass(frozen=True)
class RLSConfig(Section):
    """Recursive least squares."""

    penlambda: float = key(
        "ridge penalty on the plastic weights; with smaller values, each update changes the weights more",
        default=0.8,
        source=ARTHUR,
        above=0,
    )
    penmu: ByClass = key(
        "penalty on the sum of the excitatory and on the sum of the inhibitory weights of each neuron", default=0.01, source=ARTHUR, least=0
    )
    penlam_ff: float = key("ridge penalty on the weights of feed-forward neurons", default=1.0, source=TSN, above=0)
    forgetting: float = key(
        "forgetting factor per update; 1: no forgetting; below 1, P grows without limit for inputs without spikes",
        default=1.0,
        source=ARTHUR,
        above=0,
        most=1,
    )
    gain: str = key(
        "gain of the weight update: textbook (den*k), or tsn_head (k), as in TrainSpikingNet.jl since March 2024",
        default="textbook",
        source=ARTHUR,
        choices=("textbook", "tsn_head"),
    )
    regressors: str = key(
        "regressors of the update: spikes, the filtered spikes of the inputs; rates, filtered rates computed from the currents of the"
        " inputs with the transfer function, without the noise of single spikes; auto: rates if the neuron model has such a function",
        default="spikes",
        choices=("spikes", "rates", "auto"),
    )
    every: int = key("number of learning points from one RLS update to the next; 1: an update at each", default=1, least=1)
    correct_current: bool = key(
        "true: after an update the plastic current is recomputed with the new weights, as in FORCE learning (Sussillo & Abbott 2009);"
        " false: new weights act on later spikes only, as published",
        default=False,
    )
    dale: bool = key(
        "true: Dale's law; plastic weights from excitatory neurons stay positive, and those from inhibitory neurons negative", default=False
    )
    apply: bool = key("false: compute all updates but keep P and the weights unchanged, to measure the time", default=True)
    method: str = key(
        "algorithm of the update, with the same result: dense writes P at each update, deferred about once in 16 updates; auto: the"
        " faster one",
        default="auto",
        choices=("auto", "dense", "deferred"),
    )
    storage: str = key(
        "how P is stored: full; packed, its upper triangle, half the memory; window, the inputs of the last rls.window updates, from"
        " which P is computed",
        default="full",
        choices=("full", "packed", "window"),
    )
    precision: str = key(
        "number type in which P is stored; auto: that of engine.precision, in which all sums are computed",
        default="auto",
        choices=("auto", "float64", "float32", "bfloat16", "float16", "int16"),
    )
    window: int = key("number of updates that are kept, for rls.storage=window", default=64, least=1)

    def check(self, config: Config) -> None:
        """Checks that the number type can represent P, and that settings are possible with rls.storage=window."""
        if self.precision == "float16" and min(self.penlambda, self.penlam_ff) < 2e-5:
            raise UserError("rls.precision=float16: expected another with penalties below 2e-5, for which P starts above 65504.")
        if self.precision == "float64" and config.engine.precision != "float64":
            raise UserError("rls.precision=float64: expected another unless engine.precision=float64, in which sums would be as exact.")
        if self.every > config.trial.n_points:
            raise UserError(f"rls.every={self.every}: expected at most {config.trial.n_points}, the learning points of a trial.")
        if self.regressors == "rates":
            check_transfer_formula(config.neuron, "rls.regressors=rates")
        if self.storage == "window":
            for name, value, wanted in (
                ("precision", self.precision, "auto"),
                ("forgetting", self.forgetting, 1),
                ("method", self.method, "auto"),
            ):
                if value != wanted:
                    raise UserError(f"rls.{name}={value}: expected {wanted} with rls.storage=window, which keeps no P.")


@dataclasses.dataclass(frozen=True)
class TrainConfig(Section):
    """The training loop."""

    iterations: int = key("total number of iterations; in a continued run, the earlier ones are included", default=100, least=1)
    trials_per_update: int = key(
        "number of trials of one condition that are simulated side by side with the same weights (B); each update uses the mean of"
        " their filtered spikes and of their errors",
        default=1,
        least=1,
    )
    neurons: str | None = key(
        "neurons that are trained, as of perturb.neurons; null: all. The others keep their initial weights, and a test predicts their"
        " recorded rates",
        default=None,
        items=True,
    )
    fraction: float = key("share of those neurons that is trained, drawn with the seed", default=1.0, above=0, most=1)
    conditions: tuple[str, ...] | None = key(
        "names of the conditions that are trained, such as [left, right]; null: all. A test simulates and scores the others too",
        default=None,
    )
    order: str = key(
        "order in which conditions are trained: in_turn; shuffled, in a new order each round; weighted, drawn with the probabilities"
        " train.weights",
        default="in_turn",
        choices=("in_turn", "shuffled", "weighted"),
    )
    weights: tuple[float, ...] | None = key("relative frequency of each trained condition, for train.order=weighted", default=None, least=0)
    checkpoint_every: int = key("number of iterations between two checkpoints; the last iteration always has one", default=10, least=1)
    keep_checkpoints: int | None = key(
        "number of newest checkpoints that are kept, in addition to the best one; null: all",
        default=3,
        least=1,
    )
    save_best: bool = key("true: also keep the weights with the best validation score", default=True)
    validate_every: int = key(
        "number of iterations between two validations, in which trials with frozen weights are compared with the training data; 0: no"
        " validation",
        default=20,
        least=0,
    )
    validation_trials: int = key("number of trials per condition in a validation", default=4, least=1)
    stop_when: int | None = key(
        "stop training when the validation score has not increased for this number of iterations; null: never", default=None, least=1
    )

    @property
    def validates(self) -> bool:
        """Whether a training of `iterations` has at least one validation."""
        return 0 < self.validate_every <= self.iterations

    def check(self, config: Config) -> None:
        """Checks that train.weights is given if, and only if, train.order=weighted, and that something is trained."""
        check_neurons("train.neurons", self.neurons)
        if self.conditions == ():
            raise UserError("train.conditions=[]: expected at least one name, or null for all conditions.")
        if self.order == "weighted" and not any(self.weights or ()):
            given = "null" if self.weights is None else list(self.weights)
            raise UserError(f"train.weights={given}: expected a number for each condition, one above 0 at least, for train.order=weighted.")
        if self.order != "weighted" and self.weights is not None:
            raise UserError(f"train.order={self.order}: expected weighted, as train.weights is given.")
        if self.stop_when is not None and not 0 < self.validate_every <= self.stop_when:
            raise UserError(
                f"train.stop_when={self.stop_when}: expected at least train.validate_every={self.validate_every}, which must be above 0."
            )


@dataclasses.dataclass(frozen=True)
class TestConfig(Section):
    """Trials with frozen weights."""

    __test__ = False  # not a test class of pytest
    trials: int = key("number of test trials per condition", default=10, least=1)
    neurons: str | None = key(
        "neurons whose results are stored: [0,5,17], 0:100, exc, inh, region:NAME or region:NAME&inh, or a filter as in perturb.neurons;"
        " null: all neurons",
        default=None,
        items=True,
    )
    checkpoint: str = key(
        "weights that are tested: best (by validation), last, the number of an iteration, or the path of a checkpoint, also of"
        " another run; auto: best if there is one, else last",
        default="auto",
        path=True,
    )
    spikes: bool = key("true: store all spikes of the test trials", default=True)
    untrained_trials: int = key(
        "number of trials per condition with the initial weights, as a baseline where rates were recorded; at most test.trials; 0: none",
        default=10,
        least=0,
    )

    def check(self, config: Config) -> None:
        """A checkpoint and neurons that can be read."""
        if not re.fullmatch(r"auto|last|best|\d+|.*(/|\\|\.zarr).*", self.checkpoint):
            raise UserError(
                f"test.checkpoint={self.checkpoint}: expected auto, last, best, an iteration such as 100, or a path such as"
                " RUN/checkpoints/000100.zarr."
            )
        check_neurons("test.neurons", self.neurons)


@dataclasses.dataclass(frozen=True)
class WatchConfig(Section):
    """Training while an experiment runs: its messages, its trials, and what is done after each of them."""

    source: str | None = key(
        "where the messages of the experiment come from: an address, a folder that grows, or a stream.zarr to repeat, like rlsnet watch"
        " SOURCE RUN",
        default=None,
        path=True,
    )
    align: str = key("name of the marker at time 0 of a trial, such as line1 for the first TTL line", default="line1")
    start: float = key("start of the learned part of a trial, from the marker; it ends trial.duration later", "ms", default=0.0)
    conditions: dict[str, str] | None = key(
        "expression of markers that selects the trials of each condition, such as watch.conditions.left=line2; null: one condition of all"
        " trials",
        default=None,
        texts=True,
    )
    regions: dict[str, str] | None = key(
        "brain region of the units of each stream, such as watch.regions.ProbeA=ALM, or watch.regions.all=ALM for a source with one clock;"
        " null: unknown",
        default=None,
        texts=True,
    )
    kernel: str = smoothing_kernel()
    sigma: float = smoothing_width()
    trial_start: str | None = key(
        "name of the marker that starts a trial, before watch.align; null: a trial has the markers since the end of the one before",
        default=None,
    )
    trial_end: str | None = key(
        "name of the marker at which a trial is complete; null: a trial is complete when its time has passed", default=None
    )
    settle: float = key("time after a trial in which late spikes still count", "ms", default=100.0, least=0)
    iterations: int = key("largest number of iterations of training after a trial", default=10, least=1)
    keep_up: bool = key(
        "true: training after a trial ends when the next one is complete, and trials that wait are only recorded; false: all iterations"
        " are done, however late",
        default=True,
    )
    prior_trials: float = key(
        "number of trials n_0 that the mean rate of a unit counts for: after n trials the target is (n PSTH + n_0 mean)/(n + n_0)",
        default=5.0,
        least=0,
    )
    lost: float = key(
        "a unit whose silence is less likely than this, by its mean rate, is taken for lost, and its target stays as it was; 0: never",
        default=1e-6,
        least=0,
        most=0.1,
    )
    retarget: bool = key(
        "true: weights follow a change of the targets at once, by least squares; false: by further training alone", default=True
    )
    models: int = key(
        "number of networks that learn side by side, with the seeds seed, seed + 1, ...; their spread tells how certain a prediction is",
        default=1,
        least=1,
        most=64,
    )
    perturbations: str | None = key(
        "YAML file with perturbations whose effects are predicted after each trial: a section like perturb under each name",
        default=None,
        path=True,
    )
    prediction_trials: int = key("number of trials per condition with which each effect is predicted", default=4, least=2)
    publish: str | None = key("address of a ZeroMQ publisher for the results of each trial, such as tcp://127.0.0.1:5560", default=None)
    warm_start: str | None = key(
        "run whose network and weights are the start, such as that of the day before or of pooled sessions; units with the same keys keep"
        " their neurons",
        default=None,
        path=True,
    )

    def check(self, config: Config) -> None:
        """Checks what the names of files and conditions can be."""
        if self.conditions == {}:
            raise UserError("watch.conditions={}: expected at least one condition, or null for one of all trials.")
        if self.publish is not None and not re.fullmatch(r"(tcp|ipc)://.+", self.publish):
            raise UserError(f"watch.publish={self.publish}: expected an address such as tcp://127.0.0.1:5560.")
        if self.align in (self.trial_start, self.trial_end):
            raise UserError(f"watch.align={self.align}: expected another marker than watch.trial_start and watch.trial_end.")


class PerturbConfig(Variant):
    """What a test with frozen weights changes: some neurons in time windows, or the cue of the conditions."""

    name: str


@dataclasses.dataclass(frozen=True)
class NoPerturbConfig(PerturbConfig):
    """No perturbation."""

    name: str = variant("perturbation", "none")


@dataclasses.dataclass(frozen=True)
class ChangedConfig(PerturbConfig, abc.ABC):
    """Settings of all perturbations: the name of the result, and the recorded trials that it is compared with."""

    label: str | None = key(
        "name of the result, which is stored in perturbed/LABEL.zarr; null: the name of the perturbation, followed by _2 and so on where"
        " another perturbation has it",
        default=None,
    )
    compare: dict[str, str] | None = key(
        "recorded conditions with the same perturbation, by the condition that they are compared with, such as"
        " {left: left_silenced}; they belong to the recording of the run, and train.conditions leaves them out of training",
        default=None,
    )

    @property
    def result(self) -> str:
        """Name under which the result is stored."""
        return self.label or self.name

    def check(self, config: Config) -> None:
        """A label that can be the name of a file."""
        if not re.fullmatch(r"\w[\w.-]*", self.result):
            raise UserError(f"perturb.label={self.label}: expected letters, digits, and . _ or - between them.")


@dataclasses.dataclass(frozen=True)
class WindowConfig(ChangedConfig, abc.ABC):
    """Settings of perturbations of neurons: which neurons, and the time windows."""

    neurons: str | None = key(
        "neurons that are perturbed: [0,5,17], 0:100, exc, inh, region:NAME or region:NAME&inh, or a filter by columns of the recording,"
        " such as \"region == 'ALM' and excitatory and depth > 500\"; null: all neurons",
        default="exc",
        items=True,
    )
    fraction: float = key(
        "fraction of perturb.neurons that is perturbed, drawn at random with the seed; a larger fraction contains the neurons of a smaller"
        " one",
        default=1.0,
        above=0,
        most=1,
    )
    start: float | None = key(
        "start of the perturbation, from the start of the trial; null: after a third of the learned part of the trial",
        "ms",
        default=None,
        least=0,
        steps=True,
    )
    stop: float | None = key(
        "end of the perturbation, from the start of the trial; null: after two thirds of the learned part of the trial",
        "ms",
        default=None,
        above=0,
        steps=True,
    )
    window: tuple[float, float] | tuple[tuple[float, float], ...] | None = key(
        "start and end of the perturbation in the time of the recording, such as [-0.5, 0.2] s from the event that trials are aligned to;"
        " instead of perturb.start and perturb.stop; without a recording, from the start of the trial. Several windows:"
        " [[-1.2, -0.8], [-0.5, 0.2]]",
        "s",
        default=None,
    )

    def steps(self, trial: TrialConfig, trial_start: float = 0.0) -> tuple[tuple[int, int], ...]:
        """(start, stop) of each window in whole steps of a trial, in order; where null, at the edge of a learning bin.

        Args:
          trial: times of the trial.
          trial_start: start of the simulated trial, in s of the time of the recording.

        Raises:
          UserError: perturb.window is not within the trial, not in order, or not in whole time steps.
        """
        if self.window is not None:
            return window_steps(self.window, trial, trial_start)
        off, points = trial.steps(trial.stim_off), trial.n_points
        start = off + points // 3 * trial.every if self.start is None else trial.steps(self.start)
        return ((start, off + -(-2 * points // 3) * trial.every if self.stop is None else trial.steps(self.stop)),)

    def check(self, config: Config) -> None:
        """A window within the trial, and neurons and a label that can be read."""
        super().check(config)
        trial = config.trial
        check_neurons("perturb.neurons", self.neurons)
        end = trial.stim_off + trial.duration
        for name, value in (("start", self.start), ("stop", self.stop)):
            if value is not None and value > end:
                raise UserError(f"perturb.{name}={value:g} ms: expected a time within the trial, which ends at {end:g} ms.")
        if self.window is not None:
            if self.start is not None or self.stop is not None:
                raise UserError("perturb.window: expected either the window, or perturb.start and perturb.stop.")
            return  # compared with the trial when the time of the recording is known
        ((start, stop),) = self.steps(trial)
        if start >= stop:
            raise UserError(f"perturb.start={start * trial.dt:g} ms: expected a time before perturb.stop={stop * trial.dt:g} ms.")


def window_steps(window: tuple[Any, ...], trial: TrialConfig, trial_start: float) -> tuple[tuple[int, int], ...]:
    """(start, stop) in whole steps of one window (start, end) in s, or of several; arguments and errors as of `WindowConfig.steps`."""
    windows = window if window and isinstance(window[0], tuple) else (window,)
    end, before, found = trial_start + (trial.stim_off + trial.duration) / 1000, -math.inf, []
    pairs = ",".join(f"[{each[0]:g},{each[1]:g}]" for each in windows)
    given = f"perturb.window={pairs if len(windows) == 1 else f'[{pairs}]'}"
    for each in windows:
        if not (trial_start - 1e-9 <= each[0] < each[1] <= end + 1e-9):
            where = f"a start before an end, within the trial, which lasts from {trial_start:g} to {end:g} s"
            raise UserError(f"{given}: expected {where}.")
        if each[0] < before:
            raise UserError(f"{given}: expected windows in the order of time that do not overlap.")
        before, times = each[1], tuple(round((time - trial_start) * 1000, 6) for time in each)
        check_steps("perturb.window", times, trial.dt)
        found.append((trial.steps(times[0]), trial.steps(times[1])))
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class CueConfig(ChangedConfig):
    """Another cue than in training: the stimulus stronger, weaker, absent or at another time, or the inputs of other conditions."""

    name: str = variant("perturbation", "cue")
    cue: str | None = key(
        "condition whose stimulus and feed-forward rates all trials receive, or a mixture, such as 0.3*left+0.7*right, whose shares sum to"
        " 1; null: those of each condition itself",
        default=None,
    )
    factor: float = key("factor of the stimulus; 0: no stimulus", default=1.0)
    window: tuple[float, float] | None = key(
        "start and end of the stimulus in the time of the recording, from its event; without a recording, from the start of the trial."
        " null: as in training",
        "s",
        default=None,
    )
    inputs: str = key(
        "inputs that are those of perturb.cue; feed-forward rates also tell a network the condition, throughout the trial",
        default="both",
        choices=("both", "stimulus", "feedforward"),
    )

    def steps(self, trial: TrialConfig, trial_start: float = 0.0) -> tuple[int, int]:
        """(start, end) of the stimulus in whole steps; arguments and errors as of `WindowConfig.steps`."""
        if self.window is None:
            return trial.steps(trial.stim_on), trial.steps(trial.stim_off)
        return window_steps(self.window, trial, trial_start)[0]

    def mixture(self, names: Sequence[str]) -> dict[int, float]:
        """Share of each condition in the cue by its index; {} if each condition has its own. Raises UserError for another condition."""
        if self.cue is None:
            return {}
        if self.cue in names:
            return {list(names).index(self.cue): 1.0}
        shares: dict[int, float] = {}
        for term in self.cue.split("+"):
            share, times, name = (part.strip() for part in term.partition("*"))
            if not times or name not in names or not re.fullmatch(r"\d*\.?\d+", share) or list(names).index(name) in shares:
                expected = f"one of {', '.join(names)}, or shares of them such as 0.5*{names[0]}+0.5*{names[-1]}"
                raise UserError(f"perturb.cue={self.cue}: expected {expected}.")
            shares[list(names).index(name)] = float(share)
        if abs(sum(shares.values()) - 1) > 1e-6:
            raise UserError(
                f"perturb.cue={self.cue}: the shares sum to {sum(shares.values()):g}; expected 1. A stronger cue: perturb.factor."
            )
        return shares


@dataclasses.dataclass(frozen=True)
class SilenceConfig(WindowConfig):
    """Neurons held at the reset potential, without spikes, as by a strong shunt. For weaker silencing, excite with a strength below 0."""

    name: str = variant("perturbation", "silence")


@dataclasses.dataclass(frozen=True)
class GradedConfig(WindowConfig, abc.ABC):
    """Settings of perturbations with a strength, which may differ between windows and between neurons and change within a window."""

    ramp_up: float = key(
        "time at the start of each window in which the strength rises from 0, linearly", "ms", default=0.0, least=0, steps=True
    )
    ramp_down: float = key(
        "time at the end of each window in which the strength falls to 0, linearly, as that of light in experiments without rebound",
        "ms",
        default=0.0,
        least=0,
        steps=True,
    )
    scale: tuple[float, ...] | None = key(
        "factor of the strength in each window, such as [0.25, 0.5, 1] for three windows; null: 1", default=None
    )
    values: str | None = key(
        "file with the strength of each neuron, in place of one strength: a .npy of N numbers, or a .csv or .tsv with columns neuron and"
        " value; other neurons than the listed ones are not perturbed",
        default=None,
        path=True,
    )

    @property
    @abc.abstractmethod
    def amount(self) -> float | tuple[float, ...]:
        """Strength of all neurons, or one of each."""

    def check(self, config: Config) -> None:
        """One source of strengths; factors and ramps are compared with the windows when these are known."""
        super().check(config)
        if self.values is not None and isinstance(self.amount, tuple):
            raise UserError(f"perturb.values={self.values}: expected null, as there is a list of values already.")


@dataclasses.dataclass(frozen=True)
class ExciteConfig(GradedConfig):
    """A current in addition to all other input; below 0 it inhibits."""

    name: str = variant("perturbation", "excite")
    strength: float | tuple[float, ...] = key(
        "current into each perturbed neuron, which may be negative; a list has one number for each perturbed neuron, or for each neuron of"
        " the network",
        "threshold",
        default=0.5,
    )

    @property
    def amount(self) -> float | tuple[float, ...]:
        """The current, threshold units."""
        return self.strength


@dataclasses.dataclass(frozen=True)
class ClampConfig(GradedConfig):
    """Poisson spikes whatever the input; the potential is held at reset."""

    name: str = variant("perturbation", "clamp")
    rate: float | tuple[float, ...] = key(
        "rate of the Poisson spikes of each perturbed neuron, at most one spike per time step; a list has one number for each perturbed"
        " neuron, or for each neuron of the network",
        "Hz",
        default=10.0,
        least=0,
    )

    @property
    def amount(self) -> float | tuple[float, ...]:
        """The rate, Hz."""
        return self.rate

    def check(self, config: Config) -> None:
        """At most one spike a step, and no factor below 0."""
        super().check(config)
        highest = max(self.rate, default=0.0) if isinstance(self.rate, tuple) else self.rate
        highest *= max(self.scale or (1.0,))
        if highest * config.trial.dt > 1000:
            raise UserError(f"perturb.rate={highest:g} Hz: expected at most {1000 / config.trial.dt:g}, a spike a step.")
        if min(self.scale or (1.0,)) < 0:
            raise UserError(f"perturb.scale={list(self.scale or ())}: expected factors of at least 0 for rates.")


@dataclasses.dataclass(frozen=True)
class EngineConfig(Section):
    """Device, precision and backend of the computation."""

    platform: str = key("where to compute; auto: on a GPU if JAX finds one", default="auto", choices=("auto", "cpu", "gpu"))
    precision: str = key("number type of the simulation", default="float32", choices=("float32", "float64"))
    kernels: str = key(
        "code that computes the inner loops: native (C++, for CPUs), cuda (for NVIDIA GPUs; on a CPU a slow emulation for tests), xla,"
        " fixed_shape (XLA for GPUs); auto: the fastest one",
        default="auto",
        choices=("auto", "native", "cuda", "xla", "fixed_shape"),
    )
    devices: int | None = key(
        "number of devices over which the neurons are divided, of all processes together; null: all that JAX finds", default=1, least=1
    )
    coordinator: str | None = key(
        "HOST:PORT of process 0, where several processes compute one network together, each started with the same settings and its own"
        " engine.process; slurm: srun has started them",
        default=None,
    )
    processes: int | None = key("number of processes, for engine.coordinator=HOST:PORT", default=None, least=1)
    process: int | None = key("number of this process, from 0, for engine.coordinator=HOST:PORT", default=None, least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Configuration of an experiment. `Config()` is the experiment sinusoid."""

    seed: int = key("random seed of connectivity, target phases, stimulus, initial voltages and noise", default=1, least=0, most=2**63 - 1)
    resume: str | None = key(
        "folder of a run to continue, like rlsnet train RUN; auto: continue the run in hydra.run.dir if it has a checkpoint, else start it",
        default=None,
        path=True,
    )
    run: str | None = key("folder of a run to test, like rlsnet test RUN", default=None, path=True)
    sweep: str | None = key(
        "folder of a sweep over settings with several values, such as rls.penlambda=.4,.8; the same command again continues the sweep",
        default=None,
        path=True,
    )
    tracking: str = key(
        "service to which metrics and scores are sent, in addition to the files in the run folder",
        default="none",
        choices=("none", "tensorboard", "wandb", "mlflow"),
    )
    resources_every: float = key(
        "interval at which the use of processor, memory and GPU is written to resources.jsonl; 0: never",
        "s",
        default=10.0,
        least=0,
    )
    progress: str = key(
        "how progress is shown: rich (a bar), plain (lines) or off; auto: rich on a terminal, plain elsewhere",
        default="auto",
        choices=("auto", "rich", "plain", "off"),
    )
    plugins: tuple[str, ...] = key("Python modules, or paths of .py files, with models of your own", default=(), path=True, paths=True)
    trust: bool = key("true: run the plugins that the config.yaml of a run names, this time and in future", default=False)
    network: NetworkConfig = NetworkConfig()
    neuron: NeuronConfig = LIFConfig()
    synapse: SynapseConfig = SynapseConfig()
    static: StaticConfig = FixedDegreeConfig()
    plastic: PlasticConfig = RandomInputsConfig()
    feedforward: FeedforwardConfig = NoFeedforwardConfig()
    noise: NoiseConfig = NoiseConfig()
    background: BackgroundConfig = BackgroundConfig()
    stimulus: StimulusConfig = OUStimulusConfig()
    trial: TrialConfig = TrialConfig()
    target: TargetConfig = SinusoidTargetConfig()
    recording: RecordingConfig = RecordingConfig()
    rls: RLSConfig = RLSConfig()
    train: TrainConfig = TrainConfig()
    test: TestConfig = TestConfig()
    watch: WatchConfig = WatchConfig()
    perturb: PerturbConfig = NoPerturbConfig()
    engine: EngineConfig = EngineConfig()

    def __repr__(self) -> str:
        """The call that makes this configuration, with what differs from the most similar experiment."""
        from rlsnet.config import differences, load

        return f"rlsnet.compose({', '.join(map(repr, differences.command(load.to_dict(self))))})"

    def check(self) -> None:
        """Checks every section; raises UserError."""
        names = ["trial", *(field.name for field in dataclasses.fields(self) if field.name != "trial")]  # the others rely on its times
        sections = {name: getattr(self, name) for name in names if isinstance(getattr(self, name), Section)}
        for name, section in sections.items():
            section.check_numbers(name, self.engine.precision)
        self.trial.check_length()
        for name, section in sections.items():
            section.check_times(name, self.trial.dt)
        for section in sections.values():
            section.check(self)
