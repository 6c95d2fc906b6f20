"""Pages and tables of stored results: correct numbers, no external resources, and names with markup shown as text."""

import base64
import html.parser
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import zarr
from conftest import compose
from cut_text import cut_texts_of

from rlsnet.analysis import comparison, inspect, recording_summary
from rlsnet.analysis.plots import heatmap_figures, perturbation_figures, raster_figures, recording_figures, run_figures, score_figures
from rlsnet.analysis.plots.style import WIDTH
from rlsnet.analysis.test_results import RunResults, open_results
from rlsnet.cli.commands import compare, plot, report
from rlsnet.cli.main import dispatch
from rlsnet.config import differences
from rlsnet.config.load import to_dict
from rlsnet.data import statistics, synthetic
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.io.formatting import byte_size
from rlsnet.learning import scores
from rlsnet.learning.population import EXPLAINED
from rlsnet.runs.folder import Run
from rlsnet.workflows import testing, training

HOSTILE = "<img src=x onerror=alert(1)> & \"lab\" 'x'"
SMALL = "config=mouse_decision plastic.n_inputs=16 trial.stim_on=10 trial.stim_off=40 train.iterations=3 test.trials=2".split()
VOID = {"meta", "link", "br", "img", "hr", "input", "wbr"}
N = 60


def put(group: zarr.Group, name: str, values: np.ndarray, dims: list[str]) -> None:
    if name in group:
        del group[name]
    zarr_store.write(group, name, values, dims)


def make_recording(path: Path, n: int = N) -> None:
    """The synthetic recording with what an import adds: halves, reliability, sessions, options, what was dropped."""
    synthetic.make(path, n)
    group, random = zarr.open_group(str(path), mode="a"), np.random.default_rng(1)
    rate = group["rate"][...]
    noise = random.normal(0, 1, rate.shape) * np.sqrt(rate)
    put(
        group,
        "rate_half",
        np.stack([np.maximum(rate + noise, 0), np.maximum(rate - noise, 0)]).astype("f4"),
        ["half", "condition", "time", "unit"],
    )
    put(group, "unit/region", np.array(["ALM", "<b>thalamus</b>", ""])[np.arange(n) % 3], ["unit"])
    session = {"name": "ses-1", "path": "a.nwb", "units": 90, "kept": n, "trials": 240, "used": {"left": 100, "right": 90}}
    given = {"format": "nwb", "align": "go_start_times", "window": [-2, 1], "conditions": {"left": "trial_instruction=='left'"}}
    group.attrs.update({"source": HOSTILE, "import": given, "sessions": [session], "dropped": {"mean rate below 0.5 Hz": 30}, "version": 1})
    zarr_store.seal(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a recording and a run trained and tested on it, `<script>x`, and a perturbed test of it."""
    place = tmp_path_factory.mktemp("place")
    make_recording(place / "r.zarr")
    run, given = Run(place / "<script>x"), [*SMALL, f"recording.path={place / 'r.zarr'}", "recording.half=odd"]
    training.run_training(compose(*given), run, False)
    testing.run_test(compose(*given), run)
    testing.run_test(compose(*given, "perturb=silence", "perturb.neurons=region:ALM", "perturb.label=no_ALM"), run)
    report.main([str(run.path)], report.Options())
    return place


class Page(html.parser.HTMLParser):
    """A page's tags, ids, links, figures and text; fails where tags do not balance."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.ids, self.links, self.shown, self.unnamed, self.figures = [], [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[name] for name in ("href", "src", "srcset", "action", "data") if name in found]
        assert not any(name.startswith("on") for name in found)
        if (tag == "img" and not found.get("alt")) or (found.get("role") == "img" and not found.get("aria-label")):
            self.unnamed.append(found)
        if tag == "img":
            kind, data = found["src"].split(",")
            assert kind == "data:image/svg+xml;base64"
            self.figures.append(base64.b64decode(data).decode())

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.shown.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.shown).split())


@pytest.fixture(scope="module")
def page(place):
    return (place / "<script>x" / "report.html").read_text()


class Panel(html.parser.HTMLParser):
    """An SVG image; fails where it has a handler of events or a script."""

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "foreignobject") and not any(name.startswith("on") for name, _ in attrs)


def stands_alone(text: str) -> Page:
    parsed = Page(text)
    assert all(link.startswith(("#", "data:")) for link in parsed.links)
    assert not re.search(r"url\((?!#)|@import|https?:", re.sub(r"[A-Za-z0-9+/=]{200,}", "", text))
    assert not parsed.unnamed
    for figure in parsed.figures:
        assert not re.search(r'(?:href|src)="(?!#|data:)|url\((?!#)|<script|@import', figure)
        Panel().feed(figure)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    return parsed


def test_a_report_stands_alone(page):
    parsed = stands_alone(page)
    assert parsed.tags.count("h1") == 1 and len(parsed.figures) >= 12
    assert "script" not in parsed.tags and "svg" not in parsed.tags and "b" not in re.findall(r"<b>thal", page)
    assert len(page) < 3e6


def of_neurons(score: np.ndarray) -> float:
    """Median over neurons of their means over conditions."""
    known = np.isfinite(score)
    return float(np.median([column[k].mean() for column, k in zip(score.T, known.T, strict=True) if k.any()]))


def test_a_report_says_what_the_files_say(place, page):
    run, text = place / "<script>x", Page(page).text
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    test = zarr.open_group(str(run / "test.zarr"), mode="r")
    held, ceiling = (of_neurons(test[name][...]) for name in ("heldout_correlation", "noise_ceiling"))
    tile = f"Test: correlation, held-out trials {held:.2f} median; {100 * held / ceiling:.0f} % of the noise ceiling {ceiling:.2f}"
    assert tile in text
    explained = population_of(place)["all"]
    model, ceiling = (f"{100 * explained[name]:.0f} %" for name in ("model", "ceiling"))
    tile = f"Test: population explained variance {model} the other half of the trials: {ceiling}"
    assert tile in text and "The network explains" in text
    row = [f"{round(100 * explained[name])} %" for name in EXPLAINED]
    assert f"all {' '.join(row)}" in text
    assert f"Firing rate in training {metrics[-1]['rate_hz']:.2f} Hz" in text and "Iterations 3 of 3" in text
    last = np.mean([metrics[-1]["correlation"], metrics[-2]["correlation"]])  # a condition each
    assert f"Training: correlation {last:.3f}" in text
    region = np.array(test["region"][...], object)
    for name in ("ALM", "<b>thalamus</b>"):
        mine = test["heldout_correlation"][...][:, region == name]
        assert f"{name} {mine.shape[1]} {of_neurons(mine):.3f}" in text
    lines = [json.loads(line) for line in (run / "resources.jsonl").read_text().splitlines()]
    peak = max(line["memory_peak_mb"] for line in lines if line["verb"] == "train")
    assert f"Peak memory {byte_size(1e6 * peak)}" in text


def test_a_report_says_where_the_data_come_from(page):
    text = Page(page).text
    for words in (
        "go_start_times",
        "[-2,1]",
        "trial_instruction=='left'",
        "ses-1",
        "left 100, right 90",
        "mean rate below 0.5 Hz 30",
        HOSTILE,
    ):
        assert words in text, words


def test_a_report_shows_perturbed_tests(place, page):
    text = Page(page).text
    without, with_ = (
        zarr.open_group(str(place / "<script>x" / name), mode="r")["psth"][...] for name in ("test.zarr", "perturbed/no_ALM.zarr")
    )
    time = np.arange(1, 151) * 20 - 10
    inside, others = (time > 1000) & (time < 2000), np.arange(N) % 3 != 0
    change = " \u2192 ".join(f"{psth[:, inside][:, :, others].mean():.2f}" for psth in (without, with_))
    recorded = zarr.open_group(str(place / "r.zarr"), mode="r")["time"]
    start = round(recorded[0] - 0.01 + 1, 9)  # perturb.start is 1 s after the stimulus, which ends where the recording begins
    window = f"{start:g} to {start + 1:g} s {recorded.attrs['long_name'].removeprefix('time ')}"
    assert "no_ALM" in text and f"silence: 20 of 60 neurons (region ALM), {window}" in text and change in text
    assert with_[:, inside][:, :, ~others].max() == 0


def test_a_report_of_a_run_that_has_little(place, tmp_path):
    """Only a configuration and one iteration: what is missing is said, and nothing fails."""
    for name in ("config.yaml", "network.zarr"):
        source = place / "<script>x" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    (tmp_path / "metrics.jsonl").write_text((place / "<script>x" / "metrics.jsonl").read_text().splitlines()[0] + "\n")
    report.main([str(tmp_path)], report.Options(out=str(tmp_path / "out" / "r.html")))
    text = stands_alone((tmp_path / "out" / "r.html").read_text()).text
    assert "Training is not done: 1 of 3 iterations." in text and "Not tested yet" in text
    assert not (tmp_path / "report.html").exists()


def test_pages_of_a_folder_whose_name_is_no_text(place, tmp_path, capsys):
    path = tmp_path / os.fsdecode(b"m\xfcller")
    for name in ("config.yaml", "network.zarr", "metrics.jsonl"):
        source = place / "<script>x" / name
        path.mkdir(exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, path / name)
    report.main([str(path)], report.Options(out=str(tmp_path / "r.html")))
    compare.main([str(path)], compare.Options(out=str(tmp_path / "c.html")))
    for page in (tmp_path / "r.html", tmp_path / "c.html"):
        assert "m\\udcfcller" in page.read_text(encoding="utf-8")
    assert "m\\udcfcller" in capsys.readouterr().out


COMMANDS = [
    ["config=tiny"],
    ["config=mouse_decision", "neuron=glif3", "neuron.asc_jump_1=-0.2", "noise.sigma=[0.2,0.3]", "noise.kind=current"],
    ["static=none", "feedforward=ou", "feedforward.n_neurons=8", "rls.dale=true", "train.iterations=7", "test.neurons='0:10,exc'"],
    ["config=mouse_decision", r"recording.path='/a b/it\'s {x}$[1].zarr'", "target.rate_floor=1e-05", "seed=9007199254740993"],
    ["config=tiny", "target.n_conditions=2", "train.order=weighted", "train.weights=[1,2]", "target.bias=ramp", "test.checkpoint='3'"],
]


@pytest.mark.parametrize("overrides", COMMANDS, ids=" ".join)
def test_the_command_makes_the_same_settings(overrides):
    wanted = to_dict(compose(*overrides))
    arguments = differences.command(wanted)
    assert to_dict(compose(*arguments)) == wanted
    assert len(arguments) <= len(overrides) + 1
    assert set(differences.differences(to_dict(compose()))) == set()


def test_the_command_of_other_data_does_not_name_the_demonstration():
    """Although that is the shortest way to say 600 neurons, half of the trials and 40 iterations."""
    own = ["config=mouse_decision", "recording.path=r.zarr", "recording.half=odd", "network.n_neurons=600", "train.iterations=40"]
    assert set(differences.command(to_dict(compose(*own)))) == set(own)
    assert differences.command(to_dict(compose("config=demo"))) == ["config=demo"]


def test_the_model_is_drawn_smoothed_as_the_recorded_rates():
    """Which are drawn as they are; without a kernel both are averaged over the window of the scores, and currents always are."""
    config, random = compose("config=mouse_decision"), np.random.default_rng(0)
    values = random.normal(size=(config.trial.n_points, 3))
    windowed = scores.window_weights(config.trial) @ values
    smoothed = scores.smoothing_weights((0.2, 0.6, 0.2), len(values)) @ values
    for kernel, of_model, of_data in (((0.2, 0.6, 0.2), smoothed, values), ((), windowed, windowed)):
        results = RunResults(config, Run("run"), zarr.create_group({}, attributes={"smoothing": list(kernel)}))
        expected = {"psth": of_model, "rate_heldout": of_data, "rate_target": of_data, "current_mean": windowed, "current_target": windowed}
        for name, wanted in expected.items():
            np.testing.assert_allclose(results.smooth(name, values), wanted, rtol=1e-6, atol=1e-9, err_msg=name)


def test_the_command_in_a_shell_is_one_argument_a_setting():
    arguments = ["config=tiny", "recording.path='/a b/$HOME'", "noise.sigma=[0.2,0.3]"]
    line = differences.shell("train", arguments).replace("rlsnet train", "printf '%s\\n'")
    assert subprocess.run(["sh", "-c", line], capture_output=True, text=True).stdout.splitlines() == arguments


@pytest.fixture(scope="module")
def sweep(place):
    """Runs that differ in one setting and in what they reached, one that never started, one that is damaged, one that goes on."""
    sweep = place / "sweep"
    for index, (penlambda, correlation, lines) in enumerate([(0.5, 0.2, 3), (2.0, 0.6, 3), (1.0, 0.4, 1)]):
        folder = sweep / str(index)
        folder.mkdir(parents=True)
        config = (place / "<script>x" / "config.yaml").read_text().replace("penlambda: 0.02", f"penlambda: {penlambda}")
        (folder / "config.yaml").write_text(config)
        line = json.loads((place / "<script>x" / "metrics.jsonl").read_text().splitlines()[0]) | {"correlation": correlation}
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line | {"iteration": k + 1}) + "\n" for k in range(lines)))
    (sweep / "3" / ".hydra").mkdir(parents=True)
    shutil.copytree(sweep / "0", sweep / "<script>4")
    (sweep / "<script>4" / "metrics.jsonl").write_text('{"iteration": 1}\n')
    return sweep


def test_compare_sorts_and_names_what_is_broken(sweep, capsys):
    found = comparison.read([sweep])
    assert found.names == ["1", "2", "0"] and found.differing == [("rls.penlambda", [2.0, 1.0, 0.5])]
    assert [name for name, _ in found.unreadable] == ["3", "<script>4"]
    compare.main([str(sweep)], compare.Options(out=str(sweep / "c.html")))
    shown = capsys.readouterr().out
    assert re.search(r"│ 1 +│ +2.0 │ done +│ +3 │ +0.600 │", shown) and "1 of 3 iterations" in shown
    assert "3: has no config.yaml" in shown and "<script>4: " in shown and "line 1: expected an object" in shown
    parsed = stands_alone((sweep / "c.html").read_text())
    assert parsed.tags.count("script") == 1 and "<script>4" in parsed.text
    rows = re.findall(
        r'<tr(?: class="best")?><th scope="row">(\d)</th><td class="number" data-value="([^"]+)"', (sweep / "c.html").read_text()
    )
    assert rows == [("1", "2"), ("2", "1"), ("0", "0.5")]


def test_compare_uses_the_test_where_all_runs_have_one(place, capsys):
    found = comparison.read([place / "<script>x", place / "<script>x" / "."])
    assert found.score == "population" and len(found.runs) == 1
    assert found.runs[0].typical("population") == population_of(place)["all"]["model"]
    compare.main([str(place / "<script>x")], compare.Options(out=str(place / "one.html")))
    for text in (capsys.readouterr().out, Page((place / "one.html").read_text()).text):
        assert "<script>x: The network explains" in text and "sorted by the test's population explained variance" in text
    parsed = stands_alone((place / "one.html").read_text())
    assert "Vertical lines: the other half of the recorded trials." in parsed.text and len(parsed.figures) == 4  # one is a legend
    named = {"last correlation", "median rate correlation", "mean rate error (Hz)"}  # log and info show others too
    assert named <= {column.name for column in comparison.columns(found)}
    assert found.runs[0].typical("heldout_correlation") == pytest.approx(of_neurons(found_array(place)))


def test_the_baseline_of_correlations_is_the_mean_over_conditions(place):
    """Its correlation with the held-out rates, both averaged over the window of the scores, of each neuron and condition."""
    results = open_results(Run(place / "<script>x"))
    found, window = score_figures.baseline_correlation(results), scores.window_weights(results.config.trial)
    trained, heldout = results.read("rate_target"), results.read("rate_heldout")
    for c in range(2):
        for n in range(0, N, 7):
            expected = np.corrcoef(window @ trained.mean(axis=0)[:, n], window @ heldout[c, :, n])[0, 1]
            assert found[c, n] == pytest.approx(expected, rel=1e-5)


def test_heatmaps_are_fractions_of_the_range_of_a_neuron_in_the_data(place):
    """By region, the largest first, and by the time of the peak in the trials trained on; model minus data, and between conditions."""
    results = open_results(Run(place / "<script>x"))
    data, model = (np.stack([results.smooth(name, block) for block in results.read(name)]) for name in ("rate_heldout", "psth"))
    low, high = data.min(axis=(0, 1)), data.max(axis=(0, 1))
    data, model = ((each - low) / (high - low) for each in (data, model))
    peak = np.argmax(results.smooth("rate_target", results.read("rate_target", 0)), axis=0)
    names = [str(name) for name in results.read("region")]
    first = {name: sorted(set(names)).index(name) for name in names}  # regions of equal size are in order of their names
    order = sorted(range(N), key=lambda n: (-names.count(names[n]), first[names[n]], peak[n], n))
    drawn = [axes.images[0].get_array() for axes in heatmap_figures.heatmaps(results).compose().axes if axes.images]
    wanted = [(data[0], model[0]), (data[1], model[1]), (data[1] - data[0], model[1] - model[0])]
    for panel, (d, m) in enumerate(wanted):
        for row, expected in enumerate((d, m, m - d)):
            np.testing.assert_allclose(drawn[panel + 3 * row], expected[:, order].T, atol=1e-5, err_msg=f"panel {panel}, row {row}")


def test_no_text_of_a_figure_is_cut(place):
    """Of the run, of its perturbed tests and of the recording; nor are titles and labels over each other, and all fit a page."""
    results = open_results(Run(place / "<script>x"))
    data = recording_summary.summarize(str(place / "r.zarr"))
    drawn = dict(run_figures.figures(results)) | {name: draw(data) for name, draw in recording_figures.available(data).items()}
    assert "perturbed_no_ALM" in drawn and "psth_heatmap" in drawn
    for name, figure in drawn.items():
        assert not isinstance(figure, UserError), f"{name}: {figure}"
        assert cut_texts_of(figure) == [] and figure.compose().get_figwidth() <= WIDTH + 1e-6, name


def test_rasters_and_heatmaps_have_one_order_of_regions(place, monkeypatch):
    """And a name for each region, however small."""
    results = open_results(Run(place / "<script>x"))
    region = np.repeat(["a", "tiny", "z", "m"], [14, 1, 25, 20])
    monkeypatch.setattr(RunResults, "region", property(lambda _: region))
    for draw in (heatmap_figures.heatmaps, raster_figures.raster):
        labels = [label.get_text() for label in draw(results).compose().axes[0].get_yticklabels()]
        assert labels == ["z", "m", "a", "tiny"]


def test_the_legend_of_a_cue_names_what_is_drawn(place):
    """The stimulus ends where the learned part begins; the title says when the cue was given."""
    results = open_results(Run(place / "<script>x"))
    given = [*SMALL, f"recording.path={place / 'r.zarr'}", "recording.half=odd", "perturb=cue"]
    for label, setting, words in (("told", "perturb.cue=left", ", before the time shown"), ("none", "perturb.factor=0", "; own cue from ")):
        testing.run_test(compose(*given, setting, f"perturb.label={label}"), results.run)
        figure = perturbation_figures.perturbed(label, results)
        assert "stimulus" not in [handle.get_label() for handle in figure.handles] and words in figure.title
        assert cut_texts_of(figure) == []
    shaded = perturbation_figures.perturbed("no_ALM", results)
    assert "window" in [handle.get_label() for handle in shaded.handles]


def population_of(place: Path) -> dict:
    return zarr.open_group(str(place / "<script>x" / "test.zarr"), mode="r").attrs["scores"]["population"]


def found_array(place: Path) -> np.ndarray:
    return zarr.open_group(str(place / "<script>x" / "test.zarr"), mode="r")["heldout_correlation"][...]


def test_plot_of_a_recording(place, capsys):
    from PIL import Image

    before = sorted(place.rglob("r.zarr/**/*"))
    plot.main([str(place / "r.zarr")], plot.Options())
    assert {p.stem for p in (place / "r.figures").iterdir()} == {"psth_heatmap", "psth_examples", "mean_rates", "units", "reliability"}
    for path in (place / "r.figures").iterdir():
        assert np.asarray(Image.open(path).convert("L")).std() > 10
    assert sorted(place.rglob("r.zarr/**/*")) == before and "r.figures/units.png" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["rate", "current"])
def test_plot_of_a_recording_with_nothing_but_values(tmp_path, kind):
    values = np.random.default_rng(0).gamma(2, 3, (2, 40, 9)).astype("f4")
    values[:, :, 4], values[0, :3, 5], values[1, :, 6] = np.nan, np.nan, 0
    zarr.create_group(str(tmp_path / "r.zarr"), attributes={"bin_ms": 20.0}).create_array(kind, data=values, chunks=(1, 40, 4))
    form = {"rate": "png", "current": "svg"}[kind]
    plot.main([str(tmp_path / "r.zarr")], plot.Options(out=str(tmp_path / "here"), format=form, dpi=40.0))
    assert {p.suffix for p in (tmp_path / "here").iterdir()} == {f".{form}"}
    assert {p.stem for p in (tmp_path / "here").iterdir()} == {"psth_heatmap", *(["mean_rates", "psth_examples"] if kind == "rate" else [])}


@pytest.mark.parametrize("rate", [0.0, np.nan], ids=["silent", "unknown"])
def test_figures_of_a_recording_without_activity(tmp_path, rate):
    group = zarr.create_group(str(tmp_path / "r.zarr"), attributes={"bin_ms": 20.0})
    for name, shape in (("rate", (2, 5, 3)), ("rate_half", (2, 2, 5, 3))):
        group.create_array(name, data=np.full(shape, rate, "f4"), chunks=shape)
    plot.main([str(tmp_path / "r.zarr")], plot.Options(out=str(tmp_path / "here"), dpi=40.0))
    names = {p.stem for p in (tmp_path / "here").iterdir()}
    assert names == {"psth_heatmap", "mean_rates", "reliability", *(["psth_examples"] if rate == 0 else [])}


def test_a_summary_is_what_numpy_says_of_the_whole(place, tmp_path):
    found = recording_summary.summarize(str(place / "r.zarr"))
    rate, halves = (zarr.open_group(str(place / "r.zarr"), mode="r")[name][...].astype(float) for name in ("rate", "rate_half"))
    np.testing.assert_allclose(found.mean, rate.mean(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(found.psth, rate[:, :, found.shown].astype("f4"))
    expected = [[np.corrcoef(*halves[:, c, :, n])[0, 1] for n in range(N)] for c in range(2)]
    np.testing.assert_allclose(found.reliability, expected, rtol=1e-9)
    x = rate.copy()
    x[0, 5, 7] = x[1, :, 8] = np.nan
    correlation = statistics.correlation_known(x.swapaxes(0, 1), rate.swapaxes(0, 1))
    assert np.isnan(correlation[1, 8]) and correlation[0, 7] == pytest.approx(1)


def test_info_on_an_imported_recording(place, capsys):
    inspect.show(str(place / "r.zarr"))
    shown = " ".join(re.sub(r"[│\n]", " ", capsys.readouterr().out).split())
    assert "units by region ALM 20, <b>thalamus</b> 20, no region 20" in shown and "left out mean rate below 0.5 Hz 30" in shown
    reliability = recording_summary.summarize(str(place / "r.zarr")).reliability
    assert reliability is not None and f"reliability left median {np.median(reliability[0]):.2f}" in shown
    assert "align=go_start_times" in shown and "sessions 1: 0 (60 units)" in shown


WRONG = [
    (["report", "nowhere"], "nowhere: no such folder"),
    (["report"], "report: expected one run folder"),
    (["report", "r.zarr"], "r.zarr: is a recording, not a run folder; rlsnet train mouse_decision recording.path=r.zarr trains"),
    (["report", "sweep"], "lists them; expected a run, such as sweep/"),
    (["report", "run/test.zarr"], "run/test.zarr: is a part of a run, not a run folder; expected run."),
    (["train", "r.zarr"], "r.zarr: is a recording, not a run folder"),
    (["train", "sweep"], "sweep: contains "),
    (["report", "run", "out=."], "out=.: a folder"),
    (["report", "run", "out=r.pdf"], "out=r.pdf: an HTML page is written; expected a name that ends in .html, such as r.html."),
    (["compare", "run", "out=x.csv"], "out=x.csv: an HTML page is written; expected a name that ends in .html, such as x.html."),
    (["plot", "run", "out=rates.png"], "out=rates.png: a folder of figures is written; expected a name without .png, such as rates."),
    (["export", "run", "to=npz", "out=a.npz"], "out=a.npz: an export to npz, a folder, is written; expected a name without .npz"),
    (["export", "run", "to=nwb", "out=a.zarr"], "out=a.zarr: an export to nwb is written; expected a name that ends in .nwb"),
    (["report", "run", "colour=red"], "colour: no such setting of report."),
    (["compare"], "compare: expected run folders"),
    (["compare", "nowhere"], "nowhere: no such folder"),
    (["compare", "r.zarr"], "r.zarr: contains no run"),
    (["plot"], "plot: expected one path"),
    (["plot", "nowhere"], "nowhere: no such folder"),
    (["plot", "run=nowhere"], "nowhere: no such folder"),
    (["plot", "run/test.zarr"], "expected a run folder or a recording.zarr"),
    (["plot", "sweep"], "runs; rlsnet runs sweep lists them."),
    (["plot", "r.zarr", "out=run/config.yaml"], "out=run/config.yaml: a file"),
    (["plot", "negative.zarr"], "expected a finite rate of at least 0 Hz"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_a_mistake_gets_one_line(place, sweep, monkeypatch, arguments, message):
    monkeypatch.chdir(place)
    if not Path("run").exists():
        Path("run").symlink_to("<script>x")
        zarr.create_group("negative.zarr", attributes={"bin_ms": 20.0})["rate"] = np.full((1, 5, 3), -1, "f4")
    with pytest.raises(UserError) as error:
        dispatch(arguments)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not Path("nowhere").exists()


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"
FRAMES = """<!DOCTYPE html><title>frames</title><body><script>
const pages = {pages}, widths = [360, 390, 1440], found = [];
for (const page of pages) for (const width of widths) {{
  const frame = document.createElement("iframe");
  frame.width = width; frame.height = 800; frame.style.border = 0; frame.srcdoc = page;
  frame.onload = () => {{
    const inside = frame.contentDocument;
    for (const each of inside.querySelectorAll("details")) each.open = true;
    const root = inside.documentElement, buttons = inside.querySelectorAll("th button"), images = [...inside.images];
    const drawn = images.length > 0 && images.every((image) => image.naturalWidth > 0);
    let order = "";
    if (buttons.length) {{ buttons[1].click(); buttons[1].click(); order = inside.querySelector("tbody th").textContent; }}
    found.push([width, root.scrollWidth, frame.contentWindow.innerWidth, drawn, order]);
    if (found.length == pages.length * widths.length) document.body.dataset.found = JSON.stringify(found);
  }};
  document.body.append(frame);
}}
</script>"""


@pytest.mark.browser
def test_pages_fit_a_phone_and_a_desk_in_a_browser(place, sweep, page, tmp_path):
    """pytest -m browser: nothing reaches beyond the width of the window, nothing complains, headings sort."""
    assert CHROMIUM, "chromium is not on PATH"
    compare.main([str(sweep)], compare.Options(out=str(tmp_path / "c.html")))
    pages = json.dumps([page, (tmp_path / "c.html").read_text()]).replace("</", "<\\/")
    (tmp_path / "frames.html").write_text(FRAMES.format(pages=pages))
    command = [CHROMIUM, *FLAGS.split(), "--disable-sync", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=20000", "--dump-dom", str(tmp_path / "frames.html")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    match = re.search(r'data-found="([^"]*)"', result.stdout)
    assert match, result.stderr[-2000:]
    found = json.loads(html.unescape(match[1]))
    assert len(found) == 6 and {width for width, *_ in found} == {360, 390, 1440}
    assert all(scroll <= inner == width for width, scroll, inner, *_ in found), found
    assert all(drawn for *_, drawn, _ in found) and {order for *_, order in found} == {"", "0"}  # the least penlambda comes first
    assert "CONSOLE" not in result.stderr
