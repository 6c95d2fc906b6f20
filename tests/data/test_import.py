"""Import of NWB files written with pynwb: contents of the recording, units left out, messages, and training on the result."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import sessions
import yaml
import zarr
from conftest import compose

from rlsnet import data
from rlsnet.cli.main import main
from rlsnet.config.arguments import plain_arguments
from rlsnet.data import import_options, importing, pooling, recordings, trial_average, trial_counts
from rlsnet.data.formats import nwb
from rlsnet.data.import_options import Options, base, options_of
from rlsnet.data.session import PrecomputedRates
from rlsnet.errors import UserError
from rlsnet.runs.folder import Run
from rlsnet.workflows import training

RLSNET = [sys.executable, "-m", "rlsnet"]


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    return sessions.write(tmp_path_factory.mktemp("map"), "map")


@pytest.fixture(scope="module")
def ibl(tmp_path_factory):
    return sessions.write(tmp_path_factory.mktemp("ibl"), "ibl", units=(20,), trials=70)


def options(*arguments):
    """Options from arguments of the command line."""
    return plain_arguments(Options, "import", arguments, base(arguments))[1]


def imported(sources, out, *arguments):
    """(store, lines printed) of an import."""
    message = []
    importing.import_sources([str(s) for s in sources], out, options(*arguments), message.append)
    return zarr.open_group(str(out), mode="r"), message


@pytest.fixture(scope="module")
def pooled(maps, tmp_path_factory):
    return imported([path for path, _ in maps], tmp_path_factory.mktemp("out") / "map.zarr", "preset=map")


def loop(made, unit, trials, go, window=(-2.0, 1.0)):
    """([M] Hz of one unit, unsmoothed, number of trials) from a loop over the trials in which the unit was observed."""
    counts, number = np.zeros(150), 0
    for k in trials:
        if k >= made.until[unit] or go[k] + window[0] < made.start[k] or go[k] + window[1] > made.stop[k]:
            continue
        number += 1
        for time in made.spikes[unit]:
            if 0 <= time - go[k] - window[0] < 3:
                counts[int((time - go[k] - window[0]) / 0.02)] += 1
    return counts / max(number, 1) / 0.02, number


def test_a_file_gives_the_same_values_as_pynwb(maps):
    from pynwb import NWBHDF5IO

    path, made = maps[0]
    found = nwb.read(path, Options(region_column="anno_name"))
    with NWBHDF5IO(str(path), "r") as io:
        file = io.read()
        for u in range(len(file.units)):
            np.testing.assert_array_equal(found.spike_times[found.spike_index[u] : found.spike_index[u + 1]], file.units["spike_times"][u])
            observed, index = found.observed
            np.testing.assert_array_equal(observed[index[u] : index[u + 1]], file.units["obs_intervals"][u])
            assert found.units["probe"][u] == file.units["electrode_group"][u].name
        for name in ("unit", "classification", "anno_name", "presence_ratio"):
            np.testing.assert_array_equal(found.units[name], file.units[name].data[:])
        for name in file.trials.colnames:
            np.testing.assert_array_equal(found.trials[name], file.trials[name].data[:])
        series = file.acquisition["BehavioralEvents"].time_series
        assert set(found.events) == set(series)  # the lever has a rate, no times
        for name in series:
            np.testing.assert_array_equal(found.events[name], series[name].timestamps[:])
    assert found.name == "map-1" and "waveform_mean" not in found.units


def test_regions_and_probes_by_electrodes(maps, ibl, tmp_path):
    places = np.array(["ALM", "striatum", "striatum", "thalamus"])
    read = nwb.read(ibl[0][0], Options())
    assert read.units["region"].tolist() == places[np.arange(20) % 4].tolist()
    assert read.units["probe"].tolist() == [f"probe0{u % 2}" for u in range(20)]

    def without_names(file):
        del file["units/probe_name"], file["units/electrodes"], file["units/electrodes_index"]
        file["units/peak_channel_id"] = (np.arange(20) + 1) % 4

    read = nwb.read(sessions.altered(ibl[0][0], tmp_path / "peak.nwb", without_names), Options())
    assert read.units["region"].tolist() == places[(np.arange(20) + 1) % 4].tolist()
    assert read.units["probe"].tolist() == [f"probe{(u + 1) % 4 // 2}" for u in range(20)]  # the electrodes' groups
    assert nwb.read(maps[0][0], Options(region_column="location")).units["region"][:4].tolist() == places.tolist()


def test_rates_of_a_map_import_against_a_loop(maps, tmp_path):
    root, message = imported([path for path, _ in maps], tmp_path / "raw.zarr", "preset=map", "kernel=none")
    rate, number = root["rate"][...], 0
    session, ids = root["unit/session"][...], root["unit/id"][...].astype(int)
    for path, made in maps:
        with h5py.File(path) as file:
            go = file["acquisition/BehavioralEvents/go_start_times/timestamps"][...]
        of_trial = [next((t for t in go if a <= t < b), np.nan) for a, b in zip(made.start, made.stop, strict=True)]
        for c in range(2):
            hits = (made.side == c) & (made.outcome == "hit") & ~made.early & ~made.stimulated & np.isfinite(of_trial)
            assert root.attrs["sessions"][number]["used"][("left", "right")[c]] == hits.sum()
            for n in np.flatnonzero(session == path.stem)[::4]:
                expected, trials = loop(made, ids[n], np.flatnonzero(hits), of_trial)
                np.testing.assert_allclose(rate[c, :, n], expected, atol=1e-4)
                assert root["unit/n_trials"][n, c] == trials
        number += 1
    assert np.allclose(root["unit/mean_rate"][...], rate.mean(axis=(0, 1)), atol=1e-4)
    of_trial = np.array(of_trial)
    start = of_trial[(made.outcome == "hit") & ~made.early & ~made.stimulated & np.isfinite(of_trial)] - 2
    for n in np.flatnonzero(session == path.stem)[::4]:
        interval, pairs = [], []
        for begin in start:
            times = np.sort(made.spikes[ids[n]])
            inside = np.diff(times[(times >= begin) & (times < begin + 3)])
            interval.extend(inside)
            pairs.extend(2 * abs(a - b) / (a + b) for a, b in zip(inside[:-1], inside[1:], strict=True))
        if len(pairs) >= 10:
            assert root["unit/interval_cv"][n] == pytest.approx(np.std(interval) / np.mean(interval), rel=1e-5)
            assert root["unit/interval_cv2"][n] == pytest.approx(np.mean(pairs), rel=1e-5)
    assert np.isfinite(root["unit/interval_cv2"][...]).mean() > 0.8
    recording = recordings.open_recording(tmp_path / "raw.zarr")
    for h, half in enumerate(recordings.HALVES):
        spikes, trials = trial_counts.summed(recording, np.arange(rate.shape[2]), half)
        np.testing.assert_allclose(spikes / trials[:, None] / 0.02, root["rate_half"][h], rtol=1e-5)
    assert [group.attrs["session"] for _, group in sorted(root["trials"].groups())] == ["map-1", "map-2"]


def test_contents_of_the_recording(pooled, maps):
    root, message = pooled
    attributes = root.attrs.asdict()
    np.testing.assert_allclose(attributes["smoothing"], trial_average.smoothing_kernel(Options(**attributes["import"])))
    assert attributes["format"] == "rlsnet-recording" and attributes["version"] == 1 and attributes["bin_ms"] == 20
    assert attributes["import"]["align"] == "go_start_times" and attributes["import"]["preset"] == "map"
    assert attributes["import"]["conditions"] == {"left": "trial_instruction == 'left'", "right": "trial_instruction == 'right'"}
    good = [made.good.sum() - 1 * made.good[len(made.good) // 2] for _, made in maps]
    assert [each["kept"] for each in attributes["sessions"]] == good and [each["units"] for each in attributes["sessions"]] == [24, 40]
    assert sum(attributes["dropped"].values()) == 64 - sum(good) and "no spikes" in attributes["dropped"]
    n = root["rate"].shape[2]
    assert root["rate_half"].shape == (2, 2, 150, n) and root["half"][...].tolist() == ["odd", "even"]
    assert root["rate"].metadata.dimension_names == ("condition", "time", "unit")
    assert root["condition"][...].tolist() == ["left", "right"] and root["time"][0] == pytest.approx(-1.99)
    assert [root[f"unit/{name}"].shape[0] for name in ("session", "id", "region", "probe", "mean_rate", "n_trials", "reliability")] == [
        n
    ] * 7
    for _, made in maps[:1]:
        regions = np.array(sessions.example_sessions.synthetic.REGIONS)[made.region]
        ids = root["unit/id"][...][: good[0]].astype(int)
        assert root["unit/region"][...][: good[0]].tolist() == regions[ids].tolist()
    trials = root["unit/n_trials"][...].T[:, None]
    odd, even = root["rate_half"][...]
    np.testing.assert_allclose((odd * (-(-trials // 2)) + even * (trials // 2)) / trials, root["rate"][...], atol=1e-3)
    assert np.nanmean(root["unit/reliability"][...]) > 0.3
    assert message[0].startswith(f"map-1: {good[0]} of 24 units; of 80 trials left ") and "without the event" in message[0]


def test_simulated_rates_are_recovered(pooled, maps):
    """Simulated rates through spikes, files, events and trials back to rates."""
    root, _ = pooled
    known = np.concatenate([made.rate[:, :, made.good & (np.arange(len(made.good)) != len(made.good) // 2)] for _, made in maps], axis=2)
    found = root["rate"][...]
    assert np.corrcoef(known.ravel(), found.ravel())[0, 1] > 0.97
    assert np.median(found.mean(axis=(0, 1)) / known.mean(axis=(0, 1))) == pytest.approx(1, abs=0.04)


def test_ibl_preset_accepts_names_of_alf_and_of_its_nwb_files(ibl, tmp_path):
    path, made = ibl[0]
    root, _ = imported([path], tmp_path / "a.zarr", "preset=ibl")
    selected = made.good & (np.arange(20) != 10)
    assert root["rate"].shape == (2, 75, selected.sum()) and root["unit/id"][...].astype(int).tolist() == np.flatnonzero(selected).tolist()
    hits = [int(((made.side == c) & (made.outcome == "hit")).sum()) for c in range(2)]
    assert list(root.attrs["sessions"][0]["used"].values()) == hits

    def renamed(file):
        trials = file["intervals/trials"]
        for old, new in (
            ("stimOn_times", "stim_on_time"),
            ("firstMovement_times", "first_movement_time"),
            ("feedbackType", "feedback_type"),
        ):
            trials.move(old, new)
        trials.move("contrastLeft", "contrast_left")
        trials.move("contrastRight", "contrast_right")

    def tidy(file):
        trials = file["intervals/trials"]
        left = trials["contrastLeft"][...]
        side = np.where(np.isfinite(left), "left", "right").astype(object)
        contrast = np.where(np.isfinite(left), left, trials["contrastRight"][...]) * 100
        rewarded = trials["feedbackType"][...] > 0
        for old in ("contrastLeft", "contrastRight", "feedbackType"):
            del trials[old]
        trials.create_dataset("gabor_stimulus_side", data=side, dtype=h5py.string_dtype())
        trials["gabor_stimulus_contrast"], trials["is_mouse_rewarded"] = contrast, rewarded
        trials.move("firstMovement_times", "wheel_movement_onset_time")
        file["units"].move("label", "ibl_quality_score")

    for name, change in (("first", renamed), ("tidy", tidy)):
        again, _ = imported([sessions.altered(path, tmp_path / f"{name}.nwb", change)], tmp_path / f"{name}.zarr", "preset=ibl")
        np.testing.assert_array_equal(again["rate"][...], root["rate"][...])


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["regions=[ALM]"], lambda made: made.region == 0),
        (["regions=[alm, 'thal*']"], lambda made: np.isin(made.region, [0, 2])),
        (["units=classification == 'good' and presence_ratio > 0.9"], lambda made: made.until == 80),
        (["min_trials=30"], None),
        (["min_rate=2", "max_rate=10"], None),
    ],
)
def test_units_are_selected(maps, pooled, tmp_path, arguments, left):
    whole, _ = pooled
    root, _ = imported([path for path, _ in maps], tmp_path / "some.zarr", "preset=map", *arguments)
    if left is not None:
        known = {path.stem: left(made) for path, made in maps}
        expected = [known[s][int(u)] for s, u in zip(whole["unit/session"][...], whole["unit/id"][...], strict=True)]
    elif arguments[0].startswith("min_trials"):
        expected = (whole["unit/n_trials"][...] >= 30).all(axis=1)
    else:
        expected = (whole["unit/mean_rate"][...] >= 2) & (whole["unit/mean_rate"][...] <= 10)
    assert 0 < np.sum(expected) < len(expected)
    np.testing.assert_array_equal(root["rate"][...], whole["rate"][...][:, :, np.array(expected, bool)])
    assert sum(root.attrs["dropped"].values()) == 64 - root["rate"].shape[2]


def test_conditions_that_lack_trials_are_unknown_with_min_trials_0(maps, tmp_path):
    root, _ = imported(
        [maps[0][0]], tmp_path / "x.zarr", "preset=map", "min_trials=0", "conditions={left: trial_instruction == 'left', odd: trial > 900}"
    )
    rate = root["rate"][...]
    assert np.isfinite(rate[0]).all() and np.isnan(rate[1]).all() and (root["unit/n_trials"][...][:, 1] == 0).all()


def test_a_subsample_is_drawn_from_all_sessions_and_reproducible(maps, pooled, tmp_path, monkeypatch):
    whole, _ = pooled
    paths = [path for path, _ in maps]
    root, _ = imported(paths, tmp_path / "a.zarr", "preset=map", "subsample=20")
    monkeypatch.setattr(recordings, "CHUNK_UNITS", 7)
    again, _ = imported(paths, tmp_path / "b.zarr", "preset=map", "subsample=20")
    other, _ = imported(paths, tmp_path / "c.zarr", "preset=map", "subsample=20", "seed=1")
    identity = [list(zip(each["unit/session"][...], each["unit/id"][...], strict=True)) for each in (root, again, other, whole)]
    assert identity[0] == identity[1] != identity[2] and len(set(identity[0])) == 20 and {s for s, _ in identity[0]} == {"map-1", "map-2"}
    rows = [identity[3].index(each) for each in identity[0]]
    assert rows == sorted(rows)
    for store in (root, again):
        for name in ("rate", "rate_half"):
            np.testing.assert_array_equal(store[name][...], whole[name][...][..., rows])
        for name in ("n_trials", "reliability", "mean_rate"):
            np.testing.assert_array_equal(store[f"unit/{name}"][...], whole[f"unit/{name}"][...][rows])
    drawn, every = (
        trial_counts.summed(recordings.open_recording(str(store.store.root)), np.arange(store["rate"].shape[2]), "even")
        for store in (again, whole)
    )
    np.testing.assert_array_equal(drawn[0], every[0][..., rows])
    np.testing.assert_array_equal(drawn[1], every[1][:, rows])
    assert (every[1].T == whole["unit/n_trials"][...] // 2).all() and every[0].sum() > 1000
    assert again["rate"].chunks == (2, 150, 7) and sum(each["kept"] for each in root.attrs["sessions"]) == 20
    assert sum(root.attrs["dropped"].values()) == 44 and not [p for p in tmp_path.iterdir() if "tmp" in p.name]
    with pytest.raises(UserError, match=r"subsample=500: expected at most \d+, the units that are left"):
        imported(paths, tmp_path / "d.zarr", "preset=map", "subsample=500")


def test_sessions_of_one_name_are_numbered(maps, tmp_path):
    (tmp_path / "other").mkdir()
    copy = sessions.altered(maps[0][0], tmp_path / "other" / "map-1.nwb", lambda file: None)
    root, _ = imported([maps[0][0], maps[0][0], copy], tmp_path / "x.zarr", "preset=map")
    assert [each["name"] for each in root.attrs["sessions"]] == ["map-1", "map-1-2"] and set(root["unit/session"][...].tolist()) == {
        "map-1",
        "map-1-2",
    }
    folder, _ = imported([maps[0][0].parent], tmp_path / "y.zarr", "preset=map")
    pattern, _ = imported([f"{maps[0][0].parent}/*.nwb"], tmp_path / "z.zarr", "preset=map")
    assert [e["name"] for e in folder.attrs["sessions"]] == [e["name"] for e in pattern.attrs["sessions"]] == ["map-1", "map-2"]


def strip(name):
    def change(file):
        del file[name]

    return change


def wrong_index(file):
    index = file["units/spike_times_index"][...]
    sessions.put(file, "units/spike_times_index", index + 1000)


def overlapping(file):
    sessions.put(file, "intervals/trials/stop_time", file["intervals/trials/stop_time"][...] + 5)


def rounded(file):
    sessions.put(file, "units/spike_times", (file["units/spike_times"][...] * 30000).astype(np.int64))


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (strip("intervals/trials"), [], "has no trials; expected the table intervals/trials."),
        (strip("units"), [], "contains no sorted spikes; expected units/spike_times"),
        (
            strip("acquisition/BehavioralEvents/go_start_times"),
            [],
            "align=go_start_times: no go_start_times in {path}; expected one of auto_water",
        ),
        (None, ["align=go_start_time"], "Did you mean go_start_times?"),
        (None, ["trials=outcom == 'hit'"], "trials=outcom == 'hit': no outcom in {path}; expected one of auto_water"),
        (None, ["units=clasification == 'good'"], "Did you mean classification?"),
        (None, ["conditions.left=trial_instruction == 'up'"], "keeps none of the "),
        (None, ["conditions.left=trial_instruction == 'up'"], "there, trial_instruction is 'left', 'right'."),
        (
            None,
            ["trials=outcome == 'correct'"],
            "trials=outcome == 'correct': keeps none of the 80 trials of {path}; there, outcome is 'hit', 'ignore'",
        ),
        (
            None,
            ["units=classification == 'best'"],
            "none of 24 units is left: units: not classification == 'best' (24). In the last source, classification is '",
        ),
        (None, ["min_trials=100"], "none of 24 units is left: min_trials: fewer than 100 in a condition ("),
        (None, ["min_rate=400"], "min_rate: below 400 Hz ("),
        (None, ["regions=[nowhere]"], "regions: not in nowhere ("),
        (None, ["region_column=anno"], "region_column=anno: no anno in the units or electrodes of {path}; expected one of"),
        (None, ["trials_table=licks"], "trials_table=licks: no licks in the intervals of {path}; expected one of trials."),
        (None, ["bin=70"], "bin=70: makes 42.857 bins; expected a length that divides the window of 3000 ms, such as 69.7674 ms"),
        (None, ["format=nwbb"], "format=nwbb: expected auto, nwb, "),
        (None, ["window=[1,2,3]"], "window=[1, 2, 3]: expected 2 values."),
        (None, ["axes=[time, unit]"], "axes: does not apply to NWB files"),
        (None, ["presett=map"], "presett: no such setting of import. Did you mean preset?"),
        (
            None,
            ["preset=maps"],
            "preset=maps: no such preset; expected allen, ibl, map, phy, steinmetz, steinmetz_alf or the path of a .yaml file.",
        ),
        (wrong_index, [], "units/spike_times_index: expected ascending numbers up to "),
        (overlapping, [], "align=go_start_times: trials 1 and 2 of {path} overlap"),
        (
            rounded,
            [],
            "units/spike_times: times are samples of an unknown rate; expected their rate in Hz, such as variables.sample_rate=30000.",
        ),
    ],
)
def test_mistakes_give_one_line_and_write_nothing(maps, tmp_path, change, arguments, message):
    path = maps[0][0] if change is None else sessions.altered(maps[0][0], tmp_path / "bad.nwb", change)
    with pytest.raises(UserError) as error:
        imported([path], tmp_path / "out.zarr", *([] if "preset=maps" in arguments else ["preset=map"]), *arguments)
    assert message.format(path=path) in str(error.value) and "\n" not in str(error.value)
    assert not [p for p in tmp_path.iterdir() if "out" in p.name]


def test_damaged_files(maps, tmp_path):
    whole = maps[0][0].read_bytes()
    for name, content, message in (
        ("short", whole[: len(whole) // 2], "short.nwb: is cut short; copy or download it again."),
        ("text", b"not HDF5 at all" * 100, "text.nwb: is not a readable HDF5 file ("),
        ("empty", b"", "empty.nwb: is "),
    ):
        (tmp_path / f"{name}.nwb").write_bytes(content)
        with pytest.raises(UserError) as error:
            imported([maps[1][0], tmp_path / f"{name}.nwb"], tmp_path / "out.zarr", "preset=map")
        assert message in str(error.value) and "\n" not in str(error.value)
    assert not [p for p in tmp_path.iterdir() if "out" in p.name]


def test_unusual_files(maps, ibl, tmp_path):
    """Spikes in samples, unsorted spikes, overlapping trials with times in a column, a session without one condition."""
    path = maps[0][0]

    def samples(file):
        sessions.put(file, "units/spike_times", np.round(file["units/spike_times"][...] * 30000).astype(np.int64), resolution=1 / 30000)

    plain, _ = imported([path], tmp_path / "a.zarr", "preset=map")
    root, message = imported([sessions.altered(path, tmp_path / "samples.nwb", samples)], tmp_path / "b.zarr", "preset=map")
    assert "spike times are samples at 30000 Hz" in message[0] and np.abs(root["rate"][...] - plain["rate"][...]).max() < 1

    def shuffled(file):
        sessions.put(file, "units/spike_times", file["units/spike_times"][...][::-1].copy())
        index = file["units/spike_times_index"][...].astype(np.int64)
        sessions.put(file, "units/spike_times_index", np.cumsum(np.diff(index, prepend=0)[::-1]))

    root, message = imported([sessions.altered(path, tmp_path / "shuffled.nwb", shuffled)], tmp_path / "c.zarr", "preset=map", "units=null")
    assert "out of order, now sorted: " in message[0]
    _, message = imported([sessions.altered(ibl[0][0], tmp_path / "over.nwb", overlapping)], tmp_path / "d.zarr", "preset=ibl")
    assert "69 trials begin before another has ended; their spikes may count twice" in message[1]

    def always(file):
        del file["units/obs_intervals"], file["units/obs_intervals_index"]

    relative = sessions.altered(path, tmp_path / "relative.nwb", always)
    with pytest.raises(
        UserError, match="align=photostim_onset: no trial has .*expected times on the clock of the session, not relative to"
    ):
        imported([relative], tmp_path / "e.zarr", "preset=map", "align=photostim_onset", "trials=null", "min_trials=0")

    def one_sided(file):
        sides = np.full(80, "right", dtype=object)
        del file["intervals/trials/trial_instruction"]
        file["intervals/trials"].create_dataset("trial_instruction", data=sides, dtype=h5py.string_dtype())

    root, message = imported([path, sessions.altered(path, tmp_path / "right.nwb", one_sided)], tmp_path / "f.zarr", "preset=map")
    assert [each["kept"] for each in root.attrs["sessions"]] == [
        plain["rate"].shape[2],
        0,
    ] and "right: 0 of 24 units; of 80 trials left 0" in message[1]


def test_a_preset_file_of_the_user(maps, tmp_path):
    own = tmp_path / "lab.yaml"
    own.write_text("align: go_start_times\nwindow: [-1, 1]\nbin: 40\nconditions:\n  hits: outcome == 'hit'\n")
    root, _ = imported([maps[0][0]], tmp_path / "x.zarr", f"preset={own}", "bin=10")
    assert root["rate"].shape[:2] == (1, 200) and root["condition"][...].tolist() == ["hits"] and root.attrs["import"]["preset"] == str(own)
    own.write_text("allign: go\n")
    with pytest.raises(UserError, match=r"lab.yaml: allign is not a setting of import. Did you mean align"):
        options(f"preset={own}")
    for text in ("- 1", "a: [", ""):
        own.write_text(text)
        with pytest.raises(UserError, match="lab.yaml: "):
            options(f"preset={own}")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["conditions.go=a == 1"], {"go": "a == 1"}),  # another name: the preset's are replaced together
        (["conditions.go=a == 1", "conditions.left=b == 1"], {"go": "a == 1", "left": "b == 1"}),
        (["conditions.left=b == 1"], {"left": "b == 1", "right": "trial_instruction == 'right'"}),
        (["conditions.right=null"], {"left": "trial_instruction == 'left'"}),
        (["conditions.left=b == 1", "conditions.right=null"], {"left": "b == 1"}),
        (["--conditions.go", "a == 1"], {"go": "a == 1"}),
        (["conditions={go: a == 1}"], {"go": "a == 1"}),
        (["conditions=null"], None),
    ],
)
@pytest.mark.parametrize("preset", [["preset=map"], ["--preset", "map"]])
def test_conditions_of_a_preset_are_replaced(preset, arguments, expected):
    assert options(*preset, *arguments).conditions == expected


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["preset=map"],
        ["preset=map", "conditions.go=a == 'x, y' # 1"],
        ["preset=map", "conditions.left=b == 1", "conditions.right=null"],
        ["preset=map", "conditions=null", "trials=null", "window=[-0.5,1]", "regions=[ALM, 'Primary motor*']"],
        ["preset=nowhere.yaml", "units='null'", "variables.rate=psth", "time_unit.spikes=ms", "min_rate=0.5"],
        ["time_unit=ms", "halves=false", "bin=10", "columns=[depth]", "trials_table=a b.csv", "source=''mine''"],
    ],
)
def test_the_arguments_of_stored_options_give_the_same_options(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nowhere.yaml").write_text("min_trials: 3")
    made = options(*arguments)
    (tmp_path / "nowhere.yaml").unlink()
    again = options(*import_options.arguments_of(json.loads(json.dumps(dataclasses.asdict(made)))))
    assert dataclasses.replace(again, preset=None) == dataclasses.replace(made, preset=None)


NO_COLUMNS = ["region_column=null", "align=start_time"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["trials=null", "conditions.left=outcome == 'hit'", *NO_COLUMNS],
            "conditions.right is that of {}; conditions.right=null leaves it out",
        ),
        (["conditions=null", *NO_COLUMNS], "trials is that of {}; trials=null leaves it out"),
        (["conditions=null", "trials=mine == 1", *NO_COLUMNS], None),
        (["conditions=null", "trials=null"], "region_column is that of {}; region_column=null leaves it out"),
        (["conditions=null", "trials=null", "region_column=null"], "align is that of {}; align=... replaces it"),
    ],
)
def test_messages_name_settings_of_a_preset(maps, tmp_path, arguments, message):
    own = tmp_path / "lab.yaml"
    own.write_text("align: no_cue\nregion_column: no_region\ntrials: no_trial == 1\nconditions:\n  left: a == 1\n  right: no_side == 1\n")
    with pytest.raises(UserError) as error:
        imported([maps[0][0]], tmp_path / "out.zarr", f"preset={own}", *arguments)
    if message is None:
        assert "preset=" not in str(error.value)
    else:
        assert message.format(f"preset={own}") in str(error.value)


@pytest.mark.parametrize("name", ["map", "ibl", "allen", "phy", "steinmetz", "steinmetz_alf"])
def test_shipped_presets_are_settings(name):
    made = options(f"preset={name}")
    assert (made.units or made.min_rate) and trial_average.bin_centres(made).size >= 40


def test_events_in_other_groups(maps, tmp_path):
    """Series in processing, in a table of events and in intervals; two series of one name."""
    import warnings

    from pynwb import NWBHDF5IO, TimeSeries
    from pynwb.epoch import TimeIntervals

    path = sessions.altered(maps[0][0], tmp_path / "events.nwb", lambda file: None)
    with warnings.catch_warnings(), NWBHDF5IO(str(path), "r+") as io:
        warnings.simplefilter("ignore")
        file = io.read()
        module = file.create_processing_module("behavior", "x")
        module.add(TimeSeries(name="cue", data=np.ones(2), timestamps=[2.0, 1.0], unit="n/a"))
        module.add(TimeSeries(name="left_lick_times", data=np.ones(2), timestamps=[3.0, 4.0], unit="n/a"))
        licks = TimeIntervals(name="licks", description="x")
        licks.add_interval(start_time=maps[0][1].go[1], stop_time=maps[0][1].go[1] + 1, tags=["left", "late"])
        licks.add_interval(start_time=maps[0][1].go[2], stop_time=maps[0][1].go[2] + 1, tags=["left"])
        file.add_time_intervals(licks)
        io.write(file)
    events = nwb.read(path, Options()).events
    assert events["cue"].tolist() == [1, 2] and events["licks.stop_time"] - events["licks.start_time"] == pytest.approx([1, 1])
    assert events["behavior/left_lick_times"].tolist() == [3, 4] and len(events["BehavioralEvents/left_lick_times"]) == 400
    assert "left_lick_times" not in events and len(events) == 7
    texts = ("conditions.one=tags == 'left'", "conditions.two=tags == 'left, late'")  # a list of texts in each row
    root, _ = imported([path], tmp_path / "x.zarr", "trials_table=licks", "window=[-1,1]", "min_trials=1", *texts)
    assert root.attrs["sessions"][0]["trials"] == 2 and root.attrs["sessions"][0]["used"] == {"one": 1, "two": 1}


def precomputed(name, units, shape=(2, 30), **changes):
    values = np.random.default_rng(units).uniform(0, 20, (*shape, units))
    made = PrecomputedRates(name, Path(name), values, "rate", 10.0, ("a", "b"), {"region": np.array(["X", "Y"] * units)[:units]})
    return dataclasses.replace(made, **changes)


def test_precomputed_rates_are_pooled(tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "CHUNK_UNITS", 8)
    first, second = precomputed("one.mat", 21), precomputed("two.mat", 5)
    first.values[:, :, 3] = np.nan
    found = pooling.pool_sources(iter([first, second]), tmp_path / "x.zarr", Options(min_rate=1.0), lambda text: None)
    root = zarr.open_group(str(tmp_path / "x.zarr"), mode="r")
    expected = np.concatenate([np.delete(first.values, 3, axis=2), second.values], axis=2)
    np.testing.assert_allclose(root["rate"][...], expected, rtol=1e-6)
    assert found.bin_ms == 10 and dict(found.dropped) == {"no values": 1} and "rate_half" not in root and "n_trials" not in root["unit"]
    assert root["unit/id"][...].tolist()[:5] == ["0", "1", "2", "4", "5"] and root["condition"][...].tolist() == ["a", "b"]
    assert recordings.open_recording(tmp_path / "x.zarr").bin_ms == 10


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            precomputed("z", 4, shape=(2, 31)),
            r"z: rate has shape \[2, 31, 4\] \[condition, time, unit\]; expected rate of 2 conditions and 30 bins",
        ),
        (precomputed("z", 4, bin_ms=20.0), "z: its bins in ms are 20.0; expected 10.0"),
        (precomputed("z", 4, conditions=("a", "c")), "its conditions are"),
        (precomputed("z", 4, kind="current"), "z: current has shape"),
        (precomputed("z", 4, values=np.full((2, 30, 4), -1.0)), "infinite or negative values"),
        (precomputed("z", 4, values=np.full((2, 30, 4), 5000.0)), "unit 0 has a mean rate of 5000; expected rates in Hz"),
    ],
)
def test_precomputed_rates_that_do_not_fit(tmp_path, other, message):
    with pytest.raises(UserError, match=message):
        pooling.pool_sources(iter([precomputed("one", 3), other]), tmp_path / "x.zarr", Options(), lambda text: None)
    assert not list(tmp_path.iterdir())


def test_precomputed_rates_have_no_trials_to_select(tmp_path):
    with pytest.raises(UserError, match="trials=outcome == 'hit': applies to spikes only; one contains precomputed rates"):
        pooling.pool_sources(iter([precomputed("one", 3)]), tmp_path / "x.zarr", Options(trials="outcome == 'hit'"), lambda text: None)


def test_spikes_and_precomputed_rates_are_not_mixed(maps, tmp_path):
    both = iter([nwb.read(maps[0][0], options("preset=map")), precomputed("one", 3)])
    with pytest.raises(UserError, match="contains precomputed rates, other sources spikes; expected two imports"):
        pooling.pool_sources(both, tmp_path / "x.zarr", options("preset=map"), lambda text: None)


def test_from_the_command_line_to_training(maps, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rlsnet", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    status, out, err = run("import", *[path for path, _ in maps], "mine.zarr", "preset=map", "subsample=30")
    assert status == 0 and not err and "units left out" in out and "from -2 to 1 s" in out and "not among the 30 drawn" in out
    command = out.strip().splitlines()[-1].split()
    expected = "rlsnet train config=mouse_decision recording.path=mine.zarr recording.half=odd plastic.n_inputs=14".split()
    assert command == expected  # and not learn_every and duration, which the experiment has
    config = compose(*command[2:], "train.iterations=1", "progress=off")
    assert training.run_training(config, Run(tmp_path / "run"), resumed=False) == 0
    assert zarr.open_group("run/network.zarr", mode="r")["target"].shape == (2, 150, 30)
    status, _, _ = run("import", maps[0][0], "mine.zarr", "preset=map", "overwrite=true")  # an older recording is replaced
    assert status == 0 and zarr.open_group("mine.zarr", mode="r")["rate"].shape[2] != 30
    (tmp_path / "data.zarr").mkdir()
    for arguments, message in (
        (["x.nwb"], "expected at least one source and, last, the new recording"),
        (["x.nwb", "y.zarr"], "rlsnet: error: x.nwb: no such file or folder."),
        (["*.nwb", "y.zarr"], "matches no file"),
        ([maps[0][0], "y"], "expected a name that ends in .zarr"),
        ([maps[0][0], "data.zarr"], "not a Zarr store"),
        (["mine.zarr", "mine.zarr"], "is both a source and the new recording"),
    ):
        status, _, err = run("import", *arguments)
        assert status == 1 and message in err and len(err.splitlines()) == 1, err


def test_help_is_quick():
    script = "import sys; sys.argv = ['rlsnet', 'import', '--help']\nfrom rlsnet.cli.main import main\n"
    script += "try: main()\nexcept SystemExit: pass\n"
    script += "assert not {'jax', 'h5py', 'zarr', 'hydra'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"window +null +start and end[^;]*; null: \[-2, 1\]", done.stdout) and "preset" in done.stdout


def test_presets_are_not_a_group_of_experiments():
    assert "import=" not in subprocess.run([*RLSNET, "train", "--help"], capture_output=True, text=True).stdout
    assert compose("config=tiny").network.n_neurons == 512
    files = list((Path(data.__file__).parents[2] / "configs" / "import").glob("*.yaml"))
    assert {path.stem for path in files} == {"map", "ibl", "allen", "phy", "steinmetz", "steinmetz_alf"}
    assert all(yaml.safe_load(path.read_text()) for path in files)


def test_settings_from_python(tmp_path):
    own = tmp_path / "lab.yaml"
    own.write_text("align: go_start_times\nbin: 40\n")
    made = options_of({"preset": str(own), "bin": 10, "conditions": {"hit": "outcome == 'hit'"}, "window": [-1, 1]})
    assert made == Options(preset=str(own), align="go_start_times", bin=10.0, conditions={"hit": "outcome == 'hit'"}, window=(-1.0, 1.0))
    with pytest.raises(UserError, match=r"windo: no such setting of import. Did you mean window\?"):
        options_of({"windo": [0, 1]})
    with pytest.raises(UserError, match="min_trials=-1: expected at least 0"):
        options_of({"min_trials": -1})


def kilosort(folder):
    """A folder of Kilosort with two units of 30 spikes and a trial every second."""
    folder.mkdir(parents=True)
    np.save(folder / "spike_times.npy", 1000 * np.arange(60))
    np.save(folder / "spike_clusters.npy", np.arange(60) % 2)
    (folder / "params.py").write_text("sample_rate = 1000.0\n")
    (folder / "trials.csv").write_text("start_time,stop_time\n" + "".join(f"{t},{t + 0.9}\n" for t in range(60)))


def test_recordings_in_folders(tmp_path):
    """The parent of a recording is searched; where several formats or sortings lie below, the message names them."""
    arguments = ["window=[0,1]", "kernel=none", "bin=100"]
    kilosort(tmp_path / "day" / "imec0" / "kilosort4")
    (tmp_path / "day" / "notes.txt").write_text("x")
    root, _ = imported([tmp_path / "day"], tmp_path / "a.zarr", *arguments)
    assert root.attrs["sessions"][0]["path"].endswith("imec0/kilosort4") and root["rate"].shape == (1, 10, 2)
    kilosort(tmp_path / "day" / "imec0" / "kilosort2")
    with pytest.raises(UserError, match="2 folders in the format phy: .*kilosort2, .*kilosort4; they may be sortings of the same spikes"):
        imported([tmp_path / "day"], tmp_path / "a.zarr", *arguments)
    table = {"trials/start_time": np.arange(60.0), "trials/stop_time": np.arange(60) + 0.9}
    for name in ("s1", "s2"):
        np.savez(tmp_path / f"{name}.npz", spike_times=np.arange(60) + 0.25, spike_clusters=np.arange(60) % 2, **table)
    with pytest.raises(
        UserError, match=r"several formats: phy \(.*kilosort2, ...\), arrays \(.*s1.npz, ...\); expected one of these, or format=phy"
    ):
        imported([tmp_path], tmp_path / "a.zarr", *arguments)
    root, message = imported([tmp_path], tmp_path / "b.zarr", "format=arrays", *arguments)
    assert [each["name"] for each in root.attrs["sessions"]] == ["s1", "s2"]
    (tmp_path / "empty").mkdir()
    for chosen, text in (
        ([], "format not recognized; the folder contains nothing"),
        (["format=phy"], "without recordings in the format phy"),
    ):
        with pytest.raises(UserError, match=text):
            imported([tmp_path / "empty"], tmp_path / "a.zarr", *chosen)
