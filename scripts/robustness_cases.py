"""The cases of scripts/robustness.py: a small run, sources of import, damages, command lines, and what the results of a command are."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import random
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

SMALL = ("config=tiny", "network.n_neurons=24", "static.out_degree=8", "plastic.n_inputs=4", "trial.stim_on=20", "trial.stim_off=40",
         "trial.duration=600", "trial.learn_every=20", "train.checkpoint_every=2", "train.validate_every=2", "train.validation_trials=1",
         "test.trials=2", "test.untrained_trials=1", "progress=off", "resources_every=0.3")  # fmt: skip
RECORDED = (*SMALL, "target=recording", "noise.sigma=0.3", "recording.path=r.zarr", "recording.half=odd")
RESUME = ("train", "resume=run", "train.iterations=5")
TEST = ("test", "run=run")
IMPORT = ("import", "spikes.npz", "r.zarr", "trials_table=trials.csv", "window=[-0.2,0.4]", "min_trials=1",
          "conditions.left=side=='left'", "conditions.right=side=='right'")  # fmt: skip
Change = Callable[[Path], Any]
Command = Sequence[str]


# the run


def spikes(units: int = 24, trials: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times in s and units of spikes, and starts of trials, of a simulated session."""
    random_numbers = np.random.default_rng(0)
    starts = 1 + 2.0 * np.arange(trials)
    count = 40 * trials * units
    times, labels = random_numbers.uniform(0, starts[-1] + 2, count), random_numbers.integers(units, size=count)
    order = np.argsort(times)
    return times[order], labels[order], starts


def write_trials(path: Path) -> None:
    """Writes a table of the trials of `spikes`."""
    rows = [f"{start},{start + 1},{('left', 'right')[k // 2 % 2]}" for k, start in enumerate(spikes()[2])]
    path.write_text("\n".join(["start_time,stop_time,side", *rows]) + "\n")


def make_run(folder: Path, command: Callable) -> Path:
    """A recording r.zarr, and a run that was trained on it and tested, in a folder; made once."""
    if not folder.exists():
        folder.mkdir()
        times, labels, _ = spikes()
        np.savez(folder / "spikes.npz", spike_times=times, spike_clusters=labels)
        write_trials(folder / "trials.csv")
        for arguments in (IMPORT, ("train", *RECORDED, "train.iterations=4", "hydra.run.dir=run"), TEST):
            ended = command(folder, arguments)
            assert ended.status == 0, f"{arguments}: {ended.err}"
    return folder


def files(good: Path) -> Iterator[str]:
    """Files of the run and its recording that are damaged."""
    for path in sorted(good.rglob("*")):
        name = path.relative_to(good).as_posix()
        kept = re.match(r"r\.zarr/|run/(network|test)\.zarr/|run/checkpoints/(000004|.*best)\.zarr/|run/(metrics|resources|config)\.", name)
        if path.is_file() and kept:
            yield name


def kind(file: str) -> str:
    """The kind of a damaged file, for the table."""
    part = "metadata" if file.endswith("zarr.json") else "chunks"
    for start, words in (("r.zarr", "recording"), ("run/network", "network"), ("run/test", "test"), ("run/checkpoints", "checkpoint")):
        if file.startswith(start):
            return f"{'best weights' if '.best.' in file else words}, {part}"
    return Path(file).name


def use_of(file: str) -> tuple[Command, ...]:
    """Commands that use a file, in order."""
    if file.startswith("r.zarr"):
        return ("info", "r.zarr"), ("plot", "r.zarr"), TEST
    if file.startswith("run/test"):
        return ("info", "run"), ("export", "run", "to=zarr", "out=x.zarr"), ("report", "run")
    if file.startswith("run/network"):
        return RESUME, TEST
    if ".best." in file:
        return (TEST,)
    return (RESUME,) if file.startswith("run/checkpoints") else (("info", "run"), ("report", "run"), RESUME)


def words(file: str) -> str:
    """What a warning about a file contains: its name, that of its array, or that of the file whose checksums it holds."""
    within = re.fullmatch(r".*\.zarr/(.*?)(/c/[\d/]*|/?zarr\.json)", file)
    return within[1] if within and within[1] else Path(file).name.replace(".crc32", ".jsonl")


# results


def contents(path: Path) -> dict[str, str]:
    """Digests of the arrays and attributes of a Zarr store, without versions, checksums and times."""
    import zarr

    root = zarr.open_group(str(path), mode="r")
    attributes = {
        name: value
        for name, value in root.attrs.items()
        if name not in ("versions", "machine", "metadata_crc32", "chunk_crc32c", "network_fingerprint", "config")
    }
    found = {"attributes": json.dumps(attributes, sort_keys=True)}
    for name, each in root.members(max_depth=None):
        found[name] = json.dumps(dict(each.attrs), sort_keys=True)
        if isinstance(each, zarr.Array):
            values = np.asarray(each[...])
            data = json.dumps(values.tolist()).encode() if values.dtype.kind in "TUO" else values.tobytes()
            found[name] += f"{values.dtype}{values.shape}{hashlib.sha256(data).hexdigest()}"
    return found


def trained(run: Path) -> dict[str, str]:
    """Newest checkpoint, best weights, metrics without durations, and settings of a run."""
    stores = [*sorted((run / "checkpoints").glob("0*[0-9].zarr"))[-1:], *(run / "checkpoints").glob("*.best.zarr"), run / "network.zarr"]
    found = {f"{path.name}/{name}": value for path in stores for name, value in contents(path).items()}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found["metrics"] = json.dumps([{name: value for name, value in line.items() if "seconds" not in name} for line in lines])
    return found | {"config": (run / "config.yaml").read_text()}


def results(folder: Path, use: Sequence[Command], ends: Sequence[Any]) -> dict[str, str]:
    """What some commands have written and printed, by name; `ends` are what they ended with."""
    found: dict[str, str] = {}
    for arguments, ended in zip(use, ends, strict=True):
        verb = arguments[0]
        if verb == "train":
            new = trained(folder / "run")
        elif verb == "info":
            new = {"info": "\n".join(line for line in ended.out.splitlines() if "on disk" not in line)}
        elif verb == "report":
            new = {"report": re.sub(r"[\d.]+ [kMG]?B|\d{4}-\d\d-\d\d[ T\d:]*", "", (folder / "run" / "report.html").read_text())}
        elif verb == "plot":
            pictures = sorted((folder / ("run/figures" if "run" in arguments else "r.figures")).glob("*.png"))
            new = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures}
        else:
            new = contents(folder / {"test": "run/test.zarr", "export": "x.zarr", "import": "out.zarr"}[verb])
        found |= {f"{verb}: {name}": value.replace(str(folder), "") for name, value in new.items()}
    return found


def listing(folder: Path) -> dict[str, int]:
    """Files of a folder and their sizes, without what a command that is refused may add to."""
    ignored = (".out", ".err", ".lock", "rlsnet.log", "resources.jsonl", "resources.crc32")
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ignored and path.parent.name != ".hydra")
    return {str(path): path.stat().st_size for path in files}


def remove(path: Path) -> None:
    """Deletes a file or a folder, if it exists."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def finite(run: Path) -> bool:
    """Whether all numbers of the newest checkpoint and the metrics of a run are finite."""
    import zarr

    root = zarr.open_group(str(sorted((run / "checkpoints").glob("0*[0-9].zarr"))[-1]), mode="r")
    arrays = all(np.isfinite(each[...]).all() for _, each in root.members(max_depth=None) if isinstance(each, zarr.Array))
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    return arrays and line["rate_hz"] is not None


# damages


def _written(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def _flipped(data: bytes, place: float, bit: int) -> bytes:
    """A file with one bit changed, at a place from 0 to 1."""
    at = int(place * len(data))
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] if data else data


def _zeroed(data: bytes, place: float, share: float) -> bytes:
    """A file with a range of zeros."""
    at, size = int(place * len(data)), max(1, int(share * len(data)))
    return data[:at] + bytes(len(data[at : at + size])) + data[at + size :]


def changes(name: str, n: int) -> dict[str, Change]:
    """Damages of a file, by name; among them n bit flips and n ranges of zeros, at places drawn for the file."""
    draw = random.Random(name)
    found: dict[str, Change] = {
        "deleted": Path.unlink,
        "empty": partial(_written, change=lambda data: b""),
        "cut to half": partial(_written, change=lambda data: data[: len(data) // 2]),
        "a byte short": partial(_written, change=lambda data: data[:-1]),
        "64 bytes more": partial(_written, change=lambda data: data + bytes(64)),
    }
    for number in range(n):
        found[f"flip {number}"] = partial(_written, change=partial(_flipped, place=draw.random(), bit=draw.randrange(8)))
        found[f"zeros {number}"] = partial(_written, change=partial(_zeroed, place=draw.random(), share=draw.random() / 4))
    return found


def damages(good: Path) -> dict[str, tuple[str, Change]]:
    """(file, change) of each case of a damaged run; most of files outside a Zarr store, least of chunks, whose use takes longest."""
    found = {}
    for file in files(good):
        for what, change in changes(file, 10 if ".zarr/" not in file else 2 if file.endswith("zarr.json") else 1).items():
            found[f"{file}, {what}"] = file, change
    return found


# sources of import


def make_sources(folder: Path) -> dict[str, Command]:
    """Writes a source in each format; returns the command that imports it, without the recording's name."""
    import example_sessions
    import h5py
    import pyarrow
    import zarr
    from pyarrow import parquet
    from scipy import io as scipy_io

    folder.mkdir()
    times, labels, starts = spikes(4)
    write_trials(folder / "trials.csv")
    rate = np.random.default_rng(1).uniform(1, 40, (2, 30, 4))
    np.save(folder / "rate.npy", rate)
    np.savez(folder / "rates.npz", rate=rate)
    np.savez_compressed(folder / "spikes.npz", spike_times=times, spike_clusters=labels)
    scipy_io.savemat(folder / "rate.mat", {"rate": rate})
    with h5py.File(folder / "rate.h5", "w") as file:
        file["rate"] = rate
    with h5py.File(folder / "spikes.h5", "w") as file:
        file["spike_times"], file["spike_clusters"] = times, labels
    with h5py.File(folder / "psth.jld2", "w", userblock_size=512) as file:
        file["psth"] = rate.transpose(0, 2, 1)
    with (folder / "psth.jld2").open("r+b") as stream:
        stream.write(b"HDF5-based Julia Data Format, version 0.1.1\x00 (Julia 1.10.4 64-bit linux)\x00")
    zarr.create_group(str(folder / "rate.zarr"), attributes={"bin_ms": 20.0}).create_array("rate", data=rate.astype("f4"))
    (folder / "rates.csv").write_text("a,b,c\n" + "".join(f"{x:.3f},{y:.3f},{z:.3f}\n" for x, y, z in rate[0, :, :3]))
    rows = "".join(f"{time:.6f},{unit}\n" for time, unit in zip(times, labels, strict=True))
    (folder / "spikes.csv").write_text("spike_times,spike_clusters\n" + rows)
    parquet.write_table(pyarrow.table({"spike_times": times, "spike_clusters": labels}), folder / "spikes.parquet")
    example_sessions.write_map(folder / "session.nwb", 0, 6, 60)
    for name in ("phy", "alf"):
        (folder / name).mkdir()
    np.save(folder / "phy" / "spike_times.npy", np.round(times * 30000).astype(np.uint64))
    np.save(folder / "phy" / "spike_clusters.npy", labels.astype(np.int32))
    (folder / "phy" / "params.py").write_text("n_channels_dat = 385\nsample_rate = 30000.\n")
    (folder / "phy" / "cluster_group.tsv").write_text("cluster_id\tgroup\n0\tgood\n1\tgood\n2\tmua\n3\tgood\n")
    write_trials(folder / "phy" / "trials.csv")
    np.save(folder / "alf" / "spikes.times.npy", times)
    np.save(folder / "alf" / "spikes.clusters.npy", labels)
    np.save(folder / "alf" / "_ibl_trials.intervals.npy", np.stack([starts, starts + 1], axis=1))
    rates, session = ["bin=20"], ["trials_table=trials.csv", "window=[-0.2,0.4]"]
    own = ["window=[-0.2,0.4]", "min_trials=1"]
    return {
        **{f"rate.{each}": ("import", f"rate.{each}", *rates) for each in ("npy", "mat", "h5", "zarr")},
        **{name: ("import", name, *rates) for name in ("rates.npz", "psth.jld2", "rates.csv")},
        **{f"spikes.{each}": ("import", f"spikes.{each}", *session) for each in ("npz", "h5", "csv", "parquet")},
        "session.nwb": ("import", "session.nwb", "align=go_start_times", "window=[-2,1]", "min_trials=1"),
        "phy": ("import", "phy", "align=start_time", *own),
        "alf": ("import", "alf", "align=intervals_0", *own),
    }


def damages_of_sources(good: Path, commands: Iterable[str]) -> dict[str, tuple[str, str, Change]]:
    """(source, file, change) of each case of a damaged source; at least 20 of each source."""
    found = {}
    for source in commands:
        inside = sorted(path for path in (good / source).rglob("*") if path.is_file()) if (good / source).is_dir() else [good / source]
        for path in inside:
            file = path.relative_to(good).as_posix()
            for what, change in changes(file, max(2, 8 // len(inside))).items():
                found[f"{file}, {what}"] = source, file, change
    return found


# command lines and values

VERBS: dict[str, tuple[str, ...]] = {
    "train": ("train", *RECORDED, "train.iterations=1", "hydra.run.dir=run"),
    "simulate": ("simulate", *RECORDED, "hydra.run.dir=sim"),
    "resume": RESUME,
    "test": TEST,
    "import": ("import", "spikes.npz", "out.zarr", "trials_table=trials.csv", "window=[-0.2,0.4]"),
    "plot": ("plot", "run"),
    "report": ("report", "run"),
    "compare": ("compare", "run", "run"),
    "info": ("info", "run"),
    "export": ("export", "run", "to=npz", "out=x"),
}
MISTAKES = (
    *("nothing=1", "trian.iterations=3", "=", "=3", "==", "a=b=c", "no.such.key=1", ".=1", "..=..", "seed.x=1", "--nothing", "--=1", "-"),
    *("[", "]", "{", "}", "x=[1,2", "x={a:1", "x='", 'x="', "x=${oc.env:HOME}", "x=${", "+x=1", "++x=1", "~nothing=1", "x@y=1", "@=1"),
    *("\x01=1", "naïve=1", "none.zarr", "/dev/null", "x=!!python/object/apply:os.system [id]"),
)
OF_TRAIN = (
    *("seed=x", "seed=-1", "seed=1.5", "seed=null", "seed=[1]", "seed=true", "seed=99999999999999999999", "train.iterations=0"),
    *("train.iterations=-1", "train.iterations=nan", "train.iterations=1e99", "static=null", "neuron=1", "perturb=true", "config=3"),
    *("target=1e3", "config=none", "neuron=[lif]", "neuron={name: lif}", "train=3", "trial.dt=0", "trial.dt=-0.1", "trial.dt=inf"),
    *("trial.dt=nan", "trial.dt=1s2", "rls.penlambda=0", "rls.storage=none", "network.load=none.zarr", "recording.path=none.zarr"),
    *("recording.path=", "test.neurons=[x]", "engine.precision=float16", "plugins=[none.py]", "plugins=none", "hydra/launcher=none"),
)


def wrong_lines() -> dict[str, Command]:
    """Command lines with a mistake, by name."""
    found = {f"{verb}: {text!r}": (*line, text) for verb, line in VERBS.items() for text in MISTAKES}
    found |= {f"{verb}: {text!r}": (*VERBS[verb], text) for verb in ("train", "simulate") for text in OF_TRAIN}
    for verb in ("train", "test", "import", "plot", "report", "compare", "info", "export"):
        found[f"{verb}: none"] = (verb, "no_such_place") if verb not in ("train", "test") else (verb, "run=no_such_place", "resume=no_such")
    return found | {"no command": ("nothing",), "option": ("--nothing",)}


EDGES = (
    *("noise.sigma=1e308", "noise.sigma=1e39", "noise.sigma=1e-320", "network.bias=1e39", "network.bias=[0.1,-1e39]", "stimulus.mean=1e39"),
    *("stimulus.sigma=1e200", "neuron.reset=-1e308", "neuron.reset=-1e18", "neuron.threshold=1e308", "neuron.threshold=1e18"),
    *("rls.penlambda=1e308", "rls.penlambda=1e-45", "rls.penlambda=1e18", "rls.penmu=1e39", "neuron.tau_m=1e308", "neuron.tau_m=1e15"),
    *("synapse.tau_plas=1e39", "synapse.tau_exc=1e300", "target.amplitude=1e39", "target.amplitude=1e18", "target.period=1e-30"),
    *("static.strength=1e39", "static.strength=1e17", "trial.dt=1e-9", "trial.dt=1e-300", "trial.duration=1e15", "trial.stim_off=1e300"),
    *("trial.learn_every=1e-9", "trial.learn_every=1e12", "train.iterations=10000000000", "static.out_degree=3000000000"),
    *("plastic.n_inputs=3000000000", "network.n_neurons=9000000000", "test.trials=3000000000", "resources_every=1e308"),
)


def writers() -> dict[str, tuple[Command, str]]:
    """Commands that write one file or folder, and where."""
    return {
        "import": ((*VERBS["import"],), "out.zarr"),
        "export": (("export", "run", "to=zarr", "out=x.zarr"), "x.zarr"),
        "report": (("report", "run"), "run/report.html"),
        "plot": (("plot", "run"), "run/figures"),
        "test": (TEST, "run/test.zarr"),
    }


def page(rows: Sequence[str], outcomes: Sequence[str], notes: Sequence[str], minutes: float, jobs: int, date: datetime.date) -> str:
    """docs/robustness.md."""
    from rlsnet.runs import resources
    from rlsnet.runs.folder import versions

    machine = resources.machine()
    made_with = ", ".join(f"{name} {version}" for name, version in versions().items())
    where = f"{machine['processor']}, {machine['cores']} cores, {platform.system()}"
    return f"""# Robustness

This page shows what rlsnet does when files are damaged, sources of an import are damaged, a command line is wrong, a value is extreme,
or a process is killed. `python scripts/robustness.py` makes it. Each case runs one command on a copy of a small run. The columns are the
possible outcomes:

| outcome | meaning |
|---|---|
| said | the command fails with one line that states the reason, or warns and names the file |
| harmless | the results equal those of the intact files, to the bit |
| no checksum | an imported source has a format without checksums, and other numbers were read |
| SILENT | the command succeeds, with other results |
| TRACEBACK | a traceback, a warning of NumPy, or no reason |
| HANG | no end within the time limit |

Outcomes in capitals are faults. There are none if their columns are empty.

{date}, {where}, {jobs} at a time, {minutes:.0f} min; {made_with}.

| cases | n | {" | ".join(outcomes)} |
|---|{"---|" * (len(outcomes) + 1)}
{chr(10).join(rows)}

{" ".join(notes)}
"""


def copy_of(good: Path, folder: Path) -> Path:
    """A copy of the files of a run, without what a command has printed."""
    return Path(shutil.copytree(good, folder, ignore=shutil.ignore_patterns(".out", ".err")))


def checksum_cost(folder: Path, megabytes: int) -> str:
    """Time to write and read a checkpoint's P with and without checksums, in words; medians of three."""
    import statistics
    import time

    import zarr

    from rlsnet.io import atomic, zarr_store

    block = np.random.default_rng(0).random((64, 2**17), np.float32) if megabytes >= 32 else np.ones((64, 2**10), np.float32)
    blocks = max(1, megabytes * 10**6 // block.nbytes)
    shape, seconds = (64 * blocks, block.shape[1]), {(way, what): [] for way in ("with", "without") for what in ("written", "read")}
    for repeat in range(3):
        for way in ("with", "without") if repeat % 2 else ("without", "with"):
            path, start = folder / "P.zarr", time.perf_counter()
            with atomic.replacing(path) as temporary:
                stored = zarr_store.create(
                    zarr.create_group(str(temporary)), "P", shape, "f4", ["a", "b"], compress=False, chunks=block.shape
                )
                if way == "without":
                    stored = zarr.create_array(str(temporary / "Q"), shape=shape, chunks=block.shape, dtype="f4", compressors=None)
                for part in zarr_store.chunks(stored):
                    stored[part] = block
            seconds[way, "written"].append(time.perf_counter() - start)
            stored, start = zarr.open_group(str(path), mode="r")["P" if way == "with" else "Q"], time.perf_counter()
            for part in zarr_store.chunks(stored):
                zarr_store.read(stored, part)
            seconds[way, "read"].append(time.perf_counter() - start)
            shutil.rmtree(path)
    median = {key: statistics.median(values) for key, values in seconds.items()}
    words = [
        f"{what} in {median['with', what]:.2f} s with checksums and {median['without', what]:.2f} s without"
        f" ({median['with', what] / median['without', what]:.2f} times)"
        for what in ("written", "read")
    ]
    return f"A P of {shape[0] * shape[1] * 4 / 1e9:.1f} GB was {words[0]}, and {words[1]} (from the file cache)."
