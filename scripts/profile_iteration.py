"""Operations of one iteration that take longest: kernels on a GPU, operations of XLA on a CPU, from JAX's profiler.

    python scripts/profile_iteration.py config=tiny
    python scripts/profile_iteration.py config=mouse_decision trial.duration=100 --device gpu --trace trace

The settings are those of `rlsnet train`; a trial of 100 to 200 ms is enough, since a trace of millions of kernels takes gigabytes. The
own time of an operation leaves out the operations inside it. --trace keeps the trace, for TensorBoard or https://ui.perfetto.dev.
Needs jax 0.10 or newer.
"""

from __future__ import annotations

import argparse
import collections
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench_case import Case


class Event(NamedTuple):
    """An operation in a trace: its name, start and length, in ns."""

    name: str
    start: float
    length: float


def record(case: Case, folder: Path) -> None:
    """Writes a trace of one iteration of a case, the second, so that nothing is compiled in it."""
    import jax

    iterate, _ = case.compiled_iteration()
    jax.block_until_ready(iterate(0))
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # the trace is for the device
    with jax.profiler.trace(str(folder), profiler_options=options):
        jax.block_until_ready(iterate(1))


def timelines(folder: Path, device: str) -> Iterator[list[Event]]:
    """Events of each stream of a GPU or each thread of a CPU."""
    import jax

    for path in folder.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            if not plane.name.startswith("/device:GPU" if device == "gpu" else "/host:CPU"):
                continue
            for line in plane.lines:
                if device == "cpu":  # beside XLA's operations, a thread has events of the runtime
                    yield [Event(e.name, e.start_ns, e.duration_ns) for e in line.events if any(key == "hlo_op" for key, _ in e.stats)]
                elif line.name.startswith("Stream"):
                    yield [Event(e.name, e.start_ns, e.duration_ns) for e in line.events]


def own_times(events: Iterable[Event]) -> Iterator[tuple[str, float]]:
    """Name and own time, in ns, of each event of a timeline: its length without that of events inside it."""
    inside: list[tuple[Event, list[float]]] = []  # events that contain the present one, and the lengths of their inner events

    def close(until: float) -> Iterator[tuple[str, float]]:
        while inside and inside[-1][0].start + inside[-1][0].length <= until:
            event, lengths = inside.pop()
            yield event.name, event.length - sum(lengths)

    for event in sorted(events, key=lambda each: (each.start, -each.length)):
        yield from close(event.start)
        if inside:
            inside[-1][1].append(event.length)
        inside.append((event, []))
    yield from close(float("inf"))


def table(times: Iterable[tuple[str, float]], rows: int) -> str:
    """The operations with the largest sums of own time, largest first."""
    total: collections.Counter[str] = collections.Counter()
    count: collections.Counter[str] = collections.Counter()
    for name, ns in times:
        total[name] += ns
        count[name] += 1
    whole = sum(total.values())
    lines = [f"{whole / 1e6:.2f} ms in {sum(count.values()):,} operations", "  share         ms     count    us each  operation"]
    for name, ns in total.most_common(rows):
        lines.append(f"{ns / whole:7.1%} {ns / 1e6:10.3f} {count[name]:9,} {ns / count[name] / 1e3:10.2f}  {name[:90]}")
    return "\n".join(lines)


def main() -> None:
    """Profiles the iteration of the command line and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="+", help="as for rlsnet train")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--rows", type=int, default=25, help="of the table")
    parser.add_argument("--trace", type=Path, help="folder for the trace")
    options = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.trace or Path(scratch)
        case = Case(options.settings, options.device)
        record(case, folder)
        times = [pair for events in timelines(folder, options.device) for pair in own_times(events)]
    if not times:
        raise SystemExit(f"the trace has no operation of a {options.device}")
    print(f"{case.device}, backend {case.dynamics.backend.delivery}")
    print(table(times, options.rows))


if __name__ == "__main__":
    main()
