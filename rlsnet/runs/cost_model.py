"""Cost of a network on GPUs: least time and memory of an iteration, from sizes and from figures of a GPU and of its connections.

A time is a floor: bytes over the bandwidth of a copy (that of the second-level cache where it holds all that is passed over), atomic
additions over their rate, and barriers and launches at the cost of empty ones. Left out: latencies of reads that wait for each other,
arithmetic, and unequal loads. docs/performance.md and docs/clusters.md compare it with what was measured.

On one GPU, simulation is one launch for all steps of a learning interval. A step sends the spikes of the last one ("deliver": an atomic
addition for each target), moves all neurons ("move"), and waits for all blocks after each. B trials run side by side between the same two
barriers. Learning is one update for all B trials: a "sparse" one reads the rows of P of inputs that spiked in any of them, every Qth is
"dense" and reads and writes P, and "flush" writes it at the end of a trial. The rest of an interval are small kernels of XLA.

On several GPUs, each moves its own neurons and delivers to them, by kernels that are launched in each step ("launches"); all exchange their
spikes, one bit of each neuron, once in the shortest delay ("exchange"), and each unpacks those of all neurons ("unpack").
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from rlsnet.config.schema import Config, has_transfer_formula

FLOAT, SECTOR = 4, 32  # bytes of a number, and the least that memory gives
MOST_PENDING, STATE = 16, 20  # updates, and numbers of a neuron and trial, as in learning.deferred and in memory_plan
SMALL_KERNELS = 20  # of XLA in a learning interval, two of them the early delivery: counted in the compiled program
FIXED_KERNELS, FIXED_KERNEL = 13, 2.6e-6  # of a step of fixed_shape: counted; 34 us a step, mouse_decision_published on an H200
USABLE = 0.92  # share of a GPU's memory that JAX can be given
FLAGS = 3  # bytes of a presynaptic neuron that unpacking passes over in a step: written, and read by the search for spikes and by a sum


@dataclasses.dataclass(frozen=True)
class Links:
    """Connections between GPUs, in seconds and bytes: the model with which NCCL chooses how it computes an all-gather.

    The figures of latencies are those of NCCL's src/graph/tuning.cc, for a ring and the protocols LL and Simple: of an operation, of a step
    to a GPU of the same node (of LL 1.8 times as much if there are several nodes), and of one to another node. A ring has a step for each
    other GPU. LL sends a flag with each number, and takes a quarter of the bandwidth.
    """

    per_node: int = 8
    near_rate: float = 450e9  # bytes a second: NVLink of an H100 or H200 in one direction
    far_rate: float = 400e9  # of a node: 400 Gbit/s for each of its GPUs
    protocols: tuple[tuple[float, float, float, float, float], ...] = (
        (6.6e-6, 0.6e-6, 1.8, 2.7e-6, 0.25),
        (8.4e-6, 3.4e-6, 1.0, 14.0e-6, 1.0),
    )  # seconds of an operation and of a near step, factor of it with several nodes, seconds of a far step, share of the bandwidth

    def seconds(self, devices: int, size: float) -> float:
        """Time in which each of some devices gets `size` bytes, those of all devices together."""
        nodes, others = -(-devices // self.per_node), devices - 1

        def by(start: float, near: float, factor: float, far: float, share: float) -> float:
            rate = share * (self.near_rate if nodes == 1 else min(self.near_rate, self.far_rate))
            return start + (devices - nodes) * near * (factor if nodes > 1 else 1) + (nodes - 1) * far + size * others / devices / rate

        return min(by(*each) for each in self.protocols) if others else 0.0


@dataclasses.dataclass(frozen=True)
class Device:
    """Figures of a GPU, in bytes and seconds."""

    name: str
    source: str
    copy: float  # bytes a second, read and written
    cache: float  # the same within the second-level cache: 5,120 bytes a clock, NVIDIA's figure for the A100, taken for all
    atomics: float  # additions a second at random places within that cache
    far_atomics: float  # the same beyond it
    barrier: float  # of all blocks, one on each processor
    launch: float  # of a kernel: 2.1 us on an H100 (Hazy Research, "No Bubbles", 2025)
    processors: int
    l2: float
    memory: float
    kernels: float = FIXED_KERNELS * FIXED_KERNEL  # all launches of a step on several devices

    def like(self, name: str, copy: float, processors: int, clock: float, l2: float, memory: float) -> Device:
        """A GPU that was not measured: atomics in proportion to processors and clock, or to bandwidth; barrier and launch as here."""
        atomics = self.atomics * processors * clock / (self.processors * CLOCK)
        far = self.far_atomics * copy / self.copy
        return Device(name, "estimated", copy, 5120 * clock, atomics, far, self.barrier, self.launch, processors, l2, memory)


CLOCK = 1.98e9
MEASURED = "measured (benchmarks/gpu/h200-2026-11-27.md), but cache and launch"
H200 = Device("H200", MEASURED, 3.95e12, 5120 * CLOCK, 104.5e9, 17.1e9, 0.94e-6, 2.1e-6, 132, 63e6, 150e9)
COPY_SHARE = H200.copy / 4.8e12  # of the published peak bandwidth
DEVICES = {
    "a100": H200.like("A100", 2.0e12 * COPY_SHARE, 108, 1.41e9, 40e6, 80e9),
    "h100": H200.like("H100", 3.0e12, 132, CLOCK, 50e6, 80e9),
    "h200": H200,
    "b200": H200.like("B200", 8.0e12 * COPY_SHARE, 148, 1.965e9, 126e6, 180e9),
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes and rates of an experiment."""

    N: int  # neurons
    K: int = 0  # static outputs of a neuron
    L: int = 0  # plastic inputs from neurons
    S: int = 1  # neurons of a group
    X: int = 0  # feed-forward neurons, inputs of every group
    B: int = 1  # trials side by side
    C: int = 1  # conditions, for the memory of targets
    stored: int = 1  # 1: static edges in memory; 0: drawn again for each spike
    rate: float = 5.5  # Hz, mean rate of neurons
    x_rate: float = 0.0  # Hz, of feed-forward neurons
    dt: float = 0.1  # ms
    steps: int = 20_000  # of a trial
    block: int = 10  # steps between two writes of the filters
    points: int = 100  # learning points of a trial
    interval: int = 100  # steps between two
    every: int = 1  # learning points of an update
    share: float = -1.0  # of inputs that spiked since the last update; below 0: from the rates
    regressors: str = "spikes"  # or rates
    D: int = 1  # devices
    delay: int = 1  # steps of the shortest delay, after which devices exchange spikes

    @staticmethod
    def of(config: Config, n: int, conditions: int, **more: Any) -> Sizes:
        """Sizes of an experiment with `n` neurons and some conditions; `more` sizes and rates by name."""
        static, trial, fed = config.static, config.trial, config.feedforward
        rates = config.rls.regressors == "rates" or (config.rls.regressors == "auto" and has_transfer_formula(config.neuron))
        return Sizes(
            N=n,
            K=round(static.n_edges(n) / n) or int(getattr(static, "out_degree", 0)),
            L=config.plastic.n_inputs,
            S=config.plastic.group_size,
            X=fed.n_inputs(trial, None),
            B=config.train.trials_per_update,
            C=conditions,
            stored=int(getattr(static, "storage", "stored") == "stored"),
            x_rate=getattr(fed, "mean", 0.0),
            dt=trial.dt,
            steps=trial.n_steps,
            block=trial.block,
            points=trial.n_points,
            interval=trial.every,
            every=config.rls.every,
            regressors="rates" if rates else "spikes",
            delay=trial.steps(min(config.synapse.delays(trial.dt))),
            **more,
        )

    @property
    def own(self) -> int:
        """Neurons of a device."""
        return -(-self.N // self.D)

    @property
    def updates(self) -> int:
        """Updates of a trial."""
        return self.points // self.every

    @property
    def rounds(self) -> int:
        """Dense updates of a trial."""
        return -(-self.updates // MOST_PENDING)

    @property
    def Q(self) -> int:
        """Updates from one dense update to the next."""
        return -(-self.updates // self.rounds)

    @property
    def rows(self) -> float:
        """Share of the rows of P that a sparse update reads."""
        if self.regressors == "rates" or self.share >= 0:
            return 1.0 if self.regressors == "rates" else self.share
        seconds = self.B * self.every * self.interval * self.dt * 1e-3
        spiked = -self.L * math.expm1(-self.rate * seconds) - self.X * math.expm1(-self.x_rate * seconds)
        return spiked / max(self.L + self.X, 1)


def work(s: Sizes) -> dict[str, float]:
    """Spikes and atomic additions of a step on a device, and bytes of its delivery, its move, each kind of update, and the exchange."""
    own, fed = s.B * s.N * s.rate * s.dt * 1e-3, s.B * s.X * s.x_rate * s.dt * 1e-3
    static, plastic = own * s.K / s.D, own * s.L / s.D + fed * s.own
    filters = 3 if s.K else 1
    moved = filters + 4 + (filters + 4) / s.block  # filters, v, until, bias read, v written; at times filters written, r and sum updated
    width = s.L + s.X
    row = -(-s.own // s.S) * width * FLOAT  # a number of each input of each group
    others = 1 + 2 + 2 * s.S + 2  # a vector u written, g and w read and written, pre and x read
    return {
        "spikes": own + fed,
        "atomics": static + plastic,
        # list, r and count of a spike; post; out_slot of a group; w, of which at least a sector is read
        "deliver": FLOAT * (5 * (own + fed) + s.stored * static) + plastic * (FLOAT / s.S + max(FLOAT, SECTOR / s.S)),
        "move": s.B * s.own * (FLOAT * moved + 1),  # and a byte for the class
        "sparse": row * (s.rows * width + s.Q / 2 + others),
        "dense": row * (2 * width + s.Q + others),
        "flush": row * (2 * width + s.Q),
        "unpack": s.B * s.N * FLAGS if s.D > 1 else 0,
        "exchange": s.B * s.N / 8 * s.delay if s.D > 1 else 0,  # once in `delay` steps
    }


def presynaptic_bytes(sources: int, trials: int, ring: int) -> int:
    """Bytes on each of several devices of what it has of all presynaptic neurons.

    Args:
      sources: number of presynaptic neurons N+X.
      trials: trials side by side B.
      ring: steps whose spikes are kept because of delays; 0: none.
    """
    beginning, own = 9, 9  # where its static and plastic synapses begin, and its class; of a trial: filter, count and flag
    return (beginning + (own + (4 + ring if ring else 0)) * trials) * sources  # with a ring also a count, and a flag of each step


def memory(s: Sizes) -> dict[str, float]:
    """Bytes of a device by purpose: w with pre and out_slot, u with g; sources, what each device has of all presynaptic neurons."""
    width = s.L + s.X
    row = -(-s.own // s.S) * width * FLOAT
    static = s.own * s.K * s.stored * FLOAT
    state, targets = s.B * s.own * STATE * FLOAT, s.C * s.points * s.own * FLOAT
    parts: dict[str, float] = {
        "P": row * width,
        "w": row * (s.S + 2),
        "u": row * (s.Q + 1),
        "static": static,
        "state": state,
        "targets": targets,
    }
    return parts | ({"sources": presynaptic_bytes(s.N, s.B, s.delay if s.delay > 1 else 0)} if s.D > 1 else {})


def launches(s: Sizes) -> float:
    """Launches in a learning interval: XLA's kernels, the steps, and both kinds of update, one of which returns at once."""
    return SMALL_KERNELS + 1 + 2 / s.every


def times(d: Device, s: Sizes, links: Links = Links()) -> dict[str, float]:  # noqa: B008
    """Least seconds of a step and its parts, of an update, and of an iteration and its parts."""
    amount, held, filters = work(s), memory(s), 3 if s.K else 1

    def passing(size: float, room: float) -> float:
        return size / (d.cache if room <= d.l2 else d.copy)

    near = min(1.0, d.l2 / (s.own * filters * FLOAT))  # share of the currents of a trial that the cache holds; one trial after the other
    adding = amount["atomics"] * (near / d.atomics + (1 - near) / d.far_atomics)
    deliver = max(adding, passing(amount["deliver"], held["static"] + held["w"]))
    move = passing(amount["move"], s.B * s.own * FLOAT * (filters + 6))
    several = (
        {}
        if s.D == 1
        else {
            "launches": d.kernels,
            "unpack": passing(amount["unpack"], 2 * s.N),
            "exchange": links.seconds(s.D, amount["exchange"]) / s.delay,
        }
    )
    step = deliver + move + (sum(several.values()) if several else 2 * d.barrier)
    room = held["P"] + held["w"] + held["u"]
    sparse, dense, flush = (passing(amount[kind], room) for kind in ("sparse", "dense", "flush"))
    sparse, dense, flush = sparse + 2 * d.launch, dense + 2 * d.launch, flush + d.launch
    simulation = s.steps * step + (s.points + 1) * d.launch * (s.D == 1)
    learning = s.rounds * dense + (s.updates - s.rounds) * sparse + flush
    rest = s.points * SMALL_KERNELS * d.launch
    parts = {"deliver": deliver, "move": move, "barriers": 2 * d.barrier * (s.D == 1), **several, "step": step}
    parts |= {"sparse": sparse, "dense": dense, "flush": flush, "simulation": simulation, "learning": learning, "rest": rest}
    return parts | {"iteration": simulation + learning + rest}
