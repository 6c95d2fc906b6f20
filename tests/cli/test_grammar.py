"""One form of all commands, `rlsnet VERB THING [key=value]`: experiments, runs, `last`, dry runs, lists of runs, and starts that fail."""

import os
import re
import shutil
from pathlib import Path

import pytest
from commands import rlsnet

from rlsnet.analysis import comparison
from rlsnet.cli import things
from rlsnet.errors import UserError
from rlsnet.runs import catalogue, progress

SMALL = ["network.n_neurons=64", "static.out_degree=12", "plastic.n_inputs=8", "train.iterations=2", "train.validate_every=0"]
SHORT = ["trial.stim_on=5", "trial.stim_off=10", "trial.duration=50"]


def everything(folder: Path) -> dict[str, float]:
    """Every path below a folder, with the time of its last change."""
    return {str(path.relative_to(folder)): path.stat().st_mtime for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run of the experiment tiny, called last, and an older one below outputs."""
    place = tmp_path_factory.mktemp("place")
    rlsnet("train", "tiny", *SMALL, cwd=place)
    (old,) = (place / "outputs").glob("*/*")
    os.utime(old / "config.yaml", (1e9, 1e9))
    rlsnet("train", "tiny", *SMALL, "hydra.run.dir=last", cwd=place)
    return place


def test_the_words_of_all_commands(place, tmp_path):
    """A run that is called last is ./last; the old forms do the same."""
    shutil.copytree(place, tmp_path / "p", copy_function=shutil.copy2)
    cwd, (old,) = tmp_path / "p", (tmp_path / "p" / "outputs").glob("*/*")
    name = os.path.relpath(old, cwd)
    assert f"Run folder {name}," in rlsnet("test", name, "test.trials=1", cwd=cwd).stdout
    assert "Run folder last," in rlsnet("test", "last", "test.trials=1", cwd=cwd).stdout  # the newest
    assert "Run folder last," in rlsnet("test", "run=last", "test.trials=1", cwd=cwd).stdout
    done = rlsnet("train", name, "train.iterations=3", cwd=cwd).stdout
    assert "Resuming after iteration 2." in done and f"Next: rlsnet test {name}" in done
    assert f"run {name}" in rlsnet("info", "last", cwd=cwd).stdout  # which is newest now
    assert "Resuming after iteration 2." in rlsnet("train", "./last", "train.iterations=3", cwd=cwd).stdout
    assert "all 3 iterations are done" in rlsnet("train", "resume=./last", cwd=cwd).stdout
    shown = rlsnet("runs", cwd=cwd).stdout.splitlines()
    assert [line.split()[:4] for line in shown[1:3]] == [["last", "tested", "tiny", "3/3"], [name, "tested", "tiny", "3/3"]]
    assert rlsnet("runs", "outputs", "rows=null", cwd=cwd).stdout.splitlines()[1].startswith(f"{name} ")
    assert "contains 1 run; rlsnet runs outputs lists it" in rlsnet("info", "outputs", cwd=cwd, status=1).stderr


@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    [
        ("train", ["tiny", "seed=2"], ["config=tiny", "seed=2"]),
        ("train", ["--cfg", "job", "demo"], ["--cfg", "job", "config=demo"]),
        ("train", ["run (1)/a=1,b", "-m"], ["resume=run (1)/a=1,b", "-m"]),
        ("test", ["run (1)/a=1,b"], ["run='run (1)/a=1,b'"]),
        ("simulate", ["tiny"], ["config=tiny"]),
        ("train", ["./tiny"], ["resume=./tiny"]),
        ("watch", ["oe://127.0.0.1:5557", "new"], ["config=online", "watch.source=oe://127.0.0.1:5557", "hydra.run.dir=new"]),
        ("watch", ["redis://h:1/x?a=1", "config=tiny"], ["watch.source=redis://h:1/x?a=1", "config=tiny"]),
        ("watch", ["other/tiny", "seed=2"], ["resume=other/tiny", "seed=2"]),
        ("watch", ["both", "other/tiny"], ["watch.source=both", "resume=other/tiny"]),
        ("watch", ["other/tiny", "again"], ["config=online", "watch.source=other/tiny", "hydra.run.dir=again"]),
        ("watch", ["a", "b", "c"], "watch a b c: expected a source and a run folder"),
        ("watch", ["a", "watch.source=b"], "watch a watch.source=b: expected one of them"),
        ("train", ["tny"], "no such experiment or run.*Did you mean tiny"),
        ("train", ["both"], "both: not a run folder; expected a run folder"),
        ("train", ["tiny", "demo"], "train tiny demo: expected one experiment or run"),
        ("train", ["tiny", "config=demo"], "tiny config=demo: expected one of them"),
        ("test", ["a", "b"], "test a b: expected one run"),
        ("simulate", ["./tiny"], "a run folder; rlsnet test"),
        ("train", ["sinusoid"], "is an experiment, and a run folder too; expected config=sinusoid or ./sinusoid"),
    ],
)
def test_a_thing_becomes_a_setting(tmp_path, monkeypatch, command, arguments, expected):
    monkeypatch.chdir(tmp_path)
    for name in ("run (1)/a=1,b", "other/tiny", "sinusoid"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
    (tmp_path / "both").mkdir()
    arguments = [each.replace("./tiny", "other/tiny") for each in arguments]
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected.replace("./tiny", "other/tiny")):
            things.with_keys(command, arguments)
        return
    got = things.with_keys(command, arguments)
    assert [each.replace("'", "") for each in got] == [each.replace("'", "").replace("./tiny", "other/tiny") for each in expected]


def test_the_newest_run_is_the_one_that_was_started_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="last: there is no run in the present folder"):
        catalogue.newest(Path())
    for age, name in enumerate(("outputs/d/t", "multirun/d/t/0", "mine", "a/b/c/d/too_deep", ".hidden", "x.zarr/in_a_store")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
        os.utime(tmp_path / name / "config.yaml", (1000 + age, 1000 + age))
    (tmp_path / "outputs" / "d" / "failed" / ".hydra").mkdir(parents=True)
    shutil.copytree(Path(__file__).parents[2] / "configs", tmp_path / "configs")  # of a checkout: the newest config.yaml, but no run
    assert catalogue.newest(Path()) == Path("mine")
    found = [str(path) for path in catalogue.newest_first(Path(), catalogue.DEPTH)]
    assert found == ["outputs/d/failed", "mine", "multirun/d/t/0", "outputs/d/t"]
    assert Path("a/b/c/d/too_deep") in catalogue.newest_first(Path("a"))


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["train", "tiny", *SMALL], ["64 neurons, 8 trained inputs of each, 768 static", "Memory plan: ", "Disk plan: ", "measured now)"]),
        (["train", "last", "train.iterations=9"], ["Run folder: last (exists)", "so 7 iterations take about", "of this run)"]),
        (["test", "last"], ["5 trials of each condition", "5 trials take at most about"]),
        (
            ["train", "million", "engine.devices=64", "synapse.delay=1.5", "train.keep_checkpoints=1"],
            ["for each of 64 devices, which has 15,680 neurons", "On 64 H200: an iteration takes at least", "(1.88 MB in 15 steps)"],
        ),
        (["simulate", "tiny", *SMALL], ["Run folder: outputs/DATE/TIME (new)", "not estimated"]),
    ],
)
def test_a_dry_run_says_what_would_be_done_and_writes_nothing(place, arguments, texts):
    before = everything(place)
    shown = rlsnet(*arguments, "--dry-run", cwd=place).stdout
    assert [text for text in texts if text not in shown] == [] and everything(place) == before


def test_the_time_of_a_large_network_is_measured_with_a_small_one(place):
    """A mistake is one line, as without --dry-run; 32 times as many neurons take as many times as long."""
    shown = rlsnet("train", "tiny", "network.n_neurons=65536", *SMALL[1:], *SHORT, "--dry-run", cwd=place).stdout
    assert "measured now with 2,048 neurons, times 32)" in shown
    refused = rlsnet("train", "million", "network.n_neurons=1e8", "--dry-run", cwd=place, status=1).stderr
    assert "memory: the run needs" in refused and len(refused.splitlines()) == 1


def test_a_dry_run_of_an_import_tries_the_first_source(tmp_path):
    for name, unit in (("a.csv", "1.5"), ("b.csv", "2.5")):
        (tmp_path / name).write_text("u,v\n" + f"{unit},2\n" * 9)
    before = everything(tmp_path)
    shown = rlsnet("import", "a.csv", "b.csv", "out.zarr", "bin=20", "axes=[time,unit]", "--dry-run", cwd=tmp_path).stdout
    assert "2 sources" in shown and "a: 2 of 2 units" in shown and "All 2 sources would take about" in shown and "b: " not in shown
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "message", "folder"),
    [
        (["train", "tiny", "rls.penlambda=-1"], "rls.penlambda", None),
        (["train", "tiny", "rls.penlambda=-1"], "rls.penlambda", "theirs/empty"),
        (["train", "mouse_decision", "recording.path=no.zarr"], "no.zarr: no such folder", "new/runs/a"),
        (["train", "million", "network.n_neurons=1e8"], "memory: the run needs", "theirs"),
        (["train", "tiny", *SMALL, "train.order=weighted", "train.weights=[1,2]"], "train.weights=[1.0, 2.0]: expected 1", "theirs"),
        (["simulate", "tiny", "plastic.n_inputs=1000"], "plastic.n_inputs=1000: expected at most", None),
    ],
)
def test_a_start_that_fails_leaves_no_folder_and_takes_nothing_away(tmp_path, arguments, message, folder):
    """Not one of Hydra either, and none of its parents; but files and folders of the user stay, also an empty one."""
    (tmp_path / "theirs" / "empty").mkdir(parents=True)
    (tmp_path / "theirs" / "notes.txt").write_text("mine")
    before = set(everything(tmp_path))
    given = [] if folder is None else [f"hydra.run.dir={folder}"]
    assert message in rlsnet(*arguments, *given, cwd=tmp_path, status=1).stderr
    assert set(everything(tmp_path)) == before and (tmp_path / "theirs" / "notes.txt").read_text() == "mine"


def test_a_run_that_has_begun_stays_when_a_later_start_fails(place, tmp_path):
    shutil.copytree(place / "last", tmp_path / "run")
    before = set(everything(tmp_path))
    rlsnet("train", "tiny", "hydra.run.dir=run", cwd=tmp_path, status=1)
    rlsnet("train", "run", "train.iterations=1", cwd=tmp_path, status=1)
    rlsnet("test", "run", "test.trials=0", cwd=tmp_path, status=1)
    assert set(everything(tmp_path)) == before | ({"run/.hydra"} & set(everything(tmp_path)))


def test_progress_fits_80_columns_with_labels_and_a_mean(monkeypatch):
    """The mean is that of the last 20 correlations, by a loop of its own."""
    from rich.console import Console

    import rlsnet.runs.progress as module

    monkeypatch.setattr(module.rich, "get_console", lambda: Console(width=80, force_terminal=True, file=open(os.devnull, "w")))
    lines = [{"correlation": 0.01 * k, "rate_hz": 12.345, "seconds": 31.25, "memory": 4.2e11, "validation": 0.5} for k in range(99)]
    with progress.Progress("rich").bar(100_000, 99_000) as bar:
        for line in lines:
            bar.advance(line)
        task = bar.bar.tasks[0]
        text, width = task.fields["text"], progress.BAR_WIDTH + 2 * len("100000") + 1 + 2 + len(task.fields["text"])
    mean = sum(0.01 * k for k in range(79, 99)) / 20
    assert f"left  mean correlation {mean:.3f}  31 s/iter." in text and width <= 80
    plain = bar.text(lines[-1])
    assert plain.startswith("iteration 99099/100000: correlation 0.980, mean correlation 0.885 over the last 20, ")
    assert "validation 50 %" in plain and "memory 420.0 GB" in plain


def test_names_of_runs_are_whole_at_any_width():
    from rlsnet.analysis.run_list import HEADINGS, lines_of

    names = ["a", "sweep/rls.penlambda=0.2,trial.learn_every=5,train.iterations=200", "x" * 200]
    rows = [HEADINGS, *((name, "tested", "mouse_decision", "40/40", "EV 93 %", "3 s") for name in names)]
    for width in (40, 80, 120, None):
        lines = lines_of(rows, width)
        assert [name for name in names if not any(line.split()[0] == name for line in lines)] == []
        assert max(len(line) for line in lines if line.split()[0] not in names) <= (width or 300) or width == 40
        assert len(lines) == (4 if width is None else 8)
    assert lines_of(rows[:2], 80)[1] == "a    tested  mouse_decision       40/40  EV 93 %  3 s"


@pytest.mark.parametrize("command", ["analyse", "plot", "report", "export", "compare", "info", "runs"])
def test_what_does_not_exist_is_said_before_a_sign_of_work(tmp_path, command):
    """On a terminal of 80 columns, whose lines fit."""
    import pty
    import subprocess
    import sys

    ours, theirs = pty.openpty()
    more = ["to=npz"] if command == "export" else []
    environment = {**os.environ, "COLUMNS": "80"}
    process = subprocess.Popen(
        [sys.executable, "-m", "rlsnet", command, "nothing", *more], cwd=tmp_path, stdout=theirs, stderr=theirs, env=environment
    )
    assert process.wait(60) == 1
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert shown.startswith("rlsnet: error: nothing: no such folder; expected a") and max(map(len, shown.splitlines())) <= 80


def test_a_count_has_its_total_from_the_start(monkeypatch):
    """Without one it appears when it is known."""
    from rich.console import Console

    import rlsnet.runs.progress as module

    console = Console(width=80, force_terminal=True, file=open(os.devnull, "w"))
    monkeypatch.setattr(module.rich, "get_console", lambda: console)
    bars = []
    kept = module.RichProgress.add_task
    monkeypatch.setattr(module.RichProgress, "add_task", lambda self, *a, **k: bars.append(self) or kept(self, *a, **k))
    for total in (40, None):
        with progress.Progress("rich").counting("trials", total) as report:
            task = bars[-1].tasks[0]
            assert (task.total, task.visible) == (total, total is not None)
            report(3, 40)
            assert (task.completed, task.total, task.visible) == (3, 40, True)


def test_a_comparison_keeps_the_names_of_runs_in_80_columns(place, monkeypatch, capsys):
    from rich.console import Console

    monkeypatch.setattr(comparison, "console", lambda width: Console(width=80))
    found = comparison.read([place])
    comparison.show(found)
    shown = capsys.readouterr().out
    table = [line for line in shown.splitlines() if line.startswith("│")]
    names = "".join(line.split("│")[1].strip() for line in table)
    assert all(name.replace(",", "") in names.replace(",", "") for name in found.names)
    assert max(map(len, shown.splitlines())) <= 80 and "…" not in shown and re.search(r"There is no room for \d+ column", shown)


def test_only_the_scores_that_are_shown_are_explained():
    from rlsnet.analysis.run_list import caption

    assert caption(["EV 90 %", "\u2013"]).startswith("EV: ") and not re.search(r"val|r:", caption(["EV 90 %"]))
    assert "; (val.): the best" in caption(["EV 9 % (val.)"]) and caption(["r 0.40"]).startswith("r: mean correlation")
    assert caption(["\u2013"]) == caption([]) == ""
