"""Plugins that a run folder names: they run only if the user has said so."""

import json
import os
import sys

import pytest
import yaml

import rlsnet
from rlsnet.analysis import inspect
from rlsnet.cli.commands import export, plot, report
from rlsnet.config import plugins
from rlsnet.config.load import Unloaded, from_dict, to_dict
from rlsnet.config.schema import Config
from rlsnet.errors import UserError
from rlsnet.runs.folder import Run
from rlsnet.workflows.resume import COMMAND_ONLY, resumed_config

CODE = """
import dataclasses, pathlib
from rlsnet import config
pathlib.Path(__file__).with_name("RAN").touch()

@dataclasses.dataclass(frozen=True)
class {name}Config(config.TargetConfig):
    name: str = config.variant("of a colleague", "{name}")
    height: float = config.key("height", default=1.0)
"""
LINE = dict.fromkeys(("task", "n_undefined"), 0) | dict.fromkeys(("seconds", "rate_hz", "rate_exc_hz", "rate_inh_hz", "correlation"), 0.5)


@pytest.fixture(autouse=True)
def _own_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(plugins, "_loaded", {plugins.PLUGINS: []})


def colleague(folder, target=True):
    """A run folder with a plugin, which says when it runs, with a target of the plugin or without."""
    run, name = Run(folder / "run"), f"of_{folder.name.replace('-', '_')}"[-40:]
    run.path.mkdir(parents=True)
    path = run.path / "theirs.py"
    path.write_text(CODE.format(name=name))
    values = to_dict(Config()) | {"plugins": [str(path)]} | ({"target": {"name": name, "height": 2.0}} if target else {})
    (run.path / "config.yaml").write_text(yaml.safe_dump(values))
    run.append_metrics({"iteration": 1} | LINE)
    return run


def ran(run):
    return (run.path / "RAN").exists()


@pytest.mark.parametrize("target", [True, False])
def test_no_command_that_shows_a_run_runs_its_plugins(tmp_path, target, capsys):
    run = colleague(tmp_path, target)
    path = str(run.path)
    inspect.show(path)
    shown = " ".join(capsys.readouterr().out.split())
    assert ("not run, so sizes and memory of target=" in shown) == target
    plot.main([path], plot.Options())
    report.main([path], report.Options())
    assert (run.path / "report.html").exists() and rlsnet.plot(run) and isinstance(run.config().target, Unloaded) == target
    with pytest.raises(
        UserError, match=r"config.yaml: plugins names .*theirs.py, code that you" if target else "has no such checkpoint|no such"
    ):
        export.main([path], export.Options(to="npz"))
    assert not ran(run)
    values = to_dict(Config())
    for command in (
        lambda: rlsnet.test(run),
        lambda: resumed_config(run, values, []),
        lambda: resumed_config(run, values | {"train": values["train"] | {"iterations": 9}}, ["train.iterations=9"]),
    ):
        with pytest.raises(UserError, match=r"run/config.yaml: plugins names .*theirs.py, code that you have not run before.*trust=true"):
            command()
    assert not ran(run)


def test_the_word_of_the_user_holds_for_a_file_until_it_changes(tmp_path):
    run = colleague(tmp_path)
    assert run.config(trust=True).target.height == 2 and ran(run)
    plugins._loaded.clear()
    (run.path / "RAN").unlink()
    assert run.config().target.height == 2 and ran(run)
    assert plugins.untrusted([str(run.path / "theirs.py")]) == []
    file = run.path / "theirs.py"
    file.write_text(file.read_text() + "\n")
    assert plugins.untrusted([str(file)]) == []  # it is the user's, and only he can have changed it
    file.chmod(0o666)
    assert plugins.untrusted([str(file)]) == [str(file)]
    copy = tmp_path / "theirs.py"
    copy.write_bytes(file.read_bytes())
    assert plugins.untrusted([str(copy)]) == [str(copy)]


def test_a_folder_cannot_say_it_itself(tmp_path):
    run = colleague(tmp_path)
    saved = yaml.safe_load((run.path / "config.yaml").read_text()) | {"trust": True}
    (run.path / "config.yaml").write_text(yaml.safe_dump(saved))
    with pytest.raises(UserError, match="plugins names"):
        resumed_config(run, to_dict(Config()), [])
    record = plugins._list_of_trusted()
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({str(run.path / "theirs.py"): plugins._digest(run.path / "theirs.py")}))
    record.chmod(0o666)  # others could have written it
    assert isinstance(run.config().target, Unloaded) and not ran(run)
    record.chmod(0o600)
    assert not isinstance(run.config().target, Unloaded)


def test_plugins_of_the_command_run(tmp_path):
    """As of the run that the user trains: given by himself."""
    run = colleague(tmp_path)
    given = [str(run.path / "theirs.py")]
    assert resumed_config(run, to_dict(Config()) | COMMAND_ONLY | {"plugins": given}, [f"plugins={given}"]).target.height == 2
    plugins._loaded.clear()
    config = from_dict(to_dict(Config()) | {"plugins": given})
    assert plugins.untrusted(given) == given
    run.save_config(config)  # as a train does when it starts
    assert run.config().plugins == tuple(given) and plugins.untrusted(given) == []


def test_modules_are_found_without_being_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "of_a_colleague"
    package.mkdir()
    for name in ("__init__.py", "models.py"):
        (package / name).write_text("raise RuntimeError\n")
    for name, file in (("of_a_colleague", "__init__.py"), ("of_a_colleague.models", "models.py")):
        own, beside = plugins._files(name)
        assert str(own[-1]) == os.path.realpath(package / file) and len(beside) == 2 and plugins.untrusted([name]) == [name]
    assert plugins.untrusted(["no_such_module", "of_a_colleague.none"]) == ["no_such_module", "of_a_colleague.none"]
    plugins.trust(["of_a_colleague.models", "no_such_module"])
    assert plugins.untrusted(["of_a_colleague.models"]) == [] and not any("of_a_colleague" in name for name in sys.modules)


def test_the_word_of_the_user_is_about_all_files_that_a_plugin_brings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for file in ("lab/deep/models.py", "lab/helper.py", "alone/mine.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("\n")
    names = ["lab.deep.models", "alone/mine.py"]
    plugins.trust(names)
    assert plugins.untrusted(names) == []
    of_package = ("lab/__init__.py", "lab/deep/__init__.py", "lab/helper.py", "lab/new.py", "new.py")
    for name, file in [*((names[0], each) for each in of_package), (names[1], "alone/helper.py")]:
        before = (tmp_path / file).read_text() if (tmp_path / file).exists() else None
        (tmp_path / file).write_text("raise RuntimeError\n")
        (tmp_path / file).chmod(0o666)  # as somebody else could have written it
        assert plugins.untrusted(names) == [name]
        (tmp_path / file).chmod(0o644)
        assert plugins.untrusted(names) == ([name] if file.endswith("__init__.py") else [])  # new, and run before the plugin
        (tmp_path / file).unlink() if before is None else (tmp_path / file).write_text(before)
    (tmp_path / "lab" / "__init__.py").touch()
    plugins.trust(names)
    assert plugins.untrusted(names) == []


def test_without_a_folder_for_notes_each_command_asks(tmp_path, monkeypatch):
    run = colleague(tmp_path)
    monkeypatch.setattr(plugins, "_list_of_trusted", lambda: None)
    assert run.config(trust=True).target.height == 2
    plugins._loaded.clear()
    assert plugins.untrusted(run.saved_config()["plugins"])
