"""Units that files state, names that end like units, lengths of bins, and time 0 of single trials in `rlsnet import`."""

import h5py
import numpy as np
import pytest
import zarr
from test_units_and_layouts import (
    COUNTS,
    EVENTS,
    LABELS,
    N_TRIALS,
    N_UNITS,
    RATES,
    RELATIVE,
    SAMPLES,
    TIMES,
    TRAINS,
    check,
    imported,
    refused,
)

from rlsnet.data import time_units
from rlsnet.data.formats.array_names import first_label
from rlsnet.data.import_options import Options

TEXT = h5py.string_dtype()


def write_group(path, arrays, units, groups=()):
    """HDF5 file or Zarr store of arrays by path, with an attribute `units` of some of them, and of some groups."""
    if path.suffix == ".zarr":
        root = zarr.create_group(str(path), overwrite=True)
        for name, values in arrays.items():
            root.create_array(name, data=np.asarray(values))
        for name, unit in (*units.items(), *groups):
            root[name].attrs["units"] = unit
        return path
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            if isinstance(values, list):
                file.create_dataset(name, (len(values),), h5py.vlen_dtype(float))
                for row, each in enumerate(values):
                    file[name][row] = each
            else:
                file[name] = values
        for name, unit in (*units.items(), *groups):
            file[name].attrs["units"] = unit
    return path


SPIKES = {"spike_times": TIMES * 1e3, "spike_clusters": LABELS}
START = {"trials/start_time": EVENTS * 1e3}


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
@pytest.mark.parametrize(
    ("arrays", "units", "arguments"),
    [
        (SPIKES | START, {"spike_times": "msec", "trials/start_time": "milliseconds since the start"}, []),
        (SPIKES | {"start_time": EVENTS * 1e3}, {"spike_times": "ms", "start_time": "ms"}, []),
        (SPIKES | {"trial_start": EVENTS * 1e3 - 500, "trial_go": EVENTS * 1e3},
         {"spike_times": "ms", "trial_start": "ms", "trial_go": "ms"}, ["align=go"]),
        (SPIKES | {"trials/start": EVENTS * 1e3}, {"spike_times": "ms", "trials/start": "ms"}, []),
        (SPIKES | {"trials/Starts": EVENTS * 1e3}, {"spike_times": "ms", "trials/Starts": "ms"}, []),
        (SPIKES | {"trials/intervals": np.stack([EVENTS, EVENTS + 4], 1) * 1e3}, {"spike_times": "ms", "trials/intervals": "ms"}, []),
        (SPIKES | {"a/b/start_time": EVENTS * 1e3}, {"spike_times": "ms", "a/b/start_time": "ms"}, ["variables.trials=a/b"]),
        (
            SPIKES | {"trials/start_time": EVENTS * 1e3 - 10, "s/cue": EVENTS * 1e6},
            {"spike_times": "ms", "trials/start_time": "ms", "s/cue": "us"},
            ["variables.events=s", "align=cue"],
        ),
        ({f"st/n{n}": train * 1e3 for n, train in enumerate(TRAINS)} | START,
         {"st/n0": "ms", "st/n1": "ms", "st/n2": "ms", "st/n3": "ms", "trials/start_time": "ms"}, ["variables.spike_times=st"]),
        ({f"spikes/{n}": train * 1e3 for n, train in enumerate(TRAINS)} | START, {"spikes": "ms", "trials": "ms"}, []),
    ],
)  # fmt: skip
def test_units_that_files_state(tmp_path, suffix, arrays, units, arguments):
    check(write_group(tmp_path / f"x{suffix}", arrays, units), tmp_path, *arguments)


@pytest.mark.parametrize("unit", [np.array([b"ms"]), np.array(["ms"], TEXT), np.bytes_(b"ms"), "Milliseconds"])
def test_texts_of_units(tmp_path, unit):
    spikes = [train * 1e3 for train in TRAINS]  # ragged
    arrays = {"spike_times": spikes, "trials/start": EVENTS * 1e3, "trials/stop": EVENTS * 1e3 + 5e3, "trials/go": EVENTS * 1e3}
    path = write_group(tmp_path / "x.h5", arrays, dict.fromkeys(arrays, unit))
    check(path, tmp_path)
    assert "times of trials are ms" in check(path, tmp_path, "align=go", "events=[stop]")[0]
    assert zarr.open_group(str(tmp_path / "out.zarr"))["unit/n_trials"][0, 0] == N_TRIALS


def test_units_that_are_not_known(tmp_path):
    """Another unit is refused where its times are used, unless the user gives one; so are arrays with several units."""
    arrays = {"spike_times": TIMES, "spike_clusters": LABELS, "trials/start_time": EVENTS, "trials/cue": EVENTS + 0.5}
    path = write_group(tmp_path / "x.h5", arrays, {"spike_times": "minutes", "trials/cue": "frames"})
    refused(path, tmp_path, "spike_times has units 'minutes'; expected s, ms, us or samples, or .* time_unit.spikes=s")
    check(path, tmp_path, "time_unit.spikes=s")
    refused(path, tmp_path, "cue has units 'frames'; expected s, ms, .* time_unit.trials=s", "time_unit.spikes=s", "events=[cue]")
    assert check(path, tmp_path, "time_unit=s", "events=[cue]")
    write_group(path, {"rate": RATES + 0.1, "time": np.arange(150)}, {"time": "frames"})
    refused(path, tmp_path, "time has units 'frames'; expected s, ms, us or samples, or .* time_unit.bins=s")
    assert imported(path, tmp_path, "time_unit.bins=ms")[0].attrs["bin_ms"] == 1
    mixed = {f"unit_{n}": train * (1e3 if n else 1) for n, train in enumerate(TRAINS)} | {"trials/start_time": EVENTS}
    write_group(path, mixed, {"unit_0": "s", "unit_1": "ms"})
    refused(path, tmp_path, "spike_times has units 'ms, none and s'")
    write_group(
        path, {"spike_times": TIMES, "spike_clusters": LABELS} | {"trials/start_time": EVENTS}, {"spike_times": "n/a"}, [("trials", 20)]
    )
    check(path, tmp_path)


def test_a_table_that_the_user_gives_has_no_units_of_the_file(tmp_path):
    path = write_group(tmp_path / "x.h5", SPIKES | START, {"spike_times": "ms", "trials/start_time": "ms"})
    np.savetxt(tmp_path / "t.csv", EVENTS, header="start_time", comments="")
    check(path, tmp_path, "trials_table=t.csv")


@pytest.mark.parametrize(("dtype", "unit", "scale"), [("i8", "milliseconds", 1e3), ("i8", None, 3e4), ("f8", "ms", 1e3), ("f8", None, 1)])
def test_units_in_nwb(tmp_path, dtype, unit, scale):
    with h5py.File(tmp_path / "x.nwb", "w") as file:
        file.attrs["nwb_version"] = "2.5.0"
        file["units/spike_times"], file["units/spike_times_index"] = (TIMES * scale).astype(dtype), np.cumsum(np.bincount(LABELS))
        file["units/sampling_rate"] = np.full(N_UNITS, 30000.0)
        file["intervals/trials/start_time"], file["intervals/trials/stop_time"] = EVENTS - 1, EVENTS + 5
        file["processing/behavior/lick/timestamps"] = EVENTS * 1e3
        if unit:
            file["units/spike_times"].attrs["unit"] = unit
    root, lines = imported(tmp_path / "x.nwb", tmp_path, "kernel=none", "align=lick", "time_unit.events=ms")
    assert np.abs(root["rate"][0].mean(axis=0) - RATES.mean(axis=0)).max() < 0.2
    assert "times of lick are ms" in lines[0] and "times of trials" not in lines[0]


@pytest.mark.parametrize("name", ["onset_US", "onset_us", "onset_sample", "onset_Sample"])
def test_names_that_end_like_units(tmp_path, name):
    path = tmp_path / "x.npz"
    start, stop = EVENTS - 2, EVENTS + 3
    columns = {"trials/start_time": start, "trials/stop_time": stop, f"trials/{name}": EVENTS}
    np.savez(path, spike_times=TIMES, spike_clusters=LABELS, sample_rate=30000, **columns)
    for arguments in ([f"align={name}"], [f"align={name}", f"events=[{name}]"]):
        lines = check(path, tmp_path, *arguments)
        assert (
            f"warning: x: {name}: {name.split('_')[1].lower().replace('sample', 'samples')} is not taken for a unit" in " ".join(lines)
        ) == (name != "onset_US")
    root, _ = imported(path, tmp_path, f"events=[{name}]")
    assert root.attrs["events"][name]["median"] == pytest.approx(2)
    refused(path, tmp_path, "no onset in ", "align=onset")
    np.savez(path, spike_times=TIMES, spike_clusters=LABELS, **columns)  # no sample rate
    check(path, tmp_path, f"align={name}")
    scale = {"us": 1e6}.get(name[-2:], 3e4)
    np.savez(path, spike_times=TIMES, spike_clusters=LABELS, sample_rate=30000, **columns | {f"trials/{name}": EVENTS * scale})
    if name != "onset_US":
        assert len(check(path, tmp_path, f"align={name}")) == 1
        assert len(check(path, tmp_path, "align=onset")) == 1


def test_further_events_that_lie_in_no_trial(tmp_path):
    columns = {"trials/start_time": EVENTS, "trials/stop_time": EVENTS + 4, "trials/cue": np.full(N_TRIALS, 0.5)}
    np.savez(tmp_path / "x.npz", spike_times=TIMES, spike_clusters=LABELS, **columns)
    lines = check(tmp_path / "x.npz", tmp_path, "events=[cue]")
    assert "warning: x: cue lies within no trial: expected times on the clock of the session" in " ".join(lines)


# Bins


@pytest.mark.parametrize("suffix", [".npz", ".csv"])
def test_bins_of_1_ms(tmp_path, suffix):
    """Steps of 1 are 1 ms or 1 s; the length of a bin that the file or the user gives tells which."""
    path, rate = tmp_path / f"x{suffix}", np.random.default_rng(0).uniform(1, 9, (1000, 3))

    def write(time, **more):
        if suffix == ".npz":
            np.savez(path, rate=rate, time=time, **more)
        else:
            np.savetxt(path, np.column_stack([time, rate]), "%.6f", delimiter=",", header="time,a,b,c", comments="")
        return path

    refused(write(np.arange(1000.0)), tmp_path, "steps of 1 would be bins of 1,000 ms.* expected time_unit.bins=ms, or time_unit.bins=s")
    for arguments in (["time_unit.bins=ms"], ["bin=1"], ["variables.bin_ms=1"]):
        root, lines = imported(path, tmp_path, *arguments)
        assert root.attrs["bin_ms"] == 1 and root["time"][-1] == pytest.approx(0.999) and len(lines) == 1
        np.testing.assert_allclose(root["rate"][0], rate, rtol=1e-5)
    for arguments in (["time_unit.bins=s"], ["bin=1000"]):
        assert imported(path, tmp_path, *arguments)[0].attrs["bin_ms"] == 1000
    root, lines = imported(write(np.arange(1000) / 2), tmp_path)
    assert root.attrs["bin_ms"] == 500 and "warning: x: 1,000 bins of 500 ms, 500 s, if their times are in s; time_unit.bins=ms" in lines[1]
    assert len(imported(path, tmp_path, "time_unit.bins=s")[1]) == 1
    if suffix == ".npz":
        assert imported(write(np.arange(1000), bin_ms=1), tmp_path)[0].attrs["bin_ms"] == 1


def test_a_length_of_a_bin_that_differs_from_the_times(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, rate=RATES + 0.1, time=np.arange(150) * 0.02, bin_ms=10)
    refused(path, tmp_path, "bins are 20 ms apart, and bin_ms is 10; expected equal lengths, or variables.bin_ms=20")
    assert imported(path, tmp_path, "variables.bin_ms=20")[0].attrs["bin_ms"] == 20
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["rate"], file["time"], file.attrs["bin_ms"] = RATES + 0.1, np.arange(150) * 0.02, 10
    refused(tmp_path / "x.h5", tmp_path, "bins are 20 ms apart, and bin_ms is 10")
    np.savetxt(tmp_path / "x.csv", np.column_stack([np.arange(150) * 0.02, RATES + 0.1]), delimiter=",", header="time,a,b,c,d", comments="")
    refused(tmp_path / "x.csv", tmp_path, "bins are 20 ms apart, and bin_ms is 10", "variables.bin_ms=10")


def test_times_of_bins_whose_rounding_adds_up(tmp_path):
    for name, counts in (("rate", False), ("counts", True)):
        time = np.arange(-1, 2, 0.02, dtype="f4") + np.float32(0.01)  # steps of 19.99998 ms
        np.savez(tmp_path / "a.npz", time=time, **{name: COUNTS if counts else RATES + 0.1})
        root, _ = imported(tmp_path / "a.npz", tmp_path, "axes=[trial,time,unit]" if counts else "axes=[time,unit]", "bin=20")
        assert root.attrs["bin_ms"] == 20
        np.testing.assert_allclose(root["time"][...], -0.99 + 0.02 * np.arange(150), atol=1e-9)
    np.savez(tmp_path / "a.npz", time=np.arange(-1, 2, 0.001, dtype="f4"), rate=np.ones((3000, 2)) * 1.5)
    for arguments in (["bin=1"], ["variables.bin_ms=1"]):
        assert imported(tmp_path / "a.npz", tmp_path, *arguments)[0].attrs["bin_ms"] == 1


@pytest.mark.parametrize("step", [0.02, 0.001, 1 / 60, 1 / 30])
def test_times_of_bins_in_single_precision(tmp_path, step):
    exact = -1 + step * (np.arange(150) + 0.5)
    single = np.arange(150, dtype="f4") * np.float32(step) + np.float32(-1 + step / 2)
    bin_ms = f"bin={1000 * step:.6g}"
    np.savez(tmp_path / "a.npz", rate=RATES + 0.1, time=single)
    np.savez(tmp_path / "b.npz", rate=RATES + 0.1, time=exact)
    np.savetxt(tmp_path / "c.csv", np.column_stack([single, RATES + 0.1]), "%.8g", delimiter=",", header="time,a,b,c,d", comments="")
    for path in (tmp_path / "a.npz", tmp_path / "c.csv"):
        for arguments in ([], [bin_ms]):
            root, _ = imported(path, tmp_path, *arguments)
            assert root.attrs["bin_ms"] == pytest.approx(1000 * step, rel=1e-5 if step > 0.002 else 1e-4)
            np.testing.assert_allclose(root["time"][...], exact, atol=1e-5)
    assert step not in (0.02, 0.001) or root.attrs["bin_ms"] == 1000 * step
    assert imported(tmp_path / "*.npz", tmp_path)[0]["rate"].shape == (1, 150, 2 * N_UNITS)
    np.savez(tmp_path / "n.npz", counts=COUNTS, time=single)
    for arguments, bins in ([], 1), ([bin_ms], 1), ([f"bin={2000 * step:.6g}"], 2), ([f"window=[-1,{-1 + 90 * step:.6g}]"], 1):
        root, _ = imported(tmp_path / "n.npz", tmp_path, "axes=[trial,time,unit]", "kernel=none", *arguments)
        summed = COUNTS[:, : 90 if "window" in str(arguments) else 150].reshape(N_TRIALS, -1, bins, N_UNITS).sum(axis=2)
        np.testing.assert_array_equal(root["trials/0/counts"][...], summed)
        np.testing.assert_allclose(root["rate"][0], summed.mean(axis=0) / (bins * step), rtol=1e-4)


def test_windows_of_rounded_bins():
    """Bins of 60 Hz, as a user writes them, divide a window of 3 s."""
    from rlsnet.data import trial_average

    assert len(trial_average.bin_centres(Options(bin=16.6667))) == 180
    assert trial_average.same_length(16.6667, 1000 / 60) and not trial_average.same_length(20, 20.01)


# Trials


def relative_spikes(path, zero, table):
    """File of spikes with their trials, relative to `zero` [trials] s, of a table of trials."""
    times = np.concatenate([each + EVENTS[k] - zero[k] for trains in RELATIVE for k, each in enumerate(trains)])
    trial = np.concatenate([np.full(len(each), k) for trains in RELATIVE for k, each in enumerate(trains)])
    unit = np.repeat(np.arange(N_UNITS), [sum(map(len, trains)) for trains in RELATIVE])
    np.savez(path, spike_times=times, spike_clusters=unit, spike_trials=trial, **{f"trials/{name}": each for name, each in table.items()})
    return path


def test_time_0_of_spikes_of_single_trials(tmp_path):
    """Events on the clock of the session: time 0 is taken for start_time with a warning, and not if spikes lie before it."""
    go = EVENTS + np.linspace(-0.5, 0.5, N_TRIALS)
    table = {"start_time": EVENTS - 2, "stop_time": EVENTS + 1, "go": go}
    path = relative_spikes(tmp_path / "x.npz", EVENTS - 2, table)
    root, lines = imported(path, tmp_path, "align=go", "window=[0,.4]", "kernel=none", "events=[stop_time]")
    expected = np.mean([np.histogram(TRAINS[0], each + 0.02 * np.arange(21))[0] / 0.02 for each in go], axis=0)
    np.testing.assert_allclose(root["rate"][0, :, 0], expected, atol=1e-4)
    for name in ("go", "stop_time"):
        assert f"warning: x: {name} is on the clock of the session, so time 0 of the spikes of each trial is taken for start_time" in str(
            lines
        )
    table["start_time"] = EVENTS - 1
    relative_spikes(path, go, table)  # time 0 is go
    for arguments in (["align=go"], ["events=[go]"]):
        refused(path, tmp_path, "go: is on the clock of the session, and .* has times from -2.* s on, .* or align=start_time", *arguments)
    expected = np.mean([np.histogram(TRAINS[0], each - 1 + 0.02 * np.arange(71))[0] / 0.02 for each in go], axis=0)
    root, lines = imported(path, tmp_path, "window=[-1,.4]", "kernel=none")
    np.testing.assert_allclose(root["rate"][0, :, 0], expected, atol=1e-4)
    table["start_time"] = EVENTS - 0.4
    np.savez(path, counts=COUNTS, time=-1.99 + 0.02 * np.arange(150), **{f"trials/{name}": each for name, each in table.items()})
    refused(path, tmp_path, "align=go: is on the clock of the session", "align=go", "window=[-1,.4]", "axes=[trial,time,unit]")


def test_overlapping_windows_on_the_clock_of_the_session(tmp_path):
    cut = [[train[(train >= event - 8) & (train < event + 8)] for event in EVENTS] for train in TRAINS]
    arrays = {"spike_times": np.concatenate([each for trains in cut for each in trains])}
    arrays["spike_trials"] = np.concatenate([np.full(len(each), k) for trains in cut for k, each in enumerate(trains)])
    arrays["spike_clusters"] = np.repeat(np.arange(N_UNITS), [sum(map(len, trains)) for trains in cut])
    np.savez(tmp_path / "x.npz", **arrays, **{"trials/start_time": EVENTS})
    refused(
        tmp_path / "x.npz", tmp_path, "spikes of trials overlap in time, .* but begin later in each trial, from 0.* as those on the clock"
    )


@pytest.mark.parametrize(
    ("labels", "rows", "expected"),
    [([0, 2], 4, 0), ([0, 3], 4, 0), ([2, 4], 4, 1), ([1, 3], 4, None), ([2, 3], 4, None), ([0, 4], 4, None), ([1, 5], 4, None)]
)  # fmt: skip
def test_label_of_the_first_row(labels, rows, expected):
    assert first_label(np.array(labels), rows) == expected


@pytest.mark.parametrize(("first", "rows", "found"), [(0, 5, "ABCD"), (2, 5, "BCDE"), (1, 4, "ABCD"), (1, 5, None), (1, 6, None)])
def test_rows_of_units_without_ids(tmp_path, first, rows, found):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["spike_times"], file["spike_clusters"], file["trials/start_time"] = TIMES, LABELS + first, EVENTS
        file["units/region"] = np.array(list("ABCDEFG"[:rows]), object)
    if found is None:
        refused(
            tmp_path / "x.h5", tmp_path, "units: has . rows, but 4 units have spikes; expected a column id, as their labels .* do not say"
        )
    else:
        check(tmp_path / "x.h5", tmp_path)
        assert zarr.open_group(str(tmp_path / "out.zarr"))["unit/region"][...].tolist() == list(found)


def test_rates_of_single_trials_with_a_table(tmp_path):
    values = COUNTS + 0.25
    np.savez(tmp_path / "r.npz", rate=values)
    np.savetxt(tmp_path / "tt.csv", np.arange(N_TRIALS) % 2, "%d", header="condition", comments="")
    root, _ = imported(tmp_path / "r.npz", tmp_path, "axes=[trial,time,unit]", "bin=20", "trials_table=tt.csv")
    np.testing.assert_allclose(root["rate"][...], [values[::2].mean(axis=0), values[1::2].mean(axis=0)], rtol=1e-5)
    assert root.attrs["import"]["trials_table"] == "tt.csv"
    refused(
        tmp_path / "r.npz", tmp_path, "trials_table=tt.csv: applies to spikes only", "axes=[condition,time,unit]", "trials_table=tt.csv"
    )


# What the user says


@pytest.mark.parametrize(
    ("spikes", "trials", "arguments"),
    [
        (3e4, 1, ["time_unit.spikes=samples", SAMPLES]),
        (1, 3e4, ["time_unit.trials=samples", SAMPLES]),
        (3e4, 3e4, ["time_unit=samples", SAMPLES]),
        (1e3, 1, ["time_unit.spikes=ms"]),
    ],
)
def test_units_of_the_user_in_alf(tmp_path, spikes, trials, arguments):
    np.save(tmp_path / "spikes.times.npy", TIMES * spikes)
    np.save(tmp_path / "spikes.clusters.npy", LABELS)
    np.save(tmp_path / "trials.intervals.npy", np.stack([EVENTS, EVENTS + 4], 1) * trials)
    check(tmp_path, tmp_path, *arguments)
    np.save(tmp_path / "spikes.times.npy", np.round(TIMES * spikes).astype(int))
    if spikes > 1:
        assert imported(tmp_path, tmp_path, *arguments)[0]["rate"].shape == (1, 150, N_UNITS)
        refused(tmp_path, tmp_path, "spikes.times contains int64, .* or in the unit that time_unit.spikes=samples gives")


def test_units_of_the_user_in_phy_with_trials_beside_its_folder(tmp_path):
    """trials.csv, or another table, in the folder that the user gave; params.py is needed for samples only."""
    (tmp_path / "sess" / "ks").mkdir(parents=True)
    np.save(tmp_path / "sess" / "ks" / "spike_times.npy", TIMES)
    np.save(tmp_path / "sess" / "ks" / "spike_clusters.npy", LABELS)
    table = tmp_path / "sess" / "trials.csv"
    np.savetxt(table, np.column_stack([EVENTS, EVENTS + 0.5]), delimiter=",", header="start_time,onset_sample", comments="")
    refused(tmp_path / "sess", tmp_path, "contains fractions; expected samples, which are whole numbers, or time_unit.spikes=s")
    check(tmp_path / "sess", tmp_path, "time_unit.spikes=s")
    root, _ = imported(tmp_path / "sess", tmp_path, "time_unit.spikes=s", SAMPLES, "events=[onset_sample]")
    assert root.attrs["events"]["onset_sample"]["median"] == pytest.approx(0.5)
    table.rename(tmp_path / "sess" / "tt.csv")
    check(tmp_path / "sess", tmp_path, "time_unit.spikes=s", "trials_table=tt.csv")
    refused(tmp_path / "sess", tmp_path, "has no trials", "time_unit.spikes=s")


def test_spellings_of_units():
    for unit, texts in {"s": "s sec Seconds", "ms": "ms msec millis Milliseconds", "us": "us usec micros Microseconds µs"}.items():
        assert {time_units.unit_of(text) for text in texts.split()} == {unit}
    for text in ("s since 2020-01-01 00:00", b"seconds relative to the trial", "sec."):
        assert time_units.unit_of(text) == "s"
    assert [time_units.unit_of(text) for text in ("minutes", "frames", "Hz", "s per bin", "")] == [None] * 5
