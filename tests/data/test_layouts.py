"""Layouts of folders and files that laboratories have: ALF, NWB in Zarr, one array for each unit, CellExplorer, SONATA."""

import itertools
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from scipy import io as scipy_io
from spikes_of_three_units import LABELS, ORDER, PSTH, SPIKES, TIMES, TRIALS, Mat73, check, of_cells, refused, spikes_of, write_table

from rlsnet.data import source_search, time_units
from rlsnet.data.formats import arrays, cell_explorer, hdf5, ibl_alf, matlab, nwb, registry, sonata
from rlsnet.data.import_options import Options, options_of
from rlsnet.data.importing import import_sources
from rlsnet.errors import UserError


@pytest.mark.parametrize(
    ("spikes", "trials", "source", "ids"),
    [
        ("alf", "alf", "", (3, 5, 11)),  # spikes in alf itself
        (".", ".", "", (3, 5, 11)),  # all files in one folder
        ("alf/imec0", "alf", "", ("imec0:3", "imec0:5", "imec0:11")),
        ("alf/probe00/ks4", "alf", "", ("probe00:3", "probe00:5", "probe00:11")),  # another sorter
        ("probe00", ".", "", ("probe00:3", "probe00:5", "probe00:11")),  # no folder alf
        ("alf/probe00", ".", "", ("probe00:3", "probe00:5", "probe00:11")),  # trials in the folder of the session
        ("alf/probe00", "alf", "alf/probe00", ("probe00:3", "probe00:5", "probe00:11")),  # the folder of a probe as source
        ("alf/probe00/pykilosort", "alf", "alf/probe00", ("probe00:3", "probe00:5", "probe00:11")),
        ("alf/probe00/pykilosort", "alf", "alf/probe00/pykilosort", ("probe00:3", "probe00:5", "probe00:11")),
        ("alf/imec0/ks4", "alf", "alf/imec0", ("imec0:3", "imec0:5", "imec0:11")),
        ("imec0", ".", "imec0", (3, 5, 11)),
        ("alf/probe00", None, "", ("probe00:3", "probe00:5", "probe00:11")),  # trials_table=
        ("alf/probe00", None, "alf/probe00", ("probe00:3", "probe00:5", "probe00:11")),
        ("alf/probe00", "table", "", ("probe00:3", "probe00:5", "probe00:11")),  # trials.csv beside the session's folders
    ],
)
def test_alf_layouts(tmp_path, spikes, trials, source, ids):
    session = tmp_path / "mouse" / "2020-01-02" / "001"
    (session / spikes).mkdir(parents=True)
    np.save(session / spikes / "spikes.times.npy", TIMES[ORDER][:, None])
    np.save(session / spikes / "spikes.clusters.npy", LABELS[ORDER][:, None].astype(float))
    table = None
    if trials == "table":
        write_table(session / "trials.csv", TRIALS)
    elif trials is None:
        table = str(write_table(tmp_path / "t.csv", TRIALS))
    else:
        np.save(session / trials / "trials.intervals.npy", np.stack([TRIALS["start_time"], TRIALS["stop_time"]], axis=1))
        np.save(session / trials / "trials.side.npy", np.array(TRIALS["side"])[:, None])
    assert registry.recognized_format(session / source) == "alf" and not ibl_alf.matches(session.parent)
    found = check(ibl_alf.read(session / source, Options(trials_table=table)), ids)
    assert found.name == ("imec0" if source == "imec0" else "mouse/2020-01-02/001")
    assert ("probe" in found.units) == isinstance(ids[0], str)


def test_alf_folders_that_leave_a_choice(tmp_path):
    for folder in ("alf/probe00/ks3", "alf/probe00/ks4"):
        (tmp_path / folder).mkdir(parents=True)
        np.save(tmp_path / folder / "spikes.times.npy", TIMES)
        np.save(tmp_path / folder / "spikes.clusters.npy", LABELS)
    np.save(tmp_path / "alf" / "trials.intervals.npy", np.stack([TRIALS["start_time"], TRIALS["stop_time"]], axis=1))
    refused(ibl_alf.read, tmp_path, "probe00: has spikes of several sorters; expected one of them as source: .*ks3 or .*ks4")
    np.save(tmp_path / "alf" / "spikes.times.npy", TIMES)
    np.save(tmp_path / "alf" / "probe00" / "spikes.times.npy", TIMES)
    refused(ibl_alf.read, tmp_path, "alf: has spikes, and its folder probe00 too")


def test_original_files_of_steinmetz(tmp_path):
    """Columns [n, 1] in one folder, channels counted from 1, regions in a table: rates by the preset against sums in plain NumPy."""
    folder = tmp_path / "Cori_2016-12-14"
    folder.mkdir()
    random = np.random.default_rng(1)
    n, start = 40, 1.5 + 4.0 * np.arange(40)
    times = np.sort(random.uniform(0, start[-1] + 5, 4000))
    clusters = random.integers(0, 5, 4000)
    contrast = {side: random.choice([0, 0.25, 0.5, 1], n) for side in ("Left", "Right")}
    files = {
        "spikes.times": times,
        "spikes.clusters": clusters.astype(np.uint32),
        "clusters._phy_annotation": np.array([3, 1, 2, 2, 3, 2], np.int8),  # the last has no spikes
        "clusters.peakChannel": np.array([1.0, 2, 4, 3, 4, 1]),
        "clusters.probes": np.array([0, 0, 1, 1, 1, 0], np.uint8),
        "trials.visualStim_times": start + 0.5,
        "trials.feedbackType": random.choice([-1, 1], n),
        "trials.included": np.ones(n, bool),
        **{f"trials.visualStim_contrast{side}": values for side, values in contrast.items()},
    }
    for name, values in files.items():
        np.save(folder / f"{name}.npy", values[:, None])
    np.save(folder / "trials.intervals.npy", np.stack([start, start + 3], axis=1))
    (folder / "channels.brainLocation.tsv").write_text(
        "ccf_ap\tccf_dv\tccf_lr\tallen_ontology\n" + "".join(f"1\t2\t3\t{region}\n" for region in ("VISp", "CA1", "MOs", "root"))
    )
    import_sources([folder], tmp_path / "out.zarr", options_of({"preset": "steinmetz_alf", "kernel": "none", "min_trials": 1}), log=len)
    found = zarr.open_group(str(tmp_path / "out.zarr"), mode="r")
    kept = [0, 2, 3, 4]
    assert found["unit/id"][...].tolist() == [str(each) for each in kept] and found["condition"][...].tolist() == ["left", "right", "equal"]
    assert found["unit/region"][...].tolist() == ["VISp", "root", "MOs", "root"] and found["unit/probe"][...].tolist() == [
        "0",
        "1",
        "1",
        "1",
    ]
    for row, compare in enumerate((np.greater, np.less, np.equal)):
        chosen = start[compare(contrast["Left"], contrast["Right"])] + 0.5
        for column, unit in enumerate(kept):
            mine = times[clusters == unit]
            expected = sum(np.histogram(mine - event, np.arange(41) / 100)[0] for event in chosen) / len(chosen) / 0.01
            np.testing.assert_allclose(found["rate"][row, :, column], expected, rtol=1e-5)
    with pytest.raises(
        UserError, match=r"in the format alf; expected format=alf \(preset=steinmetz_alf\) and not format=arrays, which preset=steinmetz"
    ):
        import_sources([folder], tmp_path / "out.zarr", options_of({"preset": "steinmetz"}), log=len)


# NWB in Zarr, and tables of units elsewhere than in units


def write_nwb_zarr(path: Path, units: str = "units") -> Path:
    """A store in the layout of hdmf-zarr 0.13: Zarr 2, texts with vlen-utf8 and the fill value 0, references pickled."""
    root = zarr.create_group(str(path), zarr_format=2, attributes={"nwb_version": "2.9.0", ".specloc": "specifications"})

    def put(name, values):
        values = np.asarray(values)
        if values.dtype.kind == "U":
            array = root.create_array(name, shape=values.shape, dtype=str, chunks=(2,))
            array[...] = values
            file = path / name / ".zarray"
            content = json.loads(file.read_text())
            assert content["dtype"] == "|O" and content["filters"] == [{"id": "vlen-utf8"}]
            file.write_text(json.dumps(content | {"fill_value": 0}))
        else:
            root.create_array(name, data=values, chunks=(3,))

    put(f"{units}/spike_times", TIMES)
    put(f"{units}/spike_times_index", [3, 4, 8])
    put(f"{units}/id", [3, 5, 11])
    put(f"{units}/quality", ["good", "mua", "good"])
    put(f"{units}/electrodes", [1, 0, 1])
    put(f"{units}/electrodes_index", [1, 2, 3])
    put(f"{units}/electrode_group", [0, 1, 0])
    reference = path / units / "electrode_group" / ".zarray"
    pickled = {"dtype": "|O", "fill_value": 0, "filters": [{"id": "pickle", "protocol": 5}]}
    reference.write_text(json.dumps(json.loads(reference.read_text()) | pickled))
    for name, column in TRIALS.items():
        put(f"intervals/trials/{name}", column)
    put("general/extracellular_ephys/electrodes/id", [0, 1])
    put("general/extracellular_ephys/electrodes/location", ["CA1", "VISp"])
    put("acquisition/cue/timestamps", [4.0, 5.0, 0.5, 9.0])
    root.create_group("acquisition/same").attrs["zarr_link"] = [
        {"name": "timestamps", "source": ".", "path": "/acquisition/cue/timestamps"}
    ]
    return path


@pytest.mark.parametrize("units", ["units", "processing/ecephys/units_ks4"])
@pytest.mark.parametrize("name", ["s.nwb.zarr", "s.nwb", "sub/folder.zarr"])
def test_nwb_in_zarr(tmp_path, name, units):
    path = write_nwb_zarr(tmp_path / name, units)
    assert registry.recognized_format(path) == "nwb"
    session = check(nwb.read(path, Options()))
    assert session.units["quality"].tolist() == ["good", "mua", "good"] and session.units["region"].tolist() == ["VISp", "CA1", "VISp"]
    assert session.events["cue"].tolist() == session.events["same"].tolist() == [0.5, 4, 5, 9]
    assert ("units from processing/ecephys/units_ks4" in session.notes) == (units != "units")
    assert any("never unpickled: electrode_group" in note for note in session.notes)
    if ".nwb" in name:
        assert list(source_search.source_paths([tmp_path], tmp_path / "out.zarr", Options())) == [path]


def test_nwb_in_zarr_mistakes(tmp_path):
    path = write_nwb_zarr(tmp_path / "s.nwb.zarr")
    (path / "intervals/trials/start_time/0").unlink()
    refused(nwb.read, path, "intervals/trials/start_time: 1 of 1 chunks are missing")
    path = write_nwb_zarr(tmp_path / "t.nwb.zarr")
    (path / "units/spike_times/1").write_bytes(b"x")
    refused(nwb.read, path, "units/spike_times: cannot be read")
    (path / "units/spike_times/.zarray").write_text("{}")
    refused(nwb.read, path, "t.nwb.zarr: cannot be read")


def test_nwb_tables_of_units(tmp_path):
    """Units below processing are found; of several tables, variables.units names one."""
    path = tmp_path / "s.nwb"

    def units(file, where):
        file[f"{where}/spike_times"], file[f"{where}/spike_times_index"], file[f"{where}/id"] = TIMES, [3, 4, 8], [3, 5, 11]

    with h5py.File(path, "w") as file:
        units(file, "processing/ecephys/sorting/units_a")
        for name, values in TRIALS.items():
            file[f"intervals/trials/{name}"] = values
    assert "units from processing/ecephys/sorting/units_a" in check(nwb.read(path, Options())).notes
    with h5py.File(path, "a") as file:
        units(file, "processing/ecephys/units_b")
    refused(nwb.read, path, r"several tables .* one of variables.units=processing/ecephys/units_b, variables.units=processing/ecephys/sort")
    check(nwb.read(path, Options(variables={"units": "/processing/ecephys/units_b"})))
    refused(
        nwb.read, path, "variables.units=units: no table with spike_times .*; expected variables.units=proc", variables={"units": "units"}
    )
    with h5py.File(path, "a") as file:
        units(file, "units")
    assert not any(note.startswith("units from") for note in check(nwb.read(path, Options())).notes)


# One array for each unit, and trials as vectors of their own

NAMED = {f"unit_{unit}": np.array(times) for unit, times in SPIKES.items()}


def write_named(path: Path, contents: dict) -> Path:
    """Named arrays as .npz, .h5 or .mat."""
    if path.suffix == ".npz":
        np.savez(path, **contents)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            for name, values in contents.items():
                file[name] = values if np.asarray(values).dtype.kind != "U" else np.array(values, object)
    else:
        values = {name: np.array(each, object) if np.asarray(each).dtype.kind == "U" else each for name, each in contents.items()}
        scipy_io.savemat(path, values)
    return path


def read_named(path: Path, **options):
    return {".npz": arrays, ".h5": hdf5, ".mat": matlab}[path.suffix].read(path, Options(**options))


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize(
    "layout", ["unit_{}", "spikes/unit_{}", "units/{}/spike_times", "spike_times/unit_{}", "spikes/{}", "data/neuron{}", "x/cells/{}/times"]
)
def test_one_array_for_each_unit(tmp_path, suffix, layout):
    contents = {layout.format(unit): np.array(times) for unit, times in SPIKES.items()}
    more = {"trials/" + name: np.array(column) for name, column in TRIALS.items()} | {"waveforms": np.ones((3, 40))}
    check(read_named(write_named(tmp_path / f"s{suffix}", contents | more)))


def test_one_array_for_each_unit_in_matlab_and_with_columns(tmp_path):
    trials = {name: np.array(column) for name, column in TRIALS.items()}
    check(read_named(write_named(tmp_path / "s.mat", NAMED | {"trial_" + name: column for name, column in trials.items()})))
    regions = {f"units/{unit}/region": np.array([region]) for unit, region in zip(SPIKES, ("ALM", "M1", "Str"), strict=True)}
    spikes = {f"units/{unit}/spike_times": np.array(times) for unit, times in SPIKES.items()}
    found = check(read_named(write_named(tmp_path / "s.h5", spikes | regions | {f"trials/{name}": each for name, each in trials.items()})))
    assert found.units["region"].tolist() == ["ALM", "M1", "Str"]


@pytest.mark.parametrize("chosen", ["n*", "/probe/n*/st", "probe"])
def test_a_pattern_names_the_arrays_of_units(tmp_path, chosen):
    layout = "n{}" if chosen == "n*" else "probe/n{}/st"
    contents = {layout.format(unit): np.array(times) for unit, times in SPIKES.items()} | {"other/x": np.arange(4.0)}
    path = write_named(tmp_path / "s.npz", contents | {f"trials/{name}": np.array(column) for name, column in TRIALS.items()})
    check(read_named(path, variables={"spike_times": chosen}))
    with pytest.raises(UserError, match=r"variables.spike_times=m\*: .* has no such arrays"):
        read_named(path, variables={"spike_times": "m*"})


def test_units_of_one_name_in_two_places_are_two(tmp_path):
    contents = {f"probe{unit % 2}/n{unit // 2}": np.array(times) for unit, times in enumerate(SPIKES.values())}
    trials = {f"trials/{name}": np.array(column) for name, column in TRIALS.items()}
    found = read_named(write_named(tmp_path / "s.npz", contents | trials), variables={"spike_times": "probe*/n*"})
    assert found.units["id"].tolist() == ["probe0/n0", "probe0/n1", "probe1/n0"]
    order = [list(contents).index(name) for name in found.units["id"]]
    for (low, high), unit in zip(itertools.pairwise(found.spike_index), order, strict=True):
        np.testing.assert_array_equal(found.spike_times[low:high], list(SPIKES.values())[unit])


def test_a_unit_without_spikes_may_be_a_null_reference(tmp_path):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        refs = file.create_dataset("spike_times", (4,), h5py.ref_dtype)
        for number, (unit, times) in zip((0, 1, 3), SPIKES.items(), strict=True):
            file[f"refs/{unit}"] = np.array(times)
            refs[number] = file[f"refs/{unit}"].ref
        for name, column in TRIALS.items():
            file[f"trials/{name}"] = column
    session = read_named(tmp_path / "s.h5")
    assert session.units["id"].tolist() == [0, 1, 2, 3] and (np.diff(session.spike_index) == 0).tolist() == [False, False, True, False]


@pytest.mark.parametrize("ids", [None, [7, 8, 9]])
def test_a_spike_index_that_begins_with_0(tmp_path, ids):
    """The 0 is the start of the first of two units, or the end of the first of three, if the file says that there are three."""
    more = {} if ids is None else {"unit_id": np.array(ids)}
    np.savez(tmp_path / "s.npz", spike_times=np.arange(6.0), spike_index=[0, 2, 6], **{"trials/start_time": [0.0, 3.0]}, **more)
    session = read_named(tmp_path / "s.npz")
    assert np.diff(session.spike_index).tolist() == ([2, 4] if ids is None else [0, 2, 4])
    assert ("spike_index begins with 0" in " ".join(session.notes)) == (ids is None)


def test_vectors_that_are_no_spike_times_of_units(tmp_path):
    """Rates and trials have names with numbers too."""
    rates = {f"unit_{unit}": PSTH[0, :, unit] for unit in range(4)}
    message = r"no spikes or rates with a usual name; .*with one array for each unit, a group or pattern, variables.spike_times=unit_\*"
    with pytest.raises(UserError, match=message):
        read_named(write_named(tmp_path / "r.npz", rates))
    with pytest.raises(UserError, match=message):
        read_named(write_named(tmp_path / "t.npz", {f"trial_{number}": np.arange(5.0) for number in range(3)}))


@pytest.mark.parametrize("prefix", ["", "trial_", "trials_"])
@pytest.mark.parametrize("suffix", [".npz", ".h5", ".mat"])
def test_trials_as_vectors(tmp_path, suffix, prefix):
    contents = {prefix + name: np.array(column) for name, column in TRIALS.items()}
    path = write_named(tmp_path / f"s{suffix}", {"spike_times": TIMES, "spike_clusters": LABELS, "fs": 30000.5} | contents)
    found = check(read_named(path))
    assert found.trials.keys() == TRIALS.keys() and found.notes[0].startswith("trials from the arrays ")
    intervals = {"intervals": np.stack([TRIALS["start_time"], TRIALS["stop_time"]], axis=1), "side": np.array(TRIALS["side"])}
    check(read_named(write_named(tmp_path / "i.npz", {"spike_times": TIMES, "spike_clusters": LABELS} | intervals)))


# CellExplorer


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_cell_explorer(tmp_path, version):
    """The files of a session beside each other, in MATLAB 5 and 7.3."""
    folder = tmp_path / "mouse_day1"
    folder.mkdir()
    spikes = {"times": [np.array(times)[:, None] for times in SPIKES.values()], "UID": [3.0, 5, 11], "cluID": [7.0, 8, 9], "numcells": 3.0}
    contents = {
        "spikes.cellinfo": ("spikes", spikes | {"region": ["CA1", "CA3", "DG"], "basename": "mouse_day1"}),
        "trials.behavior": ("trials", {"start": TRIALS["start_time"], "end": TRIALS["stop_time"], "side": TRIALS["side"], "nTrials": 3.0}),
        "reward.events": ("reward", {"timestamps": np.array([[9.0, 9.5], [1.0, 1.5]])}),
    }
    for name, (struct, fields) in contents.items():
        file = folder / f"mouse_day1.{name}.mat"
        if version == "5":
            scipy_io.savemat(file, {struct: {key: of_cells(each) if isinstance(each, list) else each for key, each in fields.items()}})
        else:
            out = Mat73(file)
            out.put(struct, fields)
            out.close(file)
    assert registry.recognized_format(folder) == "cellexplorer"
    for source in (folder, folder / "mouse_day1.spikes.cellinfo.mat"):
        session = check(cell_explorer.read(source, Options()))
        assert session.name == "mouse_day1" and session.units["region"].tolist() == ["CA1", "CA3", "DG"]
        assert session.units["cluID"].tolist() == [7, 8, 9] and "numcells" not in session.units
        assert session.events["reward"].tolist() == [1, 9] and session.events["reward.stop"].tolist() == [1.5, 9.5]
    table = str(write_table(tmp_path / "t.csv", TRIALS))
    (folder / "mouse_day1.trials.behavior.mat").unlink()
    check(cell_explorer.read(folder, Options(trials_table=table)))
    refused(cell_explorer.read, folder, "has no trials; expected trials_table=")
    scipy_io.savemat(folder / "mouse_day1.spikes.cellinfo.mat", {"spikes": {"ts": 1}})
    refused(cell_explorer.read, folder, "has no spikes.times; expected a struct spikes")


# SONATA


@pytest.mark.parametrize(("units", "scale"), [(None, 1000), ("ms", 1000), ("s", 1), ("seconds", 1)])
def test_sonata(tmp_path, units, scale):
    write_table(tmp_path / "trials.csv", TRIALS)
    file = tmp_path / "spikes.h5"
    with h5py.File(file, "w") as out:
        out["spikes/cortex/timestamps"], out["spikes/cortex/node_ids"] = TIMES[ORDER] * scale, LABELS[ORDER].astype(np.uint64)
        if units:
            out["spikes/cortex/timestamps"].attrs["units"] = units
    assert registry.recognized_format(file) == registry.recognized_format(tmp_path) == "sonata"
    assert check(sonata.read(file, Options())).units["population"].tolist() == ["cortex"] * 3
    with h5py.File(tmp_path / "nodes.h5", "w") as out:
        out["nodes/cortex/node_type_id"] = np.zeros(13, int)
    silent = tuple(sorted(set(range(13)) - set(SPIKES)))
    found = spikes_of(sonata.read(tmp_path, Options()))
    assert list(found) == list(range(13)) and not any(found[node] for node in silent)
    with h5py.File(file, "a") as out:
        out["spikes/input/timestamps"], out["spikes/input/node_ids"] = [1000.0, 2000.0], [0, 0]
    assert spikes_of(sonata.read(file, Options()))["input:0"] == [1, 2]
    with h5py.File(file, "a") as out:
        out["spikes/input/timestamps"].attrs["units"] = "steps"
    refused(sonata.read, file, "/spikes/input/timestamps has units .steps.; expected s, ms, us or samples, or .* time_unit.spikes=s")
    assert spikes_of(sonata.read(file, Options(time_unit={"spikes": "s"})))["input:0"] == [1000, 2000]


def test_units_at_the_end_of_names():
    expected = {"start_time_us": ("start_time", "us"), "stimulus_stop_ms": ("stimulus_stop", "ms"), "time [ms]": ("time", "ms")}
    expected |= {"t(s)": ("t", "s"), "spike.times.samples": ("spike.times", "samples"), "go_cue": ("go_cue", None), "ms": ("ms", None)}
    assert {name: time_units.split_name(name) for name in expected} == expected
