"""Compiles a training iteration for an NVIDIA GPU on a machine without one: kernels, loops, memory, and whether P changes in place.

    python scripts/gpu/ahead_of_time.py config=mouse_decision_published engine.kernels=fixed_shape
    python scripts/gpu/ahead_of_time.py config=million plastic.group_size=128 --json million.json

The settings are those of `rlsnet train`. Large arrays are given by their shapes only, and the recording is not read: it counts as one
of the size of the synthetic recording. The program needs the packages PLUGIN and, without a CUDA toolkit on PATH, those of TOOLKIT, but no
driver. XLA cannot time kernels here, so where it would choose the fastest of several forms of one, it takes its default.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from rlsnet.api import compose
from rlsnet.config.schema import Config, FixedDegreeConfig
from rlsnet.data.synthetic import CONDITIONS, N_UNITS
from rlsnet.errors import UserError
from rlsnet.io.formatting import byte_size
from rlsnet.kernels.device import restrict_to_cpu
from rlsnet.learning import rls
from rlsnet.learning.iteration import iterate
from rlsnet.model import build
from rlsnet.model.network import Network
from rlsnet.simulation import trial
from rlsnet.simulation.state import TRAINING, Dynamics, TrialKeys
from rlsnet.workflows.training import with_rate_table

PLUGIN = ("jax-cuda13-plugin", "jax-cuda13-pjrt")  # in the version of jax
TOOLKIT = ("nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-nvrtc")  # NVRTC is for engine.kernels=cuda
MAX_EDGES = 10**8  # static synapses that are drawn; of more, only the shape is known
INTERVAL, UPDATE, STEPS = "_learn_from", "update_if", "block"  # functions of rlsnet that make the loops of these names
NOT_STARTED = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "add-dependency", "opt-barrier"}

# An XLA GpuTargetConfigProto. The versions within gpu_device_info decide which operations may become part of a CUDA graph. The description
# is what JAX returns as the version of the platform, in which rlsnet looks for CUDA.
H100 = """
    platform_name: "CUDA" device_description_str: "NVIDIA H100 80GB HBM3 (CUDA)"
    runtime_version { major: 13 minor: 0 patch: 0 } dnn_version_info { major: 9 minor: 10 }
    gpu_device_info {
        cuda_compute_capability { major: 9 minor: 0 }
        driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0"
        core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98 threads_per_warp: 32
        threads_per_block_limit: 1024 threads_per_core_limit: 2048 registers_per_block_limit: 65536 registers_per_core_limit: 65536
        block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
        shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
        l2_cache_size: 52428800 memory_bandwidth: 3352320000000 device_memory_size: 84929347584
    }
"""
TARGETS = {"h100": H100}


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop of a compiled program, or the whole program.

    function: Python function that makes the loop.
    turns: number of turns; None: unknown to the compiler, so the host reads after each turn whether another follows.
    started: operations (kernels, copies, custom calls) that one turn starts, without those of inner loops.
    custom_calls: targets of the custom calls among them.
    inner: loops within a turn.
    """

    function: str
    turns: int | None
    started: int
    custom_calls: tuple[str, ...]
    inner: tuple[Loop, ...]

    @property
    def total(self) -> int:
        """Operations that one turn starts, with those of all turns of inner loops; loops with unknown turns count as one turn."""
        return self.started + sum((loop.turns or 1) * loop.total for loop in self.inner)

    def loops(self) -> Iterator[Loop]:
        """This loop and all loops in it."""
        yield self
        for loop in self.inner:
            yield from loop.loops()

    def find(self, function: str) -> Loop | None:
        """The first loop in this one, or this one, that a function makes."""
        return next((loop for loop in self.loops() if loop.function == function), None)

    def lines(self, depth: int = 0) -> Iterator[str]:
        """This loop and all loops in it as a list, in Markdown."""
        turns = "turns read by the host" if self.turns is None else f"{self.turns} turn{'s' * (self.turns > 1)}"
        custom = f", custom calls {', '.join(self.custom_calls)}" if self.custom_calls else ""
        yield f"{'  ' * depth}- `{self.function}`: {turns} of {self.started} operations{custom}"
        for loop in self.inner:
            yield from loop.lines(depth + 1)


@dataclasses.dataclass(frozen=True)
class Summary:
    """What an iteration compiles to.

    backend: forms of delivery and update.
    program: operations and loops of the whole iteration.
    in_place: arrays of the learner whose memory also holds the result, such as w and P.numbers.
    P: bytes of P.
    memory: bytes by XLA's analysis: arguments, outputs, aliased (of both), temporary.
    seconds: s, duration of the compilation.
    """

    backend: str
    program: Loop
    in_place: tuple[str, ...]
    P: int
    memory: dict[str, int]
    seconds: float

    @property
    def interval(self) -> Loop:
        """The loop over learning intervals."""
        return next(loop for loop in self.program.loops() if loop.function == INTERVAL)

    def row(self) -> dict[str, str]:
        """The figures as a row of a table."""
        steps, update, loops = self.interval.find(STEPS), self.interval.find(UPDATE), list(self.program.loops())[1:]
        return {
            "backend": self.backend,
            "a step": str(steps.started) if steps else "no loop",
            "an interval itself": str(self.interval.started),
            "an update": str(update.total) if update else "in the interval",
            "an interval in all": f"{self.interval.total:,}",
            "loops (turns read by the host)": f"{len(loops)} ({sum(loop.turns is None for loop in loops)})",
            "custom calls": ", ".join(sorted({name for loop in self.program.loops() for name in loop.custom_calls})) or "none",
            "in place": ", ".join(self.in_place) or "nothing",
            "P": byte_size(self.P),
            **{name: byte_size(size) for name, size in self.memory.items()},
            "compilation": f"{self.seconds:.0f} s",
        }


def device_of(target: str) -> jax.Device:
    """A GPU that programs can be compiled for, but not run on; raises UserError if a package is missing."""
    needed = {name: f"{name}=={jax.__version__}" for name in PLUGIN} | {name: name for name in TOOLKIT if not shutil.which("ptxas")}
    if not all(any(metadata.distributions(name=name)) for name in needed):
        raise UserError(f"to compile for a GPU: pip install --no-deps {' '.join(needed.values())}")
    return topologies.get_topology_desc(target, "cuda", target_config=TARGETS[target], topology="1x1x1").devices[0]


def network_of(config: Config) -> Network:
    """The network of an experiment; the targets of its static synapses are given by their shape only if they are many."""
    n, static = config.network.n_neurons or N_UNITS, config.static
    if not isinstance(static, FixedDegreeConfig) or static.n_edges(n) <= MAX_EDGES:
        return with_rate_table(config, build.build(config, n).network)
    few = dataclasses.replace(config, static=dataclasses.replace(static, out_degree=2))
    post = jax.ShapeDtypeStruct((static.n_edges(n),), jnp.int32)
    network = dataclasses.replace(build.build(few, n).network, static_width=static.out_degree, post=post)
    return with_rate_table(config, network)


def arguments_of(config: Config) -> tuple[Any, ...]:
    """Arguments of `iterate` after its settings, as shapes."""
    network = network_of(config)
    w = jax.ShapeDtypeStruct((*network.pre.shape, network.group_size), network.bias.dtype)
    learner = jax.eval_shape(lambda network, w: rls.init(config.rls, network, w), network, w)
    recorded, trials = config.target.recorded, config.train.trials_per_update
    conditions = len(CONDITIONS) if recorded else config.target.n_conditions
    target = jax.ShapeDtypeStruct((conditions, config.trial.n_points, network.n_neurons), network.bias.dtype)
    rates = jax.ShapeDtypeStruct((conditions, network.n_neurons), network.bias.dtype) if recorded == "rate" else None
    numbers = jax.ShapeDtypeStruct((trials,) if trials > 1 else (), jnp.int32)
    return network, learner, target, TrialKeys.create(config.seed, TRAINING), numbers, jnp.int32(0), rates


def summary(*overrides: str, target: str = "h100") -> Summary:
    """Compiles an iteration for a GPU and reads from the program what it does.

    Before JAX is used for the first time, call `restrict_to_cpu`.

    Args:
      overrides: settings as for rlsnet train.
      target: GPU, a key of TARGETS.

    Raises:
      UserError: a setting is not allowed, or a package is missing.
    """
    config, device = compose(*overrides), device_of(target)
    with jax.enable_x64(config.engine.precision == "float64"):
        with jax.default_device(jax.devices("cpu")[0]):
            arguments = arguments_of(config)
        place = SingleDeviceSharding(device)
        arguments = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=place), arguments)
        with jax.default_device(device):  # from which rlsnet chooses the forms for GPUs
            dynamics = Dynamics.from_config(config)
            compiled, seconds = trial.compiled(iterate, dynamics, config.rls, *arguments)
    text, found, learner = compiled.as_text(), compiled.memory_analysis(), arguments[1]
    sizes = {"arguments": "argument", "outputs": "output", "aliased": "alias", "temporary": "temp"}
    return Summary(
        f"{dynamics.backend.delivery}, {dynamics.backend.update}",
        program_of(text),
        in_place(text, learner),
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(learner.P)),
        {name: getattr(found, f"{kind}_size_in_bytes") for name, kind in sizes.items()},
        seconds,
    )


def in_place(text: str, learner: rls.Learner) -> tuple[str, ...]:
    """Names of the learner's arrays that a compiled program changes in place; they are the first of its results."""
    header = text.split("\n", 1)[0]
    aliased = {int(index) for index in re.findall(r"\{(\d+)\}: \(\d+, \{\}, \w+-alias\)", header)}
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in jax.tree_util.tree_leaves_with_path(learner)]
    return tuple(name for index, name in enumerate(names) if index in aliased)


def program_of(text: str) -> Loop:
    """Operations and loops of a compiled program, from its text (HLO)."""
    bodies = dict(re.findall(r"^(?:ENTRY )?%([\w.-]+) \(.*\{\n((?:  .*\n)*)\}", text, re.MULTILINE))
    functions = function_names(text)

    def operations(computation: str) -> Iterator[tuple[str, str]]:
        """Kind and line of each operation of a computation, with those of computations that it calls and of all branches."""
        for line in bodies[computation].splitlines():
            operation = re.match(r" +(?:ROOT )?%\S+ = (?:\(.*?\)|\S+) ([a-z][\w-]*)\(", line)
            if operation is None or operation[1] in NOT_STARTED or operation[1].endswith("-done"):
                continue
            if operation[1] != "call":
                yield operation[1], line
            if operation[1] in ("call", "conditional"):
                for branches in re.findall(r"(?:to_apply|true_computation|false_computation|branch_computations)=(%[\w.-]+|\{.*?\})", line):
                    for branch in re.findall(r"%([\w.-]+)", branches):
                        yield from operations(branch)

    def loop(line: str) -> Loop:
        turns, frame = re.search(r'"known_trip_count":\{"n":"(\d+)"', line), re.search(r"stack_frame_id=(\d+)", line)
        found = [*operations(re.findall(r"body=%([\w.-]+)", line)[0])]
        if turns is None:  # the condition is computed in each turn
            found += operations(re.findall(r"condition=%([\w.-]+)", line)[0])
        return collected(functions.get(frame[1], "?") if frame else "?", int(turns[1]) if turns else None, found)

    def collected(function: str, turns: int | None, found: list[tuple[str, str]]) -> Loop:
        custom = tuple(re.findall(r'custom_call_target="([^"]+)"', "\n".join(line for _, line in found)))
        inner = tuple(loop(line) for kind, line in found if kind == "while")
        return Loop(function, turns, len(found) - len(inner), custom, inner)

    return collected("iterate", 1, [*operations(re.findall(r"^ENTRY %([\w.-]+)", text, re.MULTILINE)[0])])


def function_names(text: str) -> dict[str, str]:
    """Python function of each stack frame of a compiled program, without the functions around it."""
    names = dict(re.findall(r'^(\d+) "([^"]+)"$', text.partition("\nFunctionNames\n")[2].partition("\n\n")[0], re.MULTILINE))
    places = dict(re.findall(r"^(\d+) \{file_name_id=\d+ function_name_id=(\d+) ", text, re.MULTILINE))
    frames = re.findall(r"^(\d+) \{file_location_id=(\d+) ", text, re.MULTILINE)
    return {frame: names[places[place]].rsplit(".", 1)[-1] for frame, place in frames}


def main() -> None:
    """Compiles an iteration with the settings of the command line and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="+", help="as for rlsnet train")
    parser.add_argument("--target", choices=sorted(TARGETS), default="h100")
    parser.add_argument("--json", type=Path, help="file for all figures")
    options = parser.parse_intermixed_args()
    restrict_to_cpu()
    try:
        found = summary(*options.settings, target=options.target)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    rows = {"settings": f"`{' '.join(options.settings)}`", "jax": jax.__version__, "GPU": options.target, **found.row()}
    print("\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items()), "", *found.program.lines()]))
    if options.json:
        about = {"settings": options.settings, "jax": jax.__version__, "target": options.target}
        options.json.write_text(json.dumps(about | dataclasses.asdict(found), indent=1) + "\n")


if __name__ == "__main__":
    main()
