"""Breaks rlsnet in many ways and counts what it says: damaged files, damaged sources, wrong command lines, extreme values, kills.

    python scripts/robustness.py                     # everything, an hour or less on two cores; writes docs/robustness.md
    python scripts/robustness.py --quick             # at most 20 cases of each part, a few minutes; writes nothing
    python scripts/robustness.py damage --cases 200  # at most 200 cases of a part, drawn at random
    python scripts/robustness.py damage --show       # damaged files of a run only, with a line for each case
    python scripts/robustness.py --only config.yaml  # cases whose name contains this text

Each case runs `rlsnet` in a process of its own, forked from one that has imported it, in a copy of a small run that was trained and
tested before. The outcome of a case is one of

    said        status above 0 and one line with the reason, or a warning that names the file
    harmless    status 0, and the results equal those of the intact files, to the bit
    no checksum an imported source in a format without checksums, of which other numbers were read
    SILENT      status 0, and other results
    TRACEBACK   a traceback, a warning of NumPy or no reason
    HANG        no end within the time limit

The status of this program is 1 if there is any case in capitals.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import datetime
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import robustness_cases as cases

warnings.filterwarnings("ignore", "os.fork")  # the process that forks has started no JAX backend
LIMIT = 180.0  # s, of one command
OUTCOMES = ("said", "harmless", "no checksum", "SILENT", "TRACEBACK", "HANG")
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["robustness_cases", "rlsnet.workflows.testing", "rlsnet.cli.hydra_app", "rlsnet.cli.commands.report", "rlsnet.cli.commands.export",
     "rlsnet.analysis.inspect", "rlsnet.analysis.plots.run_figures", "rlsnet.data.importing", "hydra"]
)  # fmt: skip
ROOT = Path(__file__).parents[1]


def _main(arguments: Sequence[str], folder: str) -> None:
    """What the forked process does: what `rlsnet ARGUMENTS` does in a folder, with its output in files there."""
    os.chdir(folder)
    os.setpgid(0, 0)
    for name, number in ((".out", 1), (".err", 2)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = os.fdopen(os.dup(1), "w"), os.fdopen(os.dup(2), "w", buffering=1)
    sys.argv = ["rlsnet", *arguments]
    with contextlib.suppress(AttributeError):
        del sys.modules["__main__"].__file__
    warnings.resetwarnings()
    from rlsnet.cli.main import main

    main()


@dataclasses.dataclass(frozen=True)
class Ended:
    """A command that has ended: its status (None: it was stopped after LIMIT) and what it printed."""

    status: int | None
    out: str
    err: str

    @property
    def bad(self) -> str:
        """HANG or TRACEBACK, or nothing."""
        if self.status is None:
            return "HANG"
        one_line = self.status == 0 or re.search("^rlsnet: error: .", self.err, re.MULTILINE)
        numpy = re.search("RuntimeWarning|DeprecationWarning|ComplexWarning", self.err)
        return "TRACEBACK" if "Traceback (most recent call last)" in self.err or numpy or not one_line else ""


def command(folder: Path, arguments: Sequence[str], kill_after: float | None = None) -> Ended:
    """Runs a command in a folder; with `kill_after`, SIGKILL after so many seconds."""
    process = FORKS.Process(target=_main, args=(tuple(arguments), str(folder)))
    process.start()
    process.join(kill_after or LIMIT)
    status = process.exitcode
    if status is None and process.pid is not None:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        status = -signal.SIGKILL if kill_after else None
    out, err = ((folder / name).read_text(errors="replace") if (folder / name).exists() else "" for name in (".out", ".err"))
    return Ended(status, out, err)


def outcome(ends: Sequence[Ended], same: bool, word: str = "", other: str = "SILENT") -> str:
    """Outcome of a case.

    Args:
      ends: its commands, up to the first that has failed.
      same: whether the results equal those of the intact files.
      word: text that a warning about the damage contains.
      other: outcome for other results that nothing was said about.
    """
    if bad := next((end.bad for end in ends if end.bad), ""):
        return bad
    if ends[-1].status or (word and any(word in end.err for end in ends)):
        return "said"
    return "harmless" if same else other


@dataclasses.dataclass
class Part:
    """Cases of one kind in the table: its title, the outcomes, and lines about those in capitals."""

    title: str
    outcomes: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    @property
    def n(self) -> int:
        """Number of cases."""
        return sum(self.outcomes.values())

    def row(self) -> str:
        """Row of the table."""
        return f"| {self.title} | {self.n} | " + " | ".join(str(self.outcomes[each] or "") for each in OUTCOMES) + " |"


class Robustness:
    """The cases that are asked for, and their outcomes."""

    def __init__(self, options: argparse.Namespace, folder: Path):
        self.options, self.folder = options, folder
        self.parts: dict[str, Part] = {}
        self.notes: list[str] = []
        self.pool = ThreadPoolExecutor(options.jobs)

    def wanted(self, names: Iterable[str]) -> list[str]:
        """Those of the names that `--only` selects, at most as many as `--cases`."""
        chosen, most = [name for name in names if self.options.only in name], self.options.cases
        return chosen if most is None or len(chosen) <= most else random.Random(0).sample(chosen, most)

    def run(self, titles: dict[str, str], one: Callable[[str, Path], tuple[str, str]]) -> None:
        """Runs cases.

        Args:
          titles: title of the part for each name of a case.
          one: called with the name and an empty folder; returns the outcome, and a line of what was said.
        """

        def timed(name: str) -> tuple[str, str, str]:
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            try:
                return name, *one(name, folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

        for title in titles.values():
            self.parts.setdefault(title, Part(title))
        for number, (name, result, line) in enumerate(self.pool.map(timed, titles), 1):
            if number % 50 == 0 or number == len(titles):
                print(f"{number} of {len(titles)} cases", file=sys.stderr, flush=True)
            self.parts[titles[name]].outcomes[result] += 1
            if self.options.show or result.isupper():
                print(f"{result:11} {name}: {line[:300]}", flush=True)

    def damage(self) -> None:
        """Damaged files of a run and its recording."""
        good = cases.make_run(self.folder / "good", command)
        uses = sorted({cases.use_of(file) for file in cases.files(good)})

        def twice(number: int) -> dict[str, str]:
            """Results of the intact files, which two runs give alike."""
            both = []
            for name in ("a", "b"):
                copy = cases.copy_of(good, self.folder / f"{name}{number}")
                ends = [command(copy, arguments) for arguments in uses[number]]
                assert not any(end.status for end in ends), f"{uses[number]}: {ends[-1].err}"
                both.append(cases.results(copy, uses[number], ends))
            unequal = [name for name in both[0] if both[0][name] != both[1].get(name)]
            assert not unequal, f"{uses[number]}: differ without any damage: {unequal}"
            return both[0]

        expected = dict(zip(uses, self.pool.map(twice, range(len(uses))), strict=True))
        damages = cases.damages(good)

        def one(name: str, folder: Path) -> tuple[str, str]:
            file, change = damages[name]
            copy, use, ends = cases.copy_of(good, folder / "x"), cases.use_of(file), list[Ended]()
            change(copy / file)
            for arguments in use:
                ends.append(command(copy, arguments))
                if ends[-1].status != 0:
                    break
            same = ends[-1].status == 0 and cases.results(copy, use, ends) == expected[use]
            result, page = outcome(ends, same, cases.words(file)), copy / "run" / "report.html"
            if result == "SILENT" and page.exists() and re.search(cases.words(file) + ".{,40}(damaged|missing)", page.read_text()):
                return "said", "on the page"  # in place of a figure
            return result, last_line(ends)

        names = self.wanted(damages)
        self.run({name: f"damaged: {cases.kind(damages[name][0])}" for name in names}, one)

    def sources(self) -> None:
        """Damaged sources of import."""
        good = self.folder / "sources"
        commands = cases.make_sources(good)
        expected = {}
        for name, arguments in commands.items():
            ended = command(good, [*arguments, "out.zarr"])
            assert ended.status == 0, f"{name}: {ended.err}"
            expected[name] = cases.results(good, (arguments,), [ended])
            shutil.rmtree(good / "out.zarr")
        damages = cases.damages_of_sources(good, commands)

        def one(case: str, folder: Path) -> tuple[str, str]:
            name, file, change = damages[case]
            copy = cases.copy_of(good, folder / "x")
            change(copy / file)
            ended = command(copy, [*commands[name], "out.zarr"])
            same = ended.status == 0 and cases.results(copy, (commands[name],), [ended]) == expected[name]
            left = [each.name for each in copy.iterdir() if "out.zarr" in each.name and ended.status]
            return "SILENT" if left else outcome([ended], same, other="no checksum"), f"{left or ''} {last_line([ended])}"

        self.run(dict.fromkeys(self.wanted(damages), "damaged sources of import"), one)

    def lines(self) -> None:
        """Command lines with a mistake."""
        good = cases.make_run(self.folder / "good", command)
        wrong = cases.wrong_lines()

        def one(name: str, folder: Path) -> tuple[str, str]:
            copy = cases.copy_of(good, folder / "x")
            before = cases.listing(copy)
            ended = command(copy, wrong[name])
            changed = cases.listing(copy) != before
            lines = [line for line in ended.err.splitlines() if line.strip() and not line.startswith("rlsnet: error: ")]
            result = outcome([ended], False)
            if changed or (result == "said" and len(lines) > 0):
                result = "TRACEBACK" if lines else "SILENT"
            return result, f"{'files changed ' * changed}{last_line([ended])}{lines[:2] or ''}"

        self.run(dict.fromkeys(self.wanted(wrong), "wrong command lines"), one)

    def values(self) -> None:
        """Values at the edge of what numbers can hold."""

        def one(name: str, folder: Path) -> tuple[str, str]:
            ended = command(folder, ["train", *cases.SMALL, "train.iterations=1", "hydra.run.dir=x", name])
            return outcome([ended], ended.status == 0 and cases.finite(folder / "x")), last_line([ended])

        self.run(dict.fromkeys(self.wanted(cases.EDGES), "values at the edge of float32 and int32"), one)

    def kills(self) -> None:
        """SIGKILL at random moments: a training that is continued until it ends, and commands that write a file or folder."""
        settings = ["train", *cases.SMALL, "train.iterations=8", "train.checkpoint_every=1", "train.validate_every=2", "resume=auto"]
        whole, chance = self.folder / "whole", random.Random(1)
        whole.mkdir(exist_ok=True)
        for name in ("y", "x"):  # the first fills the caches
            start = time.perf_counter()
            assert command(whole, [*settings, f"hydra.run.dir={name}"]).status == 0
            seconds = time.perf_counter() - start
        expected, struck = cases.trained(whole / "x"), collections.Counter[str]()

        def training(name: str, folder: Path) -> tuple[str, str]:
            for _ in range(8):
                ended = command(folder, [*settings, "hydra.run.dir=x"], chance.uniform(0.05, 0.8) * seconds)
                struck["sent"] += 1
                if ended.status == 0:
                    break
                struck["struck"] += 1
            ended = command(folder, [*settings, "hydra.run.dir=x"])
            left = [path.name for path in (folder / "x").rglob("*.tmp")]
            same = ended.status == 0 and cases.trained(folder / "x") == expected and not left
            return outcome([ended], same), f"{left or ''} {last_line([ended])}"

        names = self.wanted([f"train {number}" for number in range(24)])
        self.run(dict.fromkeys(names, "kills of train, resumed until it ends"), training)
        if struck:
            self.notes.append(f"{struck['sent']} trainings were to be killed, {struck['struck']} were before they had ended.")
        self.writers(chance)

    def writers(self, chance: random.Random) -> None:
        """SIGKILL at random moments of commands that write a file or a folder: it is complete or not there."""
        good = cases.make_run(self.folder / "good", command)
        writers = cases.writers()
        results = {}
        for verb, (arguments, _) in writers.items():
            copy, start = cases.copy_of(good, self.folder / f"whole_{verb}"), time.perf_counter()
            ended = command(copy, arguments)
            assert ended.status == 0, f"{verb}: {ended.err}"
            results[verb] = time.perf_counter() - start, cases.results(copy, (arguments,), [ended])

        def writing(name: str, folder: Path) -> tuple[str, str]:
            verb = name.split()[0]
            arguments, written = writers[verb]
            copy = cases.copy_of(good, folder / "x")
            cases.remove(copy / written)
            ended = command(copy, arguments, chance.uniform(0.1, 1.1) * results[verb][0])
            if (copy / written).exists():
                found, whole = cases.results(copy, (arguments,), [ended]), results[verb][1]
                if found != whole and not (verb == "plot" and found.items() <= whole.items()):  # figures are written one by one
                    return "SILENT", "half written"
            cases.remove(copy / written)
            ended = command(copy, arguments)
            same = ended.status == 0 and cases.results(copy, (arguments,), [ended]) == results[verb][1]
            return outcome([ended], same), last_line([ended])

        names = self.wanted([f"{verb} {number}" for verb in writers for number in range(8)])
        self.run({name: "kills of import, export, report, plot, test" for name in names}, writing)

    def cost(self) -> None:
        """Time that checksums take."""
        self.notes.append(cases.checksum_cost(self.folder, 2000 if self.options.cases is None else 100))


def last_line(ends: Sequence[Ended]) -> str:
    """The error of the last command, or its last line."""
    lines = [line for line in ends[-1].err.splitlines() + ends[-1].out.splitlines() if line.strip()]
    errors = [line for line in lines if "rlsnet: error" in line]
    return errors[0] if errors else (lines or [""])[-1]


PARTS = ("cost", "damage", "sources", "lines", "values", "kills")


def main() -> None:
    """Runs the parts that are asked for, prints the table, and writes docs/robustness.md after a complete run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts", nargs="*", choices=[[], *PARTS], default=[], metavar="PART", help=f"of {', '.join(PARTS)}; all if none is given"
    )
    parser.add_argument("--cases", type=int, help="most cases of a part, drawn at random")
    parser.add_argument("--quick", action="store_const", const=20, dest="cases", help="20 cases of a part")
    parser.add_argument("--only", default="", help="cases whose name contains this text")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="commands at the same time")
    parser.add_argument("--show", action="store_true", help="a line for each case")
    options = parser.parse_args()
    os.environ.update(PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")]), COLUMNS="100")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="robustness-") as folder:
        os.environ.setdefault("RLSNET_CACHE", f"{folder}/cache")
        run = Robustness(options, Path(folder))
        for part in options.parts or PARTS:
            getattr(run, part)()
        run.pool.shutdown()
    minutes = (time.perf_counter() - start) / 60
    text = cases.page([part.row() for part in run.parts.values()], OUTCOMES, run.notes, minutes, options.jobs, datetime.date.today())
    print(text)
    if not (options.cases or options.only or options.parts):
        (ROOT / "docs" / "robustness.md").write_text(text)
    sys.exit(any(part.outcomes[each] for part in run.parts.values() for each in OUTCOMES if each.isupper()))


if __name__ == "__main__":
    main()
