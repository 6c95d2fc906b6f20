"""Units of time, counts, single trials and tables in `rlsnet import`: what the user says, what files say, and what is doubted."""

import h5py
import numpy as np
import pytest
import zarr
from scipy import io as scipy_io

from rlsnet.config.arguments import plain_arguments
from rlsnet.data import importing, recordings, time_units, trial_counts
from rlsnet.data.formats import arrays, matlab, table_files
from rlsnet.data.import_options import Options
from rlsnet.errors import UserError

SAMPLES = "variables.sample_rate=30000"
N_TRIALS, N_UNITS = 20, 4
EVENTS = 5 + 10.0 * np.arange(N_TRIALS)  # s
BINS = -2 + 0.02 * np.arange(151)  # s, edges


def spike_trains() -> list[np.ndarray]:
    """Spikes of each unit in s: 10 Hz, and 30 Hz in the second after each event."""
    rng = np.random.default_rng(0)
    every = [rng.uniform(0, EVENTS[-1] + 5, 2000) for _ in range(N_UNITS)]
    return [np.sort(np.concatenate([train, *(event + rng.uniform(0, 1, 20) for event in EVENTS)])) for train in every]


TRAINS = spike_trains()
TIMES, LABELS = np.concatenate(TRAINS), np.repeat(np.arange(N_UNITS), [len(train) for train in TRAINS])
COUNTS = np.stack([np.stack([np.histogram(train, event + BINS)[0] for train in TRAINS], 1) for event in EVENTS])  # trial, time, unit
RATES = COUNTS.mean(axis=0) / 0.02
RELATIVE = [[train[(train >= event - 2) & (train < event + 1)] - event for event in EVENTS] for train in TRAINS]  # unit, trial


def imported(source, tmp_path, *arguments):
    """(store, lines) of an import."""
    lines: list[str] = []
    options = plain_arguments(Options, "import", ["overwrite=true", *arguments])[1]
    importing.import_sources([source], tmp_path / "out.zarr", options, lines.append)
    return zarr.open_group(str(tmp_path / "out.zarr"), mode="r"), lines


def check(source, tmp_path, *arguments) -> list[str]:
    """Lines of an import whose rates, and single trials, are those of the spikes above."""
    root, lines = imported(source, tmp_path, "kernel=none", *arguments)
    np.testing.assert_allclose(root["rate"][0], RATES, atol=1e-4)
    np.testing.assert_array_equal(root["trials/0/counts"][...], COUNTS)
    for half in (0, 1):
        np.testing.assert_allclose(root["rate_half"][half, 0], COUNTS[half::2].mean(axis=0) / 0.02, atol=1e-4)
    return lines


def refused(source, tmp_path, pattern, *arguments):
    existed = (tmp_path / "out.zarr").exists()
    with pytest.raises(UserError, match=pattern) as error:
        imported(source, tmp_path, *arguments)
    assert "\n" not in str(error.value) and (tmp_path / "out.zarr").exists() == existed


def write(path, times, events, **more):
    """A file of spikes and trials in one of the general formats; HDF5 as NWB."""
    if path.suffix == ".npz":
        np.savez(path, spike_times=times, spike_clusters=LABELS, **{"trials/start_time": events}, **more)
    elif path.suffix == ".mat":
        scipy_io.savemat(path, {"spike_times": times, "spike_clusters": LABELS, "trials": {"start_time": events}, **more})
    else:
        with h5py.File(path, "w") as file:
            file.attrs["nwb_version"] = "2.5.0"
            file["units/spike_times"], file["units/spike_times_index"] = times, np.cumsum(np.bincount(LABELS))
            file["intervals/trials/start_time"] = events
    return path


@pytest.mark.parametrize("suffix", [".npz", ".mat", ".nwb"])
@pytest.mark.parametrize(
    ("spikes", "trials", "pattern", "arguments"),
    [
        (1e3, 1e3, "would last 2.31 days, with a median rate of .* expected time_unit=ms", ["time_unit=ms"]),
        (1e6, 1e6, "would last 2.*days.*expected time_unit=", ["time_unit=us"]),
        (1e3, 1, "would last 2.31 days.* expected time_unit.spikes=ms", ["time_unit.spikes=ms"]),
        (1, 1e3, "no trial has spikes in the window; .*such as time_unit.trials=ms", ["time_unit.trials=ms"]),
        (1, 3e4, "no trial has spikes.*time_unit.trials=samples with", ["time_unit.trials=samples", "time_unit.spikes=s", SAMPLES]),
        (3e4, 3e4, "would last", ["time_unit=samples", SAMPLES]),
    ],
)  # fmt: skip
def test_units_of_spikes_and_trials(tmp_path, suffix, spikes, trials, pattern, arguments):
    path = write(tmp_path / f"x{suffix}", TIMES * spikes, EVENTS * trials)
    refused(path, tmp_path, pattern)
    check(path, tmp_path, *arguments)


def test_units_by_kind(tmp_path):
    def options(*arguments):
        return plain_arguments(Options, "import", arguments)[1]

    assert [time_units.chosen_unit(options("time_unit=ms", "time_unit.trials=s"), kind) for kind in ("spikes", "trials", "bins")] == [
        *("ms", "s", "ms")
    ]
    assert time_units.chosen_unit(options("time_unit.trials=us"), "spikes") is None
    for argument, pattern in (("time_unit=min", "time_unit=min: expected s, ms"), ("time_unit.spike=ms", "a unit for each of spikes")):
        with pytest.raises(UserError, match=pattern):
            time_units.chosen_unit(options(argument), "spikes")
    with pytest.raises(UserError, match="conditions=all: expected texts with names"):
        options("conditions=all", "conditions.left=x")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *[("time_ms", ("time", "ms")), ("spike time [us]", ("spike time", "us")), ("spike_time_s", ("spike_time", "s"))],
        *[("t(s)", ("t", "s")), ("start.samples", ("start", "samples"))],
        *[("spike_times", ("spike_times", None)), ("ms", ("ms", None)), ("units", ("units", None)), ("rate_hz", ("rate_hz", None))],
    ],
)  # fmt: skip
def test_units_in_names(name, expected):
    assert time_units.split_name(name) == expected


def test_a_sample_rate_of_the_user_makes_samples(tmp_path):
    """Fractions of samples, or milliseconds with decimals, are divided too."""
    check(write(tmp_path / "x.npz", TIMES * 1000, EVENTS), tmp_path, "variables.sample_rate=1000")
    samples = TIMES * 30000
    samples[0] = np.floor(samples[0]) + 0.5
    check(write(tmp_path / "y.npz", samples, EVENTS), tmp_path, "variables.sample_rate=30000")
    whole = np.round(TIMES * 30000)
    whole[0] += 0.5
    root, _ = imported(write(tmp_path / "z.npz", whole, EVENTS, sample_rate=30000), tmp_path, "kernel=none")
    assert np.abs(root["rate"][0].mean(axis=0) - RATES.mean(axis=0)).max() < 0.2  # one fraction among samples at the rate of the file


def test_units_in_files_are_obeyed(tmp_path):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["spike_times"], file["spike_clusters"] = TIMES * 1000, LABELS
        file["spike_times"].attrs["units"] = "milliseconds"
        file["trials/start_time"] = EVENTS * 1000
        file["trials/start_time"].attrs["units"] = "ms"
    assert "spike times are ms" in check(tmp_path / "s.h5", tmp_path)[0]
    np.savez(tmp_path / "s.npz", spike_times=TIMES, spike_clusters=LABELS, **{"trials/start_time_us": EVENTS * 1e6})
    check(tmp_path / "s.npz", tmp_path)


def test_nwb_in_samples_takes_a_sample_rate(tmp_path):
    path = write(tmp_path / "x.nwb", np.round(TIMES * 30000).astype(np.int64), EVENTS)
    refused(path, tmp_path, "samples of an unknown rate; expected their rate in Hz, such as variables.sample_rate=30000")
    root, _ = imported(path, tmp_path, "variables.sample_rate=30000", "kernel=none")
    assert np.abs(root["rate"][0].mean(axis=0) - RATES.mean(axis=0)).max() < 0.2


@pytest.mark.parametrize("suffix", [".nwb", ".h5"])
def test_damaged_hdf5_is_one_line(tmp_path, suffix):
    """Blocks of zeros, also in the tables by which HDF5 finds its parts, for which h5py raises errors of several kinds."""
    path, n_refused = tmp_path / f"x{suffix}", 0
    write(tmp_path / "whole.nwb", TIMES, EVENTS)
    whole = (tmp_path / "whole.nwb").read_bytes()
    for start in range(0, 2560, 128):
        path.write_bytes(whole[:start] + bytes(128) + whole[start + 128 :])
        try:
            imported(path, tmp_path)
        except UserError as error:
            assert "\n" not in str(error)
            n_refused += 1
    assert 5 < n_refused < 20


def test_doubts(tmp_path):
    """Spikes relative to trials without their trial, a session that ends before most trials, and some silent trials."""
    first = np.concatenate([np.concatenate(unit) for unit in RELATIVE])
    labels = np.repeat(np.arange(N_UNITS), [sum(map(len, unit)) for unit in RELATIVE])
    np.savez(tmp_path / "x.npz", spike_times=first, spike_clusters=labels, **{"trials/start_time": EVENTS})
    refused(tmp_path / "x.npz", tmp_path, "no trial has spikes in the window; .*cells of units x trials or the trial of each")
    early, few = TIMES < 60, TIMES < 180
    np.savez(tmp_path / "y.npz", spike_times=TIMES[early], spike_clusters=LABELS[early], **{"trials/start_time": EVENTS})
    refused(tmp_path / "y.npz", tmp_path, "only 6 of 20 trials have spikes in the window")
    root, _ = imported(tmp_path / "y.npz", tmp_path, "trials=start_time < 57", "min_trials=1")
    assert root["unit/n_trials"][0, 0] == 6
    np.savez(tmp_path / "z.npz", spike_times=TIMES[few], spike_clusters=LABELS[few], **{"trials/start_time": EVENTS})
    _, lines = imported(tmp_path / "z.npz", tmp_path)
    assert lines[1].startswith("warning: z: 2 of 20 trials (19, 20) have no spike of any unit")
    np.savez(tmp_path / "fast.npz", spike_times=TIMES / 1000, spike_clusters=LABELS, **{"trials/start_time": EVENTS / 1000})
    refused(
        tmp_path / "fast.npz", tmp_path, "its median unit has 12,.* Hz .* which no neuron has", "window=[0,.001]", "bin=.1", "kernel=none"
    )
    np.savez(tmp_path / "texts.npz", spike_times=TIMES, spike_clusters=LABELS, **{"trials/start_time": ["a"] * N_TRIALS})
    refused(tmp_path / "texts.npz", tmp_path, "start_time is 'a' in row 1; expected numbers")


# Bins


def test_rates_keep_their_times(tmp_path):
    time = -0.99 + 0.02 * np.arange(150)
    for name, values, arguments in (
        ("time", time, []),
        ("time_ms", time * 1000, []),
        ("time", time * 1000, ["time_unit.bins=ms"]),
        ("time", time * 1000, ["variables.time_ms=time"]),
    ):
        np.savez(tmp_path / "r.npz", rate=RATES + 0.1, **{name: values})
        root, lines = imported(tmp_path / "r.npz", tmp_path, *arguments)
        np.testing.assert_allclose(root["time"][...], time)
        assert root.attrs["bin_ms"] == 20 and len(lines) == 1
    np.savez(tmp_path / "both.npz", rate=RATES + 0.1, time_ms=time * 1000, t=np.arange(150) ** 2)  # t is something else
    root, _ = imported(tmp_path / "both.npz", tmp_path, "variables.time_ms=time_ms")
    np.testing.assert_allclose(root["time"][...], time)


def test_bins_are_not_guessed_without_a_word(tmp_path):
    path = tmp_path / "r.npz"
    np.savez(path, rate=RATES + 0.1)
    root, lines = imported(path, tmp_path)
    assert root["time"][0] == 0.01 and len(lines) == 3
    assert "20 ms, the default, is taken; bin=... gives another" in lines[1] and "the file has no times of its bins" in lines[2]
    root, lines = imported(path, tmp_path, "window=[-2,1]", "bin=20")
    assert root["time"][0] == pytest.approx(-1.99) and len(lines) == 1
    refused(path, tmp_path, r"window=\[-1, 1\]: .* has 150 bins of 20 ms; expected 3 s", "window=[-1,1]", "bin=20")
    np.savez(path, rate=RATES + 0.1, time=0.01 + 0.02 * np.arange(150))
    refused(path, tmp_path, "bin=10: expected no value, as .* has bins of 20 ms", "bin=10")
    refused(path, tmp_path, r"window=\[-2, 1\]: .* has 150 bins of 20 ms from 0 to 3 s; expected no value", "window=[-2,1]")
    np.savez(path, rate=RATES + 0.1, time=-1990.0 + 20 * np.arange(150))
    refused(path, tmp_path, "time: steps of 20 would be bins of 20,000 ms, if they were in s; expected time_unit.bins=ms")


@pytest.mark.parametrize(("name", "arguments"), [("cue", ["time_unit.trials=ms"]), ("cue_ms", [])])
def test_further_events_have_the_unit_of_the_trials(tmp_path, name, arguments):
    start = {"trials/start_time" + "_ms" * name.endswith("_ms"): 1000 * EVENTS, f"trials/{name}": 1000 * EVENTS + 250}
    np.savez(tmp_path / "s.npz", spike_times=TIMES, spike_clusters=LABELS, **start)
    root, _ = imported(tmp_path / "s.npz", tmp_path, "kernel=none", "events=[cue]", *arguments)
    np.testing.assert_allclose(root["rate"][0], RATES, atol=1e-4)
    assert root.attrs["events"]["cue"]["median"] == pytest.approx(0.25)


def test_more_units_than_bins(tmp_path):
    values = np.random.default_rng(0).uniform(1, 20, (30, 400))
    np.save(tmp_path / "r.npy", values)
    refused(tmp_path / "r.npy", tmp_path, r"nothing says which axis is time; expected axes=\[time,unit\] for 400 units in 30 bins, or")
    np.savetxt(tmp_path / "r.csv", values, delimiter=",")
    refused(tmp_path / "r.csv", tmp_path, "nothing says which axis is time")
    root, _ = imported(tmp_path / "r.npy", tmp_path, "axes=[unit,time]")
    np.testing.assert_allclose(root["rate"][0], values.T, rtol=1e-6)
    np.savez(tmp_path / "r.npz", rate=values, time=np.arange(30) * 0.02)
    assert imported(tmp_path / "r.npz", tmp_path)[0]["rate"].shape == (1, 30, 400)
    np.save(tmp_path / "r.npy", np.stack([values, values]))
    root, said = imported(tmp_path / "r.npy", tmp_path)
    assert root["rate"].shape == (2, 30, 400) and "r: nothing says which axis is time: 400 units in 30 bins" in " ".join(said)
    np.save(tmp_path / "r.npy", np.stack([values, values]).round())
    refused(tmp_path / "r.npy", tmp_path, "nothing says which axis is time")


# Single trials


@pytest.mark.parametrize("arguments", [["bin=20", "window=[-2,1]"], ["bin=20", "window=[-2,1]", "axes=[trial,time,unit]"]])
def test_counts_of_single_trials(tmp_path, arguments):
    np.savez(tmp_path / "c.npz", spikes=COUNTS)
    lines = check(tmp_path / "c.npz", tmp_path, *arguments)
    assert "spike counts of 20 trials in bins of 20 ms" in lines[0]
    spikes, trials = trial_counts.summed(recordings.open_recording(tmp_path / "out.zarr"), np.arange(N_UNITS), "odd")
    np.testing.assert_array_equal(spikes[0], COUNTS[::2].sum(axis=0))
    assert (trials == 10).all()


def test_counts_in_other_layouts(tmp_path):
    """Axes of MATLAB, dimensions of Zarr with times and conditions, larger bins, trials of unequal length."""
    scipy_io.savemat(tmp_path / "c.mat", {"counts": COUNTS.transpose(2, 1, 0).astype(np.uint8), "time": BINS[:-1] + 0.01})
    refused(tmp_path / "c.mat", tmp_path, "has shape .* and spike counts; expected the order of its axes, such as axes=")
    check(tmp_path / "c.mat", tmp_path, "axes=[unit,time,trial]")
    store = zarr.create_group(str(tmp_path / "c.zarr"))
    store.create_array("counts", data=COUNTS.transpose(1, 0, 2).astype(float), dimension_names=("time", "trial", "unit"))
    store.create_array("time", data=BINS[:-1] + 0.01)
    store.create_array("trials/side", data=np.arange(N_TRIALS) % 2)
    root, _ = imported(
        tmp_path / "c.zarr", tmp_path, "conditions.a=side == 0", "conditions.b=side == 1", "bin=40", "window=[-1,1]", "kernel=none"
    )
    expected = [COUNTS[side::2, 50:].reshape(10, 50, 2, N_UNITS).sum(axis=2).mean(axis=0) / 0.04 for side in (0, 1)]
    np.testing.assert_allclose(root["rate"][...], expected, atol=1e-4)
    refused(tmp_path / "c.zarr", tmp_path, r"window=\[-3, 1\]: .* have bins from -2 to 1 s only; expected a window within", "window=[-3,1]")
    refused(tmp_path / "c.zarr", tmp_path, "has counts in bins of 20 ms from -2 s; expected whole bins of these", "bin=30")
    refused(tmp_path / "c.zarr", tmp_path, "no missing in .*c.zarr; expected one of side, trial", "align=missing")
    ragged = COUNTS.astype(float)
    ragged[5, 100:], ragged[7, :, 2] = np.nan, np.nan  # a trial that ends early, a unit that is missing in a trial
    np.savez(tmp_path / "r.npz", spikes=ragged)
    root, _ = imported(tmp_path / "r.npz", tmp_path, "bin=20", "window=[-2,1]", "kernel=none")
    assert root["unit/n_trials"][:, 0].tolist() == [19, 19, 18, 19]
    others = np.delete(np.arange(N_TRIALS), [5, 7])
    np.testing.assert_allclose(root["rate"][0, :100, 2], (COUNTS[others, :100, 2].mean(axis=0) / 0.02), atol=1e-4)
    ragged[3, 10, 0] = np.nan
    np.savez(tmp_path / "r.npz", spikes=ragged)
    with pytest.raises(UserError, match="counts of trial 4, unit 0 are NaN between numbers"):
        arrays.read(tmp_path / "r.npz", Options(bin=20))


def test_rates_of_single_trials(tmp_path):
    """Smoothed rates of trials are averaged by condition; odd and even trials too."""
    values = COUNTS + 0.25
    np.savez(tmp_path / "r.npz", rate=values, condition=["a", "b"] * 10)
    root, lines = imported(tmp_path / "r.npz", tmp_path, "bin=20")
    np.testing.assert_allclose(root["rate"][...], [values[::2].mean(axis=0), values[1::2].mean(axis=0)], rtol=1e-5)
    np.testing.assert_allclose(root["rate_half"][1, 0], values[2::4].mean(axis=0), rtol=1e-5)
    assert (
        (root["unit/n_trials"][...] == 10).all()
        and root["condition"][...].tolist() == ["a", "b"]
        and "rates of 20 single trials" in lines[0]
    )


def cells_of(values) -> np.ndarray:
    """Cell array [rows, columns] as scipy writes it."""
    out = np.empty((len(values), len(values[0])), object)
    for row, each in enumerate(values):
        out[row] = each
    return out


@pytest.mark.parametrize("unit", ["s", "ms"])
@pytest.mark.parametrize("transposed", [False, True])
def test_cells_of_units_and_trials(tmp_path, transposed, unit):
    cells = cells_of([[times * (1000 if unit == "ms" else 1) for times in trains] for trains in RELATIVE])
    scipy_io.savemat(tmp_path / "c.mat", {"spike_times": cells.T if transposed else cells})
    arguments = [*(["axes=[trial,unit]"] if transposed else []), *(["time_unit=ms"] if unit == "ms" else [])]
    lines = check(tmp_path / "c.mat", tmp_path, *arguments)
    assert "cells of 4 units x 20 trials" in lines[0] and "relative to each trial" in lines[0]
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("spike_times", cells.shape, h5py.vlen_dtype(float))[:] = cells
    if not transposed:
        check(tmp_path / "c.h5", tmp_path, *arguments)
    refused(tmp_path / "c.mat", tmp_path, "have spikes from .* s only; expected a window within", "window=[-5,1]", *arguments)


@pytest.mark.parametrize("layout", ["one unit", "one trial", "nested", "nested by column", "struct"])
def test_cells_of_one_row_and_cells_of_cells(tmp_path, layout):
    """spikes(1, trial) and spikes(unit, 1) with axes; spikes{unit}{trial}; units(k).spike_times{trial}."""
    nested = np.array([cells_of([each])[0] for each in RELATIVE] + [None], object)[:-1]
    value, shape, arguments = {
        "one unit": (cells_of(RELATIVE[:1]), (1, N_TRIALS), ["axes=[unit,trial]"]),
        "one trial": (cells_of([[each[0]] for each in RELATIVE]), (N_UNITS, 1), ["axes=[unit,trial]"]),
        "nested": (nested, (N_UNITS, N_TRIALS), []),
        "nested by column": (nested[:, None], (N_UNITS, N_TRIALS), []),
        "struct": (None, (N_UNITS, N_TRIALS), []),
    }[layout]
    content = {"spike_times": value}
    if value is None:
        content = {"units": np.array([(each,) for each in nested], [("spike_times", object)])}
    scipy_io.savemat(tmp_path / "c.mat", content)
    root, lines = imported(tmp_path / "c.mat", tmp_path, "window=[-2,1]", "kernel=none", "min_trials=1", *arguments)
    assert f"cells of {shape[0]} units x {shape[1]} trials" in lines[0]
    np.testing.assert_array_equal(root["trials/0/counts"][...], COUNTS[: shape[1], :, : shape[0]])


def test_cells_with_a_table_of_trials(tmp_path):
    """The table says which axis is trials, and has conditions and the event in each trial."""
    go = np.linspace(-0.5, 0.5, N_TRIALS)
    trials = {"start_time": EVENTS - 1, "go": go, "side": np.arange(N_TRIALS) % 2}
    scipy_io.savemat(tmp_path / "c.mat", {"spike_times": cells_of(RELATIVE).T, "trials": trials})
    root, _ = imported(tmp_path / "c.mat", tmp_path, "align=go", "window=[-1,.5]", "conditions.a=side == 1", "min_trials=1", "kernel=none")
    edges = -1 + 0.02 * np.arange(76)
    expected = np.mean([np.histogram(TRAINS[0], EVENTS[k] + go[k] + edges)[0] / 0.02 for k in range(1, N_TRIALS, 2)], axis=0)
    np.testing.assert_allclose(root["rate"][0, :, 0], expected, atol=1e-4)
    absolute = cells_of([[times + event for times, event in zip(trains, EVENTS, strict=True)] for trains in RELATIVE])
    scipy_io.savemat(tmp_path / "d.mat", {"spike_times": absolute, "trials": {"start_time": EVENTS}})
    np.testing.assert_allclose(imported(tmp_path / "d.mat", tmp_path, "kernel=none")[0]["rate"][0], RATES, atol=1e-4)
    scipy_io.savemat(tmp_path / "e.mat", {"spike_times": absolute, "trials": {"start_time": EVENTS[:3]}})
    with pytest.raises(UserError, match="has 4 x 20 cells, and the file 3 trials; expected cells of units x trials"):
        matlab.read(tmp_path / "e.mat", Options())


def test_cells_that_leave_a_choice(tmp_path):
    """Cells without a table of trials; a square array of structs, one for each trial."""
    scipy_io.savemat(tmp_path / "c.mat", {"spike_times": cells_of(RELATIVE).T})
    _, lines = imported(tmp_path / "c.mat", tmp_path, "window=[-2,1]", "min_trials=1")
    warning = "nothing says which cells are units: axes=[unit,trial] is taken, 20 units and 4 trials; axes=[trial,unit] gives the other"
    assert warning in "".join(lines)
    _, lines = imported(tmp_path / "c.mat", tmp_path, "window=[-2,1]", "axes=[trial,unit]")
    assert "nothing says" not in "".join(lines)
    square = [tuple([cells_of([[trains[k] for trains in RELATIVE]])]) for k in range(N_UNITS)]
    scipy_io.savemat(tmp_path / "s.mat", {"trials": np.array(square, [("spikes", object)])})
    root, _ = imported(tmp_path / "s.mat", tmp_path, "window=[-2,1]", "kernel=none", "min_trials=1", "variables.spike_times=trials.spikes")
    np.testing.assert_array_equal(root["trials/0/counts"][...], COUNTS[:N_UNITS])


NAMED_AXES = [("units", "time_bin", "trial"), ("neuron", "time_ms", "trials"), ("cell_id", "t", "repetition")]


@pytest.mark.parametrize("dims", NAMED_AXES)
@pytest.mark.parametrize("kind", ["zarr 2", "zarr 3", "hdf5 labels", "hdf5 scales"])
def test_names_of_axes_are_obeyed(tmp_path, kind, dims):
    values = COUNTS.transpose(2, 1, 0)
    if kind.startswith("zarr"):
        store = zarr.create_group(str(tmp_path / "c.zarr"), zarr_format=int(kind[-1]))
        named = {"attributes": {"_ARRAY_DIMENSIONS": list(dims)}} if kind == "zarr 2" else {"dimension_names": dims}
        store.create_array("counts", data=values, **named)
    else:
        with h5py.File(tmp_path / "c.h5", "w") as file:
            file["counts"] = values
            for axis, (name, size) in enumerate(zip(dims, values.shape, strict=True)):
                if kind == "hdf5 labels":
                    file["counts"].dims[axis].label = name
                else:
                    file[f"scales/{name}"] = np.arange(size)
                    file[f"scales/{name}"].make_scale(name)
                    file["counts"].dims[axis].attach_scale(file[f"scales/{name}"])
    lines = check(tmp_path / ("c.zarr" if kind.startswith("zarr") else "c.h5"), tmp_path, "bin=20", "window=[-2,1]")
    assert "nothing says" not in "".join(lines)


@pytest.mark.parametrize(
    "dims", [("unit", "time", "animal"), ("unit", "cell", "time"), ("unit", "trial", "condition"), ("", "time", "unit")]
)
def test_names_of_axes_that_say_too_little(tmp_path, dims):
    store = zarr.create_group(str(tmp_path / "c.zarr"))
    store.create_array("counts", data=COUNTS, dimension_names=[each or None for each in dims])
    refused(tmp_path / "c.zarr", tmp_path, r"counts has the axes .*; expected axes=\[...\] that says which of them is time, unit", "bin=20")
    check(tmp_path / "c.zarr", tmp_path, "bin=20", "window=[-2,1]", "axes=[trial,time,unit]")


def test_axes_of_counts_that_nothing_names(tmp_path):
    np.savez(tmp_path / "c.npz", counts=COUNTS)
    lines = check(tmp_path / "c.npz", tmp_path, "bin=20", "window=[-2,1]")
    assert "nothing says which axis is which: axes of the matrix: trial 20, time 150, unit 4; axes=[unit,time,trial] gives" in "".join(
        lines
    )
    np.savez(tmp_path / "c.npz", counts=COUNTS, unit_id=np.arange(N_UNITS))
    assert "nothing says" not in "".join(check(tmp_path / "c.npz", tmp_path, "bin=20", "window=[-2,1]"))


def relative_spikes(kept) -> dict[str, np.ndarray]:
    """Vectors of spikes relative to their trial, of those trials and times for which `kept(trial, times)` is true."""
    parts = [(u, k, times[kept(k, times)]) for u, trains in enumerate(RELATIVE) for k, times in enumerate(trains)]
    sizes = [len(times) for _, _, times in parts]
    return {
        "spike_times": np.concatenate([times for _, _, times in parts]),
        "spike_clusters": np.repeat([u for u, _, _ in parts], sizes),
        "spike_trials": np.repeat([k for _, k, _ in parts], sizes),
    }


@pytest.mark.parametrize("low, high", [(1, 18), (5, 9)])
def test_numbers_of_trials_that_may_count_from_0_or_1(tmp_path, low, high):
    """Labels of some of 20 trials, and a table of these without labels."""
    spikes = relative_spikes(lambda trial, times: np.full(len(times), low <= trial <= high))
    np.savez(tmp_path / "x.npz", **spikes, **{"trials/side": np.arange(N_TRIALS) % 2})
    refused(
        tmp_path / "x.npz", tmp_path, f"trials {low} to {high}, which may count the 20 trials from 0 or from 1; expected a column trial"
    )
    np.savez(tmp_path / "x.npz", **spikes, **{"trials/side": np.arange(N_TRIALS) % 2, "trials/trial": np.arange(N_TRIALS)})
    root, _ = imported(
        tmp_path / "x.npz", tmp_path, "window=[-2,1]", "kernel=none", f"trials=trial >= {low} and trial <= {high}", "min_trials=1"
    )
    np.testing.assert_array_equal(root["trials/0/counts"][...], COUNTS[low : high + 1])


@pytest.mark.parametrize("part", ["start", "end"])
def test_trials_of_unequal_length_without_a_table(tmp_path, part):
    for name, kept in {
        "x": lambda trial, times: np.full(len(times), trial % 2) | (times > 0 if part == "start" else times < 0) == 1,
        "y": lambda trial, times: np.full(len(times), True),
    }.items():
        np.savez(tmp_path / f"{name}.npz", **relative_spikes(kept))
        _, lines = imported(tmp_path / f"{name}.npz", tmp_path, "window=[-2,1]")
        assert ("10 of 20 trials have no spike where trials have more than 20 on average" in "".join(lines)) == (name == "x")


@pytest.mark.parametrize("separate", [False, True])
def test_fast_units_in_ms_are_doubted(tmp_path, separate):
    """60 Hz in ms would be .06 Hz in s, which is above the lowest rate of a recording."""
    rng = np.random.default_rng(1)
    trains = [np.sort(rng.uniform(0, 60, 4000)) for _ in range(N_UNITS)]
    flat, labels = np.concatenate(trains), np.repeat(np.arange(N_UNITS), 4000)
    spikes = {"spike_times": 1000 * (flat % 3) if separate else 1000 * flat, "spike_clusters": labels}
    trials = {"spike_trials": (flat // 3).astype(int)} if separate else {"trials/start_time": 1000 * np.arange(3, 57.0)}
    np.savez(tmp_path / "x.npz", **spikes, **trials)
    _, lines = imported(tmp_path / "x.npz", tmp_path, "window=[0,1]", "min_trials=0", "bin=100")
    assert "its median unit has 0.06" in "".join(lines) and "time_unit=ms, us or samples" in "".join(lines)
    root, lines = imported(tmp_path / "x.npz", tmp_path, "window=[0,1]", "time_unit=ms")
    assert "median unit" not in "".join(lines) and abs(root["rate"][...].mean() / (4000 / 60) - 1) < 0.05


@pytest.mark.parametrize("suffix", [".npz", ".csv"])
@pytest.mark.parametrize("first", [0, 1])
def test_spikes_with_their_trial(tmp_path, suffix, first):
    times = np.concatenate([each for trains in RELATIVE for each in trains])
    trial = np.concatenate([np.full(len(each), k + first) for trains in RELATIVE for k, each in enumerate(trains)])
    labels = np.repeat(np.arange(N_UNITS), [sum(map(len, trains)) for trains in RELATIVE])
    path = tmp_path / f"x{suffix}"
    if suffix == ".npz":
        np.savez(path, spike_times=times, spike_clusters=labels, spike_trials=trial)
    else:
        np.savetxt(path, np.column_stack([trial, labels, times]), delimiter=",", header="trial,unit,time", comments="")
    check(path, tmp_path)


# Tables


TABLE = {"time": [0.5, 1000.25, 2.0], "unit": [1, 2, 1], "side": ["a", "b", "a"]}


@pytest.mark.parametrize(
    "text",
    [
        "time,unit,side\n.5,1,a\n1000.25,2,b\n2,1,a\n",
        "time;unit;side\n0,5;1;a\n1000,25;2;b\n2,0;1;a\n",
        "time\tunit\tside\n0,5\t1\ta\n1 000,25\t2\tb\n2\t1\ta\n",
        "time unit side\n0.5 1 a\n1000.25  2 b\n2 1   a\n",
        "# exported\n#\n\ntime,unit,side\n0.5,1,a\n# a pause\n1000.25,2,b\n2,1,a\n",
        "% time unit side\n 0.5 1 a\n1000.25 2 b\n2 1 a\n",
        '\ufefftime;unit;side\r\n"0,5";1;a\r\n"1\u00a0000,25";2;b\r\n2;1;a\r\n',
        "time,unit,side\r.5,1,a\r1000.25,2,b\r2,1,a\r",
    ],
)
def test_texts_of_tables(tmp_path, text):
    for name, encoding in (("a.csv", "utf-8"), ("b.csv", "utf-16")):
        (tmp_path / name).write_text(text, encoding=encoding, newline="")
        assert {name: column.tolist() for name, column in table_files.read_table(tmp_path / name).items()} == TABLE


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("time,unit\n0.1,0\n0.2,1\n0.3,1,9,9\n", "line 4 has 4 cells; expected 2, as in the header"),
        ("# x\ntime unit\n0.1 0\n\n0.2\n", "line 5 has 1 cells; expected 2"),
        ("start\tstop\n5,000\t7,000\n", "start is 5,000 in a row, which may be a fraction or thousands; expected a decimal point"),
        ("start;stop\n5,5;1.234\n", "stop is 1.234 in a row, start is 5,5; expected decimal points or decimal commas"),
    ],
)
def test_texts_of_tables_that_are_refused(tmp_path, text, pattern):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=pattern):
        table_files.read_table(tmp_path / "t.csv")


def test_decimal_commas_in_a_table_of_trials(tmp_path):
    np.savez(tmp_path / "s.npz", spike_times=TIMES, spike_clusters=LABELS)
    (tmp_path / "trials.csv").write_text("start_time;stop_time\n" + "".join(f"{e:.3f};{e + 2:.3f}\n" for e in EVENTS).replace(".", ","))
    check(tmp_path / "s.npz", tmp_path)
    (tmp_path / "own.csv").write_text("onset,duration\n5,2\n")
    refused(tmp_path / "s.npz", tmp_path, "no start_time in .*own.csv; expected one of duration, onset", "trials_table=own.csv")


@pytest.mark.parametrize(
    "header",
    ["spike_time,neuron_id", "timestamps,cluster", "ts,id", "spike_time_s,unit_id", "t [ms],sender", "time_us,cell", "time_ms,neuron"],
)
def test_a_table_of_spikes_is_never_taken_for_rates(tmp_path, header):
    unit = time_units.split_name(header.split(",")[0])[1] or "s"
    order = np.argsort(TIMES)
    rows = np.column_stack([TIMES[order] / time_units.SECONDS[unit], LABELS[order]])
    np.savetxt(tmp_path / "s.csv", rows, "%.17g", delimiter=",", header=header, comments="")
    with pytest.raises(UserError, match="has no trials"):
        arrays.read(tmp_path / "s.csv", Options())
    (tmp_path / "trials.csv").write_text("start_time\n" + "\n".join(map(str, EVENTS)))
    check(tmp_path / "s.csv", tmp_path)
    np.savetxt(tmp_path / "other.csv", rows, "%.17g", delimiter=",", header="x,y", comments="")
    refused(tmp_path / "other.csv", tmp_path, "x and y look like times and units of spikes; expected variables.spike_times=x")
    by_unit = np.column_stack([TIMES, LABELS])
    np.savetxt(tmp_path / "other.csv", by_unit, "%.17g", delimiter=",", header="x,y", comments="")
    refused(tmp_path / "other.csv", tmp_path, "x and y look like times and units of spikes")


@pytest.mark.parametrize("order", ["time", "unit"])
def test_a_matrix_of_spikes_or_of_times_and_rates_is_never_taken_for_rates(tmp_path, order):
    rows = np.column_stack([TIMES, LABELS])[np.argsort(TIMES) if order == "time" else slice(None)]
    np.save(tmp_path / "s.npy", rows)
    refused(tmp_path / "s.npy", tmp_path, "columns 0 and 1 look like times and units of spikes")
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "s.npz", spikes=np.column_stack([rows, LABELS + 3, *rng.uniform(0, 100, (4, len(rows)))]))
    refused(tmp_path / "s.npz", tmp_path, "columns 0 and 1 look like times and units of spikes")
    np.save(tmp_path / "r.npy", np.column_stack([0.02 * np.arange(150), RATES + 0.1]))
    refused(tmp_path / "r.npy", tmp_path, "column 0 ascends in equal steps, as times of bins do")


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("fill", [np.nan, 0, -1])
def test_matrices_of_spike_times(tmp_path, transposed, fill):
    """One column or row a unit, filled up: read where the name says so, never taken for rates."""
    matrix = np.full((max(map(len, TRAINS)), N_UNITS), float(fill))
    for unit, train in enumerate(TRAINS):
        matrix[: len(train), unit] = train
    matrix = matrix.T if transposed else matrix
    trials = {"trials/start_time": EVENTS}
    np.savez(tmp_path / "a.npz", spike_times=matrix, **trials)
    assert "spike times of one unit in each " + ("row" if transposed else "column") in check(tmp_path / "a.npz", tmp_path)[0]
    np.savez(tmp_path / "b.npz", spikes=matrix, **trials)
    check(tmp_path / "b.npz", tmp_path)
    np.savez(tmp_path / "c.npz", ts=matrix, **trials)
    words = "rows" if transposed else "columns"
    refused(tmp_path / "c.npz", tmp_path, f"ts has sorted {words}, as spike times are and rates are not; expected variables.spike_times=ts")
    check(tmp_path / "c.npz", tmp_path, "variables.spike_times=ts")
    if not transposed:
        np.savetxt(tmp_path / "e.csv", np.round(matrix, 2), delimiter=",", header="sig1,sig2,sig3,sig4", comments="")  # with equal times
        refused(tmp_path / "e.csv", tmp_path, "all columns ascend, as spike times of a unit in each do")
    np.savez(tmp_path / "d.npz", spike_times=RATES, **trials)
    refused(tmp_path / "d.npz", tmp_path, "neither its columns nor its rows are sorted times; expected a vector of spike times")


def test_sorted_rates_are_rates_if_the_user_says_so(tmp_path):
    ramps = np.linspace(1, 20, 150)[:, None] + np.arange(4) + 0.05
    np.savez(tmp_path / "r.npz", rate=ramps)
    refused(tmp_path / "r.npz", tmp_path, "rate has sorted columns, .* or axes=.* if they are rates")
    np.testing.assert_allclose(imported(tmp_path / "r.npz", tmp_path, "axes=[time,unit]")[0]["rate"][0], ramps, rtol=1e-6)
    np.savez(tmp_path / "t.npz", rate=ramps, time=0.02 * np.arange(150))
    np.testing.assert_allclose(imported(tmp_path / "t.npz", tmp_path)[0]["rate"][0], ramps, rtol=1e-6)


def test_a_column_of_times_is_not_a_rate(tmp_path):
    columns = np.column_stack([0.02 * np.arange(150), RATES + 0.1])
    np.savetxt(tmp_path / "r.csv", columns, delimiter=",", header="centre,a,b,c,d", comments="")
    refused(tmp_path / "r.csv", tmp_path, "centre ascends in all 150 rows, as times do and rates do not; expected variables.time=centre")
    root, _ = imported(tmp_path / "r.csv", tmp_path, "variables.time=centre")
    np.testing.assert_allclose(root["rate"][0], RATES + 0.1, rtol=1e-6)
    assert root["time"][1] == pytest.approx(0.02)
