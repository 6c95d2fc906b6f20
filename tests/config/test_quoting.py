"""Paths with any signs: read from a command line, through a shell, Hydra and YAML, and printed such that they can be pasted."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from rlsnet.cli.commands import export, plot, report
from rlsnet.cli.hydra_app import folder_overrides, setting
from rlsnet.config import quoting, settings
from rlsnet.config import schema as config_schema
from rlsnet.config.arguments import plain_arguments
from rlsnet.config.compose import quoted, with_config_dir
from rlsnet.data import import_options
from rlsnet.errors import UserError
from rlsnet.runs.folder import Run

NAMES = [
    *("/home/müller/x.zarr", "data(1).zarr", "a&b.zarr", "it's.zarr", "x#1.zarr", "x #1.zarr", "rls.penlambda=0.2/n.zarr", "a,b.zarr"),
    *("-x.zarr", "--y=1.zarr", "[v2].zarr", "[a,b]", "{a:1}.zarr", "'x.zarr'", '"x".zarr', "two  blanks.zarr", "$HOME.zarr", "`ls`.zarr"),
    *("a;b.zarr", "a: b.zarr", "*.zarr", "%s.zarr", "名前.zarr", "a\\b.zarr", "a\\'b.zarr", "1e3", "0012", "true", "a@b", "x${y", "~.zarr"),
    *("auto", "best", "Null", "null", "12", "q\\${a", "q\\\\${a\\"),
]


def through_shell(line: str) -> list[str]:
    """Words that a shell makes of a line."""
    script = f"rlsnet() {{ printf '%s\\0' \"$@\"; }}; {line}"
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split("\0")[:-1]


def paths_of_schema() -> list[str]:
    """All keys of the schema that hold one path, with the variant that has them."""
    return sorted(settings.keys_with("path") - settings.keys_with("paths"))


def test_all_keys_that_name_a_file_or_folder_are_marked_as_paths():
    marked = settings.keys_with("path")
    named = {key for key in settings.keys() if key.rsplit(".", 1)[-1] in ("path", "load", "resume", "run", "sweep", "plugins")}
    assert named <= marked and "test.checkpoint" in marked


@pytest.mark.parametrize("name", NAMES)
def test_a_printed_path_is_read_back(name):
    """By a shell, and by Hydra or the parser of the other commands: each key of the schema, and each command."""
    for key in ("recording.path", "resume"):
        command, word = through_shell(quoting.typed_command("train", settings={key: name}))
        assert command == "train" and word.partition("=")[0] == key and Path(setting([word], key)) == Path(name)
        assert not quoting.WORD.fullmatch(setting([word], key))  # resume=auto starts a new run
        for sweep in (False, True):
            value = OverridesParser.create().parse_override(quoted(word, sweep)).value()
            assert isinstance(value, str) and Path(OmegaConf.create({"path": value}).path) == Path(name)
    for module, given in ((plot, "out"), (report, "out"), (export, "out"), (import_options, "trials_table")):
        _, path, word = through_shell(quoting.typed_command("plot", name, settings={given: name}))
        paths, options = plain_arguments(module.Options, "plot", [path, word], {"to": "npz"} if module is export else None)
        assert (Path(paths[0]), Path(getattr(options, given))) == (Path(name), Path(name))


def test_a_printed_path_is_that_of_the_configuration():
    name = "-müller (1), it's #2 = [a] ${x.zarr"
    _, one, other = through_shell(quoting.typed_command("train", settings={"recording.path": name, "run": name}))
    config = compose("target=recording", one, other)
    assert (config.recording.path, config.run) == (name, name)


@pytest.mark.parametrize("key", paths_of_schema())
def test_every_path_of_the_schema_takes_any_text_and_the_home_folder(key):
    for name in ("müller (1), it's #2=[a].zarr", "~/x y.zarr"):
        text = quoted(f"{key}={name}")
        assert text == f"{key}={quoting.in_quotes(os.path.expanduser(name))}"
    assert quoted(f"{key}=null") == f"{key}=null"


def test_a_path_of_a_yaml_file_or_of_python_has_its_home_folder_too(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "mine.yaml").write_text("# @package _global_\nrecording: {path: ~/x.zarr}\n")
    assert compose("config=mine", config_dir=tmp_path).recording.path == os.path.expanduser("~/x.zarr")


def test_plugins_are_a_list_of_paths():
    assert quoted("plugins=[a.py, 'b, c.py', ~/d e.py]") == f"plugins=[a.py,'b, c.py','{os.path.expanduser('~/d e.py')}']"
    _, options = plain_arguments(plot.Options, "plot", ["plugins=[it's.py,x #1.py]"])
    assert options.plugins == ("it's.py", "x #1.py")


def test_a_comma_separates_in_a_sweep_and_belongs_to_the_path_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert quoted("recording.path=a,b.zarr") == "recording.path='a,b.zarr'"
    assert quoted("recording.path=a,b.zarr", sweep=True) == "recording.path='a',b.zarr"
    assert quoted("recording.path='a,b.zarr',c.zarr", sweep=True) == "recording.path='a,b.zarr',c.zarr"
    Path("a,b.zarr").mkdir()
    assert quoted("recording.path=a,b.zarr", sweep=True) == "recording.path='a,b.zarr'"
    assert quoted("hydra.run.dir=a.d,b.d", sweep=True) == "hydra.run.dir='a.d,b.d'"


def test_interpolations_stay_unless_a_file_has_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA", "/data (1)")
    assert compose("target=recording", "recording.path=${oc.env:DATA}/x y.zarr").recording.path == "/data (1)/x y.zarr"
    Path("${oc.env:DATA}").mkdir()
    assert compose("target=recording", "recording.path=${oc.env:DATA}").recording.path == "${oc.env:DATA}"


def test_folders_of_hydra(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "it's, = (1)").mkdir()
    (tmp_path / "it's, = (1)" / "config.yaml").touch()
    for given in ("it's, = (1)", "~/it's, = (1)", "'it\\'s, = (1)'"):
        assert folder_overrides("test", [f"run={given}"])[0].endswith("it\\'s, = (1)'")
    assert with_config_dir(["--config-dir", "~/a=b", "-cd=~/c", "x=1"]) == [
        f"--config-dir={tmp_path}/a=b",
        f"--config-dir={tmp_path}/c",
        "x=1",
    ]


def test_settings_of_the_plain_commands_are_texts():
    """YAML would end a text at " #" and read 1e3 as a number."""
    paths, options = plain_arguments(report.Options, "report", ["./a=b", "out=a #1.html"])
    assert paths == ["./a=b"] and options.out == "a #1.html"
    assert plain_arguments(report.Options, "report", ["out=null"])[1].out is None
    with pytest.raises(UserError, match=r"a: no such setting of report. A path with = is written as ./a=b"):
        plain_arguments(report.Options, "report", ["a=b"])


@pytest.mark.parametrize("value", ["null", "NULL", "1", "1e3", "true", "inf", "[a]", "{a: 1}", "", "a b", "fixed(", "x=y"])
def test_a_variant_that_is_no_name_reaches_hydra_as_a_text(value):
    for section in ("static", "config", "+perturb", "hydra/job_logging", "neuron@x"):
        override = OverridesParser.create().parse_override(quoted(f"{section}={value}"))
        assert override.value() == value
    assert quoted("neuron=lif,glif1", sweep=True) == "neuron=lif,glif1"


@pytest.mark.parametrize("given", ["static=null", "config=3", "+perturb=true", "hydra/job_logging=1e3"])
def test_a_variant_that_is_no_name_is_one_line(given):
    with pytest.raises(UserError, match=f"{re.escape(given.lstrip('+'))}: .*expected") as caught:
        compose(given)
    assert "\n" not in str(caught.value)


def test_the_line_of_a_run_names_it(tmp_path):
    path = tmp_path / "-run (1), it's #2"
    path.mkdir()
    (path / "config.yaml").touch()
    run = quoting.typed_command("test", settings={"run": path})
    assert shlex.split(run)[:2] == ["rlsnet", "test"] and Run.open(setting(shlex.split(run)[2:], "run")).path == path
    assert config_schema.Config().recording.path is None
