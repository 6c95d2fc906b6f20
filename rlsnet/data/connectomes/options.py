"""Settings of `rlsnet import-network`."""

from __future__ import annotations

import dataclasses

from rlsnet.config.schema import key

DEFAULT_INPUT = 100.0  # threshold*ms, about the sum of |weights| of the plastic inputs of a neuron by default, 20*sqrt(29) = 108


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of an import of a connectome: columns, signs, weights, and which synapses are plastic."""

    format: str = key(
        "format of the source; auto: by its ending and its content", default="auto", choices=("auto", "table", "npz", "sonata")
    )
    pre: str | None = key("column of presynaptic neurons; null: a usual name, such as pre, source or pre_root_id", default=None)
    post: str | None = key("column of postsynaptic neurons; null: a usual name, such as post, target or post_root_id", default=None)
    count: str | None = key(
        "column of numbers of synapses, or the like, that weights are proportional to; null: a usual name, such as syn_count", default=None
    )
    weight: str | None = key(
        "column of weights in threshold*ms, or in another unit that scale converts; negative ones are inhibitory; null: a usual name,"
        " such as weight",
        default=None,
    )
    delay: str | None = key("column of delays in ms; null: a usual name, such as delay", default=None)
    kind: str | None = key(
        "column that tells chemical from electrical synapses, which are left out; null: a usual name, such as type", default=None
    )
    transmitter: str | None = key(
        "column of transmitters, of the neurons or of the connections; null: a usual name, such as nt_type", default=None
    )
    sign: str | None = key(
        "column of signs, such as 1 and -1, or exc and inh, of the neurons or of the connections; null: a usual name, such as sign",
        default=None,
    )
    neuron_table: str | None = key(
        "table of the neurons (CSV, TSV or parquet file), which are then the neurons of the network, in its order; null: all neurons of the"
        " connections, sorted by name",
        default=None,
        path=True,
    )
    id: str | None = key("column of neuron_table with the names of the neurons; null: a usual name, such as root_id", default=None)
    type: str | None = key("column of neuron_table with their types; null: a usual name, such as cell_type", default=None)
    region: str | None = key("column of neuron_table with their regions; null: a usual name, such as region", default=None)
    columns: tuple[str, ...] | None = key("other columns of neuron_table to store as texts, such as [side, hemilineage]", default=None)
    neurons: str | None = key(
        "expression that selects neurons by their columns, and by inputs and outputs, their numbers of connections, such as"
        " \"region == 'AL_R' and outputs > 0\"; null: all",
        default=None,
    )
    connections: str | None = key(
        "expression that selects connections by their columns, and by those of the neurons with pre_ and post_ before the name, such as"
        " \"neuropil == 'AL_R' and pre_type != 'ORN'\"; null: all",
        default=None,
    )
    min_synapses: float | None = key(
        "smallest sum of numbers of synapses, or of |weights| before scale, of a connection that is imported", default=None, above=0
    )
    self_connections: bool = key("false: leave out connections of neurons with themselves", default=True)
    signs: dict[str, str] | None = key(
        "signs of transmitters: exc, inh or unknown, such as signs.GLUT=inh for the fly; others have those of the documentation",
        default=None,
    )
    sign_of: str = key(
        "neuron: all connections of a neuron have one sign, that of most of its synapses (Dale's law); connection: each connection has its"
        " own; weights that are negative keep their signs",
        default="neuron",
        choices=("neuron", "connection"),
    )
    unknown: str = key(
        "connections of unknown sign: refuse; draw: the sign of each such neuron is drawn; learn: they are plastic and start with weight 0,"
        " and learning finds weight and sign; drop: they are left out",
        default="refuse",
        choices=("refuse", "draw", "learn", "drop"),
    )
    fraction_excitatory: float = key("share of excitatory neurons among those of unknown sign", default=0.8, least=0, most=1)
    seed: int = key("random seed for unknown=draw and for plastic=FRACTION", default=0, least=0)
    rows: str = key(
        "what the rows of a sparse matrix are: presynaptic (pre) or postsynaptic (post) neurons", default="pre", choices=("pre", "post")
    )
    scale: float = key("factor from numbers of synapses or weights of the source to weights", "threshold*ms", default=1.0, above=0)
    normalise: str | None = key(
        "after scale, none; mean: one factor for all weights, so that the |weights| of the inputs of a neuron add up to input on average;"
        " each: a factor for each neuron, so that they add up to input; null: mean for numbers of synapses, none for weights",
        default=None,
        choices=("none", "mean", "each"),
    )
    input: float = key(
        "sum of the |weights| of the inputs of a neuron, for normalise",
        "threshold*ms",
        default=DEFAULT_INPUT,
        above=0,
        source="about that of the plastic inputs of the default network",
    )
    plastic: str | None = key(
        "which connections are plastic: none, all, a share of all that is drawn at random, such as 0.5, or an expression as of connections;"
        " the others are static; null: those that the source says are plastic, else none",
        default=None,
    )
    max_inputs: int | None = key(
        "largest number of plastic inputs of a neuron, the strongest ones; the others are static; null: no limit", default=None, least=1
    )
    overwrite: bool = key("true: replace an older network at OUT.zarr", default=False)
