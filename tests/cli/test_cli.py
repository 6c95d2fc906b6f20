"""Command line: commands of a user, each in a process of its own."""

import dataclasses
import importlib
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import xarray
import zarr
from commands import rlsnet
from conftest import small_network, write_network

from rlsnet.cli.command_table import COMMANDS, ESSENTIAL, PLAIN, is_shown
from rlsnet.config.schema import Config
from rlsnet.config.settings import defaults
from rlsnet.io import zarr_store

RUNNER = [sys.executable, "-m", "rlsnet"]
SMALL = ["config=tiny", "network.n_neurons=300", "static.out_degree=60", "train.iterations=4", "train.checkpoint_every=2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a trained and tested run in it."""
    place = tmp_path_factory.mktemp("place")
    rlsnet("train", *SMALL, "train.validate_every=2", "hydra.run.dir=run", cwd=place)
    rlsnet("test", "run=run", "test.trials=3", cwd=place)
    zarr.create_group(str(place / "rates.zarr"), attributes={"bin_ms": 10.0})["rate"] = np.ones((1, 100, 512), "float32")
    (place / "rates.nwb").touch()
    zarr.create_group(str(place / "empty.zarr"))["neuron/excitatory"] = np.zeros(0, bool)
    return place


def test_help_needs_neither_jax_nor_hydra():
    code = "import sys; sys.argv = ['rlsnet', *sys.argv[1:]]\nfrom rlsnet.cli.main import main\n"
    code += "try: main()\nexcept SystemExit as e: assert not e.code\n"
    code += "assert not {'jax', 'hydra', 'numpy', 'zarr', 'pint'} & set(sys.modules), 'slow import'"
    for arguments in (["--help"], [], *([command, "--help"] for command in COMMANDS), ["--version"]):
        result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert "rlsnet" in result.stdout
    listing = subprocess.run([*RUNNER, "train", "--help"], capture_output=True, text=True).stdout
    assert re.search(r"trial\.dt +0\.1 +time step of the simulation \(Euler\) \[ms\]", listing)
    assert re.search(
        r"brunel, demo, microcircuit, million, million_small_memory, mouse_decision,\s+mouse_decision_published,"
        r"\s+online,\s+sinusoid, tiny",
        listing,
    )


@pytest.mark.parametrize("width", [60, 80])
def test_help_fits_a_narrow_terminal(monkeypatch, width):
    from rlsnet.cli import help as texts

    monkeypatch.setattr(texts, "width_of", lambda stream: width)
    shown = [texts.overview(), *(texts.help_text(command) for command in COMMANDS if command not in PLAIN)]
    shown += [texts.plain_help_text(command, importlib.import_module(module)) for command, module in PLAIN.items()]
    copied = ("rlsnet completion", 'eval "$(rlsnet')  # lines of a start-up file are not broken
    lines = [line for text in shown for line in text.splitlines() if not line.strip().startswith(copied)]
    assert [line for line in lines if len(line) > width] == []


def test_the_help_of_a_command_has_no_settings_without_influence_on_it():
    shown = {command: {row for row in defaults() if is_shown(command, row)} for command in ("train", "simulate", "test")}
    assert {"run", "perturb"} & shown["train"] == set() and {"resume", "rls", "train", "perturb"} & shown["simulate"] == {"perturb"}
    assert "resume" in shown["train"] and "run" not in shown["test"] and {"test", "perturb"} <= shown["test"]


@pytest.mark.parametrize("command", [command for command in PLAIN if "RUN" in importlib.import_module(PLAIN[command]).USAGE])
def test_commands_that_take_a_run_say_what_last_is(command):
    assert "last for the newest run" in importlib.import_module(PLAIN[command]).USAGE


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_100_columns_and_lists_each_setting_once_the_essential_ones_first(command):
    """Also of a terminal of 80 columns, and with the words of the schema, whatever the lines."""
    from rlsnet.cli import help as texts
    from rlsnet.config.compose import experiment
    from rlsnet.config.settings import defaults_of, described

    module = importlib.import_module(PLAIN[command]) if command in PLAIN else None
    text = texts.plain_help_text(command, module) if module else texts.help_text(command)
    assert max(map(len, text.splitlines())) <= 100
    if module:
        values = {field.name: None for field in dataclasses.fields(module.Options)} | defaults_of(module.Options)
        rows = list(described(module.Options, values))
    else:
        values = texts.defaults_of_experiment((), (), *experiment("online")) if command == "watch" else defaults()
        rows = [row for row in described(Config, values) if is_shown(command, row[0])]
        rows = [row for row in rows if not row[0].endswith(".name")]
    found = re.findall(
        r"^  ([a-z][\w.]*)  ", text.partition("settings most often changed")[2] or text.partition("Settings:")[2], re.MULTILINE
    )
    essential = [key for key in ESSENTIAL.get(command, ())]
    assert sorted(found) == sorted(key for key, _, _ in rows) and found[: len(essential)] == essential
    words = " ".join(text.split())
    assert [key for key, _, meaning in rows if " ".join(meaning.split()) not in words] == []


def test_a_run_folder_holds_what_it_should(place):
    run = place / "run"
    assert {p.name for p in run.iterdir()} >= {"config.yaml", "network.zarr", "checkpoints", "metrics.jsonl", "test.zarr", "rlsnet.log"}
    assert sorted(p.name for p in (run / "checkpoints").iterdir() if "best" not in p.name) == ["000002.zarr", "000004.zarr"]
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["iteration"] == 4
    assert set(line) >= {"task", "seconds", "rate_hz", "rate_exc_hz", "rate_inh_hz", "correlation", "n_undefined"}
    group = zarr.open_group(str(run / "checkpoints" / "000004.zarr"), mode="r")
    assert group["plastic/weight"].shape == (300, 32) and group["P"].shape == (300, 32 * 33 // 2)
    assert group.attrs["iteration"] == 4 and group.attrs["config"]["network"]["n_neurons"] == 300 and "jax" in group.attrs["versions"]
    assert "iteration 4/4" in (run / "rlsnet.log").read_text()


def test_test_results_open_in_xarray_and_agree_with_themselves(place):
    opened = xarray.open_zarr(place / "run" / "test.zarr", consolidated=False)
    assert opened.psth.dims == ("condition", "time", "neuron") and opened.psth.shape == (1, 100, 300)
    spikes = zarr.open_group(str(place / "run" / "test.zarr"), mode="r")["spikes"]
    ends, step, neuron = (spikes[name][...] for name in ("trial_indptr", "step", "neuron"))
    assert len(ends) == 4 and ends[-1] == len(step) == len(neuron) > 1000
    bins = (step - 2000) // 100
    psth = np.zeros((100, 300))
    np.add.at(psth, (bins, neuron), 1000 / (3 * 10))
    np.testing.assert_allclose(psth, opened.psth[0], rtol=1e-5)
    np.testing.assert_allclose(opened.psth.mean("time"), opened.rate, rtol=1e-5)
    assert all(np.all(np.diff(step[a:b].astype(int)) >= 0) for a, b in zip(ends, ends[1:], strict=False))
    assert float(opened.current_sd.mean()) > 0
    assert not np.array_equal(step[: ends[1]], step[ends[1] : ends[2]])


def test_plot_draws_every_figure_and_never_simulates(place):
    from PIL import Image

    rlsnet("plot", "run=run", cwd=place)
    names = {p.stem for p in (place / "run" / "figures").glob("*.png")}
    assert names == {"learning_curve", "weights", "psth_examples", "psth_heatmaps", "correlations", "rates", "raster"}
    for path in (place / "run" / "figures").glob("*.png"):
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.shape[0] > 300 and pixels.std() > 10


def test_info(place):
    shown = rlsnet("info", "run", cwd=place).stdout
    assert "4 of 4 iterations" in shown and "3 trials per condition" in shown and "2, 4" in shown
    assert "rlsnet-network 1" in rlsnet("info", "run/network.zarr", cwd=place).stdout
    checkpoint = rlsnet("info", "run/checkpoints/000004.zarr", cwd=place).stdout
    assert "rlsnet-checkpoint 1" in checkpoint and "float32 [neuron 300, input 32]" in checkpoint
    assert re.search(r"jax +│ 0\.\d+", rlsnet("info", cwd=place).stdout)


def rows(text: str) -> dict[str, str]:
    """The rows of a table as `rlsnet info` prints it where there is no terminal."""
    assert max(map(len, text.splitlines())) <= 120 and "\x1b" not in text
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line]
    merged: dict[str, str] = {}
    for name, value in cells:
        if name:
            merged[name] = value
        else:  # a wrapped line
            merged[list(merged)[-1]] += f" {value}"
    return merged


def test_info_on_a_run_says_what_its_files_say(place):
    shown = rows(rlsnet("info", "run", cwd=place).stdout)
    assert shown["sizes"] == "300 neurons (N), 32 trained inputs of each (L), 1 condition (C), 100 time bins (M)"
    assert (shown["static synapses"], shown["plastic synapses"]) == ("18,000", "9,600")
    assert re.match(r"P 1\.23 MB, about \d", shown["memory of training"])
    lines = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    best, last = max(lines[1::2], key=lambda line: line["validation"]), lines[-1]
    assert shown["correlation"] == f"{last['correlation']:.3f} at iteration 4"
    assert shown["validation"] == (
        f"{100 * last['validation']:.1f} % last, at iteration 4, {100 * best['validation']:.1f} % best, at iteration {best['iteration']}"
    )
    assert shown["rates while learning"] == f"{lines[-1]['rate_exc_hz']:.2f} Hz excitatory, {lines[-1]['rate_inh_hz']:.2f} Hz inhibitory"
    assert shown["checkpoints"] == f"2, 4, best of iteration {best['iteration']}" and "jax 0." in shown["made with"]
    use = [json.loads(line) for line in (place / "run" / "resources.jsonl").read_text().splitlines()]
    peak = max(line["memory_peak_mb"] for line in use if line["verb"] == "train")
    assert re.match(rf"peak memory {peak:.3g} MB, mean CPU \d+ %", shown["resources of train"]) and "resources of test" in shown


def test_info_on_a_run_that_is_not_done_or_of_an_older_version(place, tmp_path):
    import shutil

    shutil.copytree(place / "run", tmp_path / "run", ignore=shutil.ignore_patterns("test.zarr", "resources.jsonl"))
    path = tmp_path / "run" / "config.yaml"
    text = re.sub(r"(resources_every|  neurons): .*\n", "", path.read_text())
    path.write_text(text.replace("iterations: 4", "iterations: 1000004"))
    for checkpoint in (tmp_path / "run" / "checkpoints").glob("*/zarr.json"):  # of the same version, which knew no checksums either
        values = json.loads(checkpoint.read_text())
        del values["attributes"][zarr_store.SEAL], values["attributes"][zarr_store.CHUNKS]
        del values["attributes"]["config"]["resources_every"]
        for section in ("test", "train"):
            del values["attributes"]["config"][section]["neurons"]
        checkpoint.write_text(json.dumps(values))
    assert re.fullmatch(r"4 of 1000004 iterations, [\d.]+ h left", rows(rlsnet("info", "run", cwd=tmp_path).stdout)["progress"])
    shutil.rmtree(tmp_path / "run" / "network.zarr")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    shown = rows(rlsnet("info", "run", cwd=tmp_path).stdout)
    assert shown["progress"] == "0 of 1000004 iterations" and shown["checkpoints"] == "none"


def test_info_on_a_network_counts_its_synapses(tmp_path):
    arrays = small_network(3, n=61, group_size=4)
    write_network(tmp_path / "n.zarr", arrays, 4)
    shown = rows(rlsnet("info", "n.zarr", cwd=tmp_path).stdout)
    excitatory, pre = arrays["neuron/excitatory"], np.repeat(arrays["plastic/pre"], 4, axis=0)[:61]
    assert shown["neurons"] == f"61: {excitatory.sum()} excitatory, {61 - excitatory.sum()} inhibitory"
    degrees = {
        "static outputs of a neuron": np.diff(arrays["static/indptr"]),
        "static inputs of a neuron": np.array([np.sum(arrays["static/post"] == i) for i in range(61)]),
        "plastic inputs of a neuron": np.sum(pre >= 0, axis=1),
        "plastic outputs of a neuron": np.array([np.sum(pre == i) for i in range(61)]),
    }
    for name, degree in degrees.items():
        assert shown[name].startswith(f"{degree.mean():.1f}, s.d. {degree.std():.1f}"), name
    assert shown["static synapses"] == f"{len(arrays['static/post']):,}" and shown["plastic synapses"] == f"{np.sum(pre >= 0):,}"
    assert shown["targets"] == "2 conditions, 20 learning points" and "shared by groups of 4" in shown["plastic inputs of a neuron"]


def test_info_on_a_recording_a_checkpoint_and_a_test(place, tmp_path):
    rate = np.random.default_rng(0).gamma(2, 3, (3, 50, 9)).astype("float32")
    rate[0, :, 2], rate[:, :, 4], rate[:, :, 5] = np.nan, 0, np.nan
    root = zarr.create_group(str(tmp_path / "r.zarr"), attributes={"bin_ms": 20.0, "source": "[my] lab"})
    root.create_array("rate", data=rate, chunks=(2, 50, 4))
    shown = rows(rlsnet("info", "r.zarr", cwd=tmp_path).stdout)
    assert (shown["conditions"], shown["bins"], shown["units"], shown["source"]) == ("3: 0, 1, 2", "50 of 20 ms, 1 s", "9", "[my] lab")
    missing = f"{np.isnan(rate).sum()} of {rate.size:,} ({100 * np.isnan(rate).mean():.1f} %)"
    assert shown["mean rate"] == f"{np.nanmean(rate):.3f} Hz" and shown["missing values"] == missing
    assert shown["silent units"] == "1" and "negative values" not in shown
    best = next((place / "run" / "checkpoints").glob("*.best.zarr"))
    shown = rows(rlsnet("info", str(best), cwd=place).stdout)
    assert (
        shown["P"].startswith("none")
        and shown["sizes"] == "300 neurons (N), 32 trained inputs of each (L)"
        and "rls.penlambda=0.8" in shown["settings"]
    )
    shown, test = rows(rlsnet("info", "run/test.zarr", cwd=place).stdout), zarr.open_group(str(place / "run" / "test.zarr"), mode="r")
    assert shown["neurons"] == "300 of 300: 150 excitatory, 150 inhibitory" and shown["spikes"] == f"{test['spikes/step'].shape[0]:,}"
    assert shown["rates"].startswith(f"{test['rate'][:, :150].mean():.2f} Hz excitatory")


def test_info_fits_a_narrow_terminal(place):
    import os
    import pty

    screen, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": "44", "TERM": "xterm"}
    with subprocess.Popen([*RUNNER, "info", "run"], stdout=terminal, cwd=place, env=environment) as process:
        os.close(terminal)
        text = b""
        while chunk := _read(screen):
            text += chunk
    os.close(screen)
    lines = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", text.decode()).splitlines()
    assert process.returncode == 0 and any("4 of 4" in line for line in lines) and max(map(len, lines)) <= 44


def _read(screen: int) -> bytes:
    import os

    try:
        return os.read(screen, 4096)
    except OSError:  # how Linux says that the other end is closed
        return b""


def test_test_on_other_checkpoints_and_without_spikes(place):
    out = rlsnet("test", "run=run", "test.checkpoint=2", "test.trials=1", "test.spikes=false", "hydra.run.dir=run", cwd=place).stdout
    group = zarr.open_group(str(place / "run" / "test.zarr"), mode="r")
    assert group.attrs["iteration"] == 2 and "spikes" not in group, out
    rlsnet("plot", "run=run", cwd=place)
    rlsnet("test", "run=run", "test.checkpoint=best", "test.trials=3", cwd=place)
    assert "spikes" in zarr.open_group(str(place / "run" / "test.zarr"), mode="r")


def test_results_of_chosen_neurons_are_those_of_all(place, tmp_path):
    """The same numbers, fewer of them; figures are drawn from them, also where one class, or all but one neuron, is missing."""
    import shutil

    shutil.copytree(place / "run", tmp_path / "run")
    whole = zarr.open_group(str(place / "run" / "test.zarr"), mode="r")
    path = str(tmp_path / "run" / "test.zarr")
    out = rlsnet("test", "run=run", "test.trials=3", "test.neurons=[3:6, 0, 200:]", cwd=tmp_path).stdout
    part, chosen = zarr.open_group(path, mode="r"), np.r_[0, 3:6, 200:300]
    assert "For 104 of 300 neurons (test.neurons):" in out and part.attrs["n_neurons"] == 300
    np.testing.assert_array_equal(part["neuron"][...], chosen)
    for name in ("excitatory", "psth", "current_mean", "current_sd", "current_target", "rate", "current_correlation"):
        np.testing.assert_array_equal(part[name][...], whole[name][...][..., chosen], err_msg=name)
    mine = np.isin(whole["spikes/neuron"][...], chosen)
    for name in ("step", "neuron"):
        np.testing.assert_array_equal(part[f"spikes/{name}"][...], whole[f"spikes/{name}"][...][mine])
    ends = np.cumsum(mine)[whole["spikes/trial_indptr"][1:] - 1]
    np.testing.assert_array_equal(part["spikes/trial_indptr"][1:], ends)
    mean = np.nanmean(whole["current_correlation"][...][:, chosen])
    assert f"Current correlation: mean {mean:.3f}." in out
    for choice in ("[3:6, 0, 200:]", "inh", "7"):
        rlsnet("test", "run=run", "test.trials=1", f"test.neurons={choice}", cwd=tmp_path)
        shutil.rmtree(tmp_path / "run" / "figures", ignore_errors=True)
        result = rlsnet("plot", "run=run", cwd=tmp_path)
        assert len(list((tmp_path / "run" / "figures").glob("*.png"))) == 7 and "Warning" not in result.stderr
    beyond = rlsnet("test", "run=run", "test.neurons=0:301", cwd=tmp_path, status=1).stderr
    assert "test.neurons=0:301: reaches beyond the 300 neurons" in beyond and zarr.open_group(path, mode="r")["neuron"][...] == [7]


def test_the_checkpoint_of_another_run(place, tmp_path):
    """Its weights in this run's network; a warning where the connectivity differs, refused where sizes differ."""
    rlsnet("train", *SMALL, "hydra.run.dir='an (o)'", cwd=tmp_path)
    rlsnet("train", *SMALL, "seed=2", "train.iterations=2", "hydra.run.dir=other", cwd=tmp_path)
    rlsnet("train", *SMALL, "plastic.n_inputs=30", "train.iterations=2", "hydra.run.dir=fewer", cwd=tmp_path)
    test = ["test", "run=other", "test.trials=1"]
    out = rlsnet(*test, "test.checkpoint=an (o)/checkpoints/000004.zarr", cwd=tmp_path).stdout
    assert "was trained on a different connectivity (seed); here its weights belong to different synapses" in " ".join(out.split())
    assert zarr.open_group(str(tmp_path / "other" / "test.zarr"), mode="r").attrs["iteration"] == 4
    own = rlsnet(*test, "test.checkpoint=other/checkpoints/000002.zarr", cwd=tmp_path).stdout
    assert "different connectivity" not in own
    for path, message in (
        ("fewer/checkpoints/000002.zarr", "plastic/weight has shape [300, 30]; expected [300, 32]"),
        ("nowhere/000002.zarr", "test.checkpoint=nowhere/000002.zarr: no such folder; expected a Zarr store of format rlsnet-checkpoint"),
        ("fewer/network.zarr", "test.checkpoint=fewer/network.zarr: has format rlsnet-network; expected rlsnet-checkpoint"),
        ("fewer/checkpoints", "test.checkpoint=fewer/checkpoints: not a Zarr store"),
    ):
        error = rlsnet(*test, f"test.checkpoint={path}", cwd=tmp_path, status=1).stderr
        assert message in error and len(error.strip().splitlines()) == 1


def test_resume_on_the_command_line(place, tmp_path):
    import shutil

    shutil.copytree(place / "run", tmp_path / "run")
    rlsnet("train", "resume=run", "train.iterations=6", cwd=tmp_path)
    rlsnet("train", *SMALL, "train.iterations=6", "hydra.run.dir=whole", cwd=tmp_path)
    ends = [zarr.open_group(str(tmp_path / run / "checkpoints" / "000006.zarr"), mode="r") for run in ("run", "whole")]
    for name in ("plastic/weight", "P"):
        np.testing.assert_array_equal(ends[0][name][...], ends[1][name][...])
    again = rlsnet("train", "resume=run", cwd=tmp_path).stdout
    assert "run: all 6 iterations are done" in again
    assert "network.n_neurons=512" in rlsnet("train", "config=tiny", "resume=run", cwd=tmp_path, status=1).stderr
    assert (
        "train.iterations=3: expected more than the 6 iterations that run has"
        in rlsnet("train", "resume=run", "train.iterations=3", cwd=tmp_path, status=1).stderr
    )


def test_options_may_stand_anywhere_and_folders_be_called_anything(place, tmp_path):
    import shutil

    shutil.copytree(place / "run", tmp_path / "it's a,b=c")
    (tmp_path / "mine").mkdir()
    rlsnet("train", "--config-dir", "mine", "resume=it's a,b=c", "train.iterations=5", "--config-dir=mine", cwd=tmp_path)
    assert "n_neurons: 300" not in rlsnet("train", "resume=it's a,b=c", "--cfg", "job", "train.iterations=6", cwd=tmp_path).stdout
    rlsnet("test", "run=it's a,b=c", "test.trials=1", cwd=tmp_path)
    assert "iteration 5" in rlsnet("info", "it's a,b=c", cwd=tmp_path).stdout


@pytest.mark.slow
def test_a_recording_may_move_and_another_of_its_name_is_not_taken_for_it(tmp_path):
    """A relative recording.path, where commands are given in another project; one that the user names is taken, and this is shown."""
    place, elsewhere = tmp_path / "one", tmp_path / "other"
    for seed, folder in enumerate((place, elsewhere)):
        root = zarr.create_group(str(folder / "r.zarr"), attributes={"bin_ms": 10.0})
        root["rate"] = np.random.default_rng(seed).gamma(2, 3, (2, 100, 300)).astype("float32")

    def tested(*arguments):
        shown = rlsnet("test", f"run={place}/run", "test.trials=1", *arguments, cwd=elsewhere).stdout
        return shown, zarr.open_group(str(place / "run" / "test.zarr"), mode="r")

    def rates(folder):
        return zarr.open_group(str(folder / "r.zarr"), mode="r")["rate"][...]

    rlsnet("train", *SMALL, "target=recording", "recording.path=r.zarr", "hydra.run.dir=run", cwd=place)
    shown, test = tested()
    assert np.array_equal(test["rate_target"], rates(place)) and "rate_correlation" in test and "WARNING" not in shown
    (place / "r.zarr").rename(tmp_path / "moved.zarr")
    shown, test = tested()
    assert "r.zarr is not the one that" in shown and "nothing is compared with its rates" in shown and "rate_target" not in test
    assert "no validation" in rlsnet("train", f"resume={place}/run", "train.iterations=5", "train.validate_every=5", cwd=elsewhere).stdout
    shown, test = tested("recording.path=r.zarr")
    assert "its rates differ" in shown and np.array_equal(test["rate_target"], rates(elsewhere))
    assert test.attrs["other_recording"] == str(elsewhere / "r.zarr")
    rlsnet("report", f"{place}/run", "out=page.html", cwd=elsewhere)
    page = (elsewhere / "page.html").read_text()
    assert "which is not the recording that the run was trained on" in page and "was not found, or is another one now" in page
    assert "with another recording" in " ".join(rlsnet("compare", f"{place}/run", cwd=elsewhere).stdout.split())
    shutil.rmtree(elsewhere / "r.zarr")
    assert "does not exist; nothing is compared with its rates" in tested()[0]
    shown, test = tested("recording.path=../moved.zarr")
    assert "Rate correlation" in shown and "other_recording" not in test.attrs
    rlsnet("plot", "run=run", cwd=place)
    given = ["target=recording", "network.load=run/network.zarr", "hydra.run.dir=given", "test.trials=1"]
    rlsnet("train", *SMALL, *given, cwd=place)
    assert "rate_correlation" not in rlsnet("test", "run=given", cwd=place).stdout


def test_plain_numbers_do_not_load_the_units():
    code = "import sys; from rlsnet.api import compose; compose('config=mouse_decision', 'trial.dt=0.1'); assert 'pint' not in sys.modules"
    code += "; compose('trial.dt=100 us'); assert 'pint' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_units_on_the_command_line_and_in_files(tmp_path):
    """Saved as plain numbers, and the same as those when a run is resumed or tested."""
    (tmp_path / "mine" / "config").mkdir(parents=True)
    (tmp_path / "mine" / "config" / "u.yaml").write_text("# @package _global_\ndefaults: [tiny]\ntarget: {period: 1 s}\n")
    odd = ["trial.dt=100 µs", "stimulus.sigma=0.2 threshold/sqrt(ms)", "--config-dir", "mine"]
    rlsnet("train", "config=u", *SMALL[1:], *odd, "train.iterations=2", "hydra.run.dir=run", cwd=tmp_path)
    saved = (tmp_path / "run" / "config.yaml").read_text()
    assert "dt: 0.1\n" in saved and "period: 1000.0\n" in saved and "sigma: 0.2\n" in saved
    rlsnet("train", "resume=run", "trial.dt=100 us", "train.iterations=3", cwd=tmp_path)
    other = rlsnet("train", "resume=run", "trial.dt=50 us", "train.iterations=4", cwd=tmp_path, status=1).stderr
    assert "trial.dt=0.05: run was made with 0.1; this cannot change" in other
    rlsnet("train", "-m", *SMALL, "train.iterations=1", "target.period=1 s,0.5 (s)", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert ["period: 500.0" in (tmp_path / "sweep" / job / "config.yaml").read_text() for job in "01"] == [False, True]


def test_resume_auto_starts_and_then_goes_on(tmp_path):
    command = ["train", *SMALL, "hydra.run.dir=run", "resume=auto"]
    rlsnet(*command, cwd=tmp_path)
    assert "Resuming after iteration 4" in rlsnet(*command, "train.iterations=5", cwd=tmp_path).stdout
    assert "contains a run;" in rlsnet(*command[:-1], cwd=tmp_path, status=1).stderr


def test_a_sweep_makes_a_run_of_each_job(tmp_path):
    rlsnet("train", "-m", *SMALL, "rls.penlambda=.4,.8", "hydra.sweep.dir=sweep", cwd=tmp_path)
    weights = []
    for job, penalty in (("0", 0.4), ("1", 0.8)):
        group = zarr.open_group(str(tmp_path / "sweep" / job / "checkpoints" / "000004.zarr"), mode="r")
        assert group.attrs["config"]["rls"]["penlambda"] == penalty
        weights.append(group["plastic/weight"][...])
    assert not np.array_equal(*weights)


def test_simulate_runs_without_training(tmp_path):
    out = rlsnet("simulate", *SMALL, "plastic.n_inputs=0", "test.trials=2", "hydra.run.dir=run", cwd=tmp_path).stdout
    assert re.search(r"Rates [\d.]+ Hz excitatory", out)
    assert not (tmp_path / "run" / "checkpoints").exists()
    rlsnet("plot", "run=run", cwd=tmp_path)
    assert (tmp_path / "run" / "figures" / "raster.png").exists()


def test_a_configuration_of_ones_own(tmp_path):
    (tmp_path / "mine" / "config").mkdir(parents=True)
    (tmp_path / "mine" / "config" / "small.yaml").write_text("# @package _global_\nnetwork: {n_neurons: 200}\nstatic: {out_degree: 20}\n")
    shown = rlsnet("train", "--config-dir", "mine", "config=small", "--cfg", "job", cwd=tmp_path).stdout
    assert "n_neurons: 200" in shown


WRONG = [
    (["trian"], f"trian: no such command; expected {', '.join(COMMANDS)}. Did you mean train?"),
    (
        ["train", "config=mouse"],
        "config=mouse: no such configuration; expected brunel, demo, microcircuit, million, million_small_memory, mouse_decision, "
        "mouse_decision_published, "
        "online, sinusoid, tiny.",
    ),
    (["train", "stimulus=noise"], "stimulus=noise: no such configuration; expected given, none, ou."),
    (["train", "trial.lern_every=5"], "trial.lern_every: no such key. Did you mean trial.learn_every?"),
    (["train", "n_neurons=9"], "n_neurons: no such key. Did you mean network.n_neurons or feedforward.n_neurons?"),
    (["train", "conifg=tiny"], "conifg: no such key. Did you mean config?"),
    (["train", "--config", "tiny"], "--config: no such option. An experiment is named without dashes, as in rlsnet train tiny."),
    (
        ["train", "target=recording", "recording.path=rates.nwb"],
        "a file; expected a recording.zarr, which rlsnet import rates.nwb OUT.zarr",
    ),
    (["test", "run", "perturb=silence", "perturb.neurons=ALM"], "or a filter such as region == 'ALM'. Did you mean region:ALM?"),
    (["info", "rates.nwb"], "error: rates.nwb: a file; expected a run folder or a .zarr; rlsnet import rates.nwb OUT.zarr --dry-run shows"),
    (["train", "neurone=lif"], "neurone: no such key. Did you mean neuron?"),
    (["train", "trial.learn_every=0.15"], "trial.learn_every=0.15 ms: expected a multiple of trial.dt=0.1 ms"),
    (["train", "trial.stim_on=1500"], "trial.stim_on=1500 ms: expected a time that is not after trial.stim_off=1000 ms."),
    (["train", "config=tiny", "plastic.n_inputs=1000"], "plastic.n_inputs=1000: expected at most 512"),
    (["train", "train.iterations=many"], "train.iterations=many: expected a whole number."),
    (["train", "config=mouse_decision", "recording.path=nowhere.zarr"], "recording.path=nowhere.zarr: no such folder"),
    (["train", "config=million", "network.n_neurons=100000000"], " (fits in "),
    (["train", "resume=nowhere"], "error: nowhere: no such folder; expected a run folder, which rlsnet train makes."),
    (["train", "engine.platform=gpu"], "engine.platform=gpu: JAX finds no such device here, only cpu"),
    (["train", "trial.dt=["], "trial.dt=["),
    (["train", "trial.dt=5 Hz"], "trial.dt=5 Hz: Hz is not a unit of this setting; expected a number in ms, or with its unit"),
    (["test"], "test: expected a run folder, such as rlsnet test outputs/2026-11-21/10-00-00 or rlsnet test last."),
    (["test", "run=run", "test.checkpoint=77"], "test.checkpoint=77: run has no such checkpoint; it has checkpoints of iterations 2, 4."),
    (["train", "rls.penlambda=.4,.8"], "rls.penlambda=.4,.8: several values make a sweep, which needs sweep=FOLDER (or -m)."),
    (
        ["train", "config=tiny", "target=recording", "static.out_degree=0", "noise.sigma=0.001", "recording.path=rates.zarr"],
        "expected at least 0.005",
    ),
    (["train", "network.load=empty.zarr"], "neuron/excitatory has 0 values; expected one per neuron"),
    (["test", "urn"], "error: urn: no such folder; expected a run folder, which rlsnet train makes. Did you mean run?"),
    (["analyse", "empty.zarr"], "error: empty.zarr: not a run folder"),
    (["plot", "run=nowhere"], "error: nowhere: no such folder"),
    (["info", "nowhere"], "error: nowhere: no such folder"),
    (["train", "config=tinny"], "Did you mean config=tiny?"),
    (["test", "run", "perturb=silense"], "expected clamp, cue, excite, none, silence. Did you mean perturb=silence?"),
    (["train", "tiny", "rls.storage=packd"], "expected full, packed or window. Did you mean packed?"),
    (["import", "x.nwb", "y.zarr", "preset=mpa"], "or the path of a .yaml file. Did you mean map?"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_a_mistake_gets_one_line_and_a_status(place, arguments, message):
    if "engine.platform=gpu" in arguments:
        import jax

        assert jax.default_backend() == "cpu", "this row is for machines without a GPU"
    result = rlsnet(*arguments, cwd=place, status=1)
    complaint = result.stderr.strip().splitlines()
    assert len(complaint) == 1 and complaint[0].startswith("rlsnet: error: ") and message in complaint[0]
    assert message not in result.stdout
    assert not (place / "nowhere").exists()


def test_info_on_procedural_synapses_and_a_window(tmp_path):
    """Neither has the array that others have: no static targets, no P."""
    small = ["config=tiny", "network.n_neurons=60", "static.out_degree=12", "plastic.n_inputs=8", "train.iterations=1", "progress=off"]
    rlsnet("train", *small, "static.storage=procedural", "rls.storage=window", "rls.window=7", "hydra.run.dir=run", cwd=tmp_path)
    network = rlsnet("info", "run/network.zarr", cwd=tmp_path).stdout
    assert "12.0, s.d. 0.0, drawn again for each spike" in network and "12.0 on average" in network
    assert "from a window of 7 updates" in rlsnet("info", "run/checkpoints/000001.zarr", cwd=tmp_path).stdout
