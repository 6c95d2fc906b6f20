"""Readers of formats: files written by the libraries of the formats, with all spikes checked; mistakes give messages of one line."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from scipy import io as scipy_io
from spikes_of_three_units import (
    LABELS,
    ORDER,
    PSTH,
    RATE,
    SPIKES,
    TIMES,
    TRIALS,
    VECTORS,
    Mat73,
    check,
    check_rates,
    of_cells,
    refused,
    spikes_of,
    write_table,
)

from rlsnet.data import time_units
from rlsnet.data.formats import arrays, hdf5, ibl_alf, julia_jld2, matlab, phy, registry, spike_grouping, table_files
from rlsnet.data.import_options import FORMATS, Options
from rlsnet.data.importing import import_sources
from rlsnet.data.session import PrecomputedRates
from rlsnet.errors import UserError
from rlsnet.io import zarr_store


def test_each_format_has_a_reader():
    assert tuple(registry.READERS) == FORMATS


# Tables


@pytest.mark.parametrize("suffix", table_files.TABLE_SUFFIXES)
def test_tables(tmp_path, suffix):
    columns = {"a": [1, 2, 3], "b": [0.1, 1e-9, -3.0], "side": ["left", "right, too", ""], "hit": [True, False, True]}
    table = table_files.read_table(write_table(tmp_path / f"t{suffix}", columns))
    assert {name: column.tolist() for name, column in table.items()} == columns
    assert [column.dtype.kind for column in table.values()] == ["i", "f", "O", "b"]


def test_tables_of_texts(tmp_path):
    file = tmp_path / "t.csv"
    file.write_bytes(b"\xef\xbb\xbfx;name\r\n1.5;a\r\nNA;b\r\n")
    table = table_files.read_table(file)
    assert table["x"][0] == 1.5 and np.isnan(table["x"][1]) and table["name"].tolist() == ["a", "b"]
    file.write_text("x,y\n1,2\n3\n")
    refused(lambda path, _: table_files.read_table(path), file, r"line 3 has 1 cells; expected 2")
    file.write_text("x,x\n1,2\n")
    refused(lambda path, _: table_files.read_table(path), file, "two columns 'x'")
    file.write_text("")
    refused(lambda path, _: table_files.read_table(path), file, "is empty")
    file.write_text("0.5,1,2\n0,1,2\n")
    assert {name: column.tolist() for name, column in table_files.read_table(file).items()} == {"0": [0.5, 0], "1": [1, 1], "2": [2, 2]}
    damaged = tmp_path / "t.parquet"
    damaged.write_bytes(write_table(tmp_path / "whole.parquet", {"a": [1]}).read_bytes()[:40])
    refused(lambda path, _: table_files.read_table(path), damaged, "cannot be read; the file is damaged")


def test_spikes_by_unit():
    times, index, ids = spike_grouping.group_by_unit("x", np.array([1.0, 2, 3, 4]), np.array(["b", "a", "b", "a"]))
    assert (times.tolist(), index.tolist(), ids.tolist()) == ([2, 4, 1, 3], [0, 2, 4], ["a", "b"])
    times, index, ids = spike_grouping.group_by_unit("x", np.array([1.0, 2, 3]), np.array([2**40, -1, 2**40]))
    assert (times.tolist(), index.tolist(), ids.tolist()) == ([2, 1, 3], [0, 1, 3], [-1, 2**40])
    with pytest.raises(UserError, match="fractions or NaN"):
        spike_grouping.group_by_unit("x", np.ones(2), np.array([1, np.nan]))
    with pytest.raises(UserError, match="2,000 spikes have 2,000 different unit labels"):
        spike_grouping.group_by_unit("x", np.ones(2000), np.arange(2000))
    times, notes = time_units.spike_seconds("x", np.array([-30, 60, 90]), Options(), 30)
    assert times.tolist() == [-1, 2, 3] and notes == ("spike times are samples at 30 Hz", "1 spikes at negative times")


# Phy


@pytest.fixture
def phy_folder(tmp_path) -> Path:
    folder = tmp_path / "mouse1"
    folder.mkdir()
    np.save(folder / "spike_times.npy", np.round(TIMES[ORDER] * RATE).astype(np.uint64)[:, None])
    np.save(folder / "spike_clusters.npy", LABELS[ORDER].astype(np.int32))
    (folder / "params.py").write_text(
        f"dat_path = 'C:\\Users\\raw.bin'\nn_channels_dat = 385\nsample_rate = {RATE}.\nraise SystemExit('run')\n"
    )
    (folder / "cluster_group.tsv").write_text("cluster_id\tgroup\n3\tgood\n4\tnoise\n11\tmua\n")
    (folder / "cluster_KSLabel.tsv").write_text("cluster_id\tKSLabel\n3\tmua\n5\tgood\n11\tgood\n")
    (folder / "cluster_Amplitude.tsv").write_text("cluster_id\tAmplitude\n3\t10.5\n5\t20\n")
    write_table(folder / "trials.csv", TRIALS)
    return folder


def test_phy(phy_folder):
    assert phy.matches(phy_folder) and not phy.matches(phy_folder.parent)
    session = check(phy.read(phy_folder, Options()))
    assert session.name == "mouse1"
    assert session.units["label"].tolist() == ["good", "unsorted", "mua"]
    assert session.units["KSLabel"].tolist() == ["mua", "good", "good"]
    assert session.units["Amplitude"][:2].tolist() == [10.5, 20] and np.isnan(session.units["Amplitude"][2])
    assert "1 clusters of the tables have no spikes, as after a merge; they are left out" in session.notes
    assert phy.read(phy_folder, Options(labels="KSLabel")).units["label"].tolist() == ["mua", "good", "good"]
    refused(phy.read, phy_folder, "no such column; they have .*KSLabel.*group", labels="quality")


def test_phy_labels_channels_and_depths(phy_folder):
    """SpikeInterface exports all clusters as unsorted; channels and depths come from the templates, or from cluster_info."""
    (phy_folder / "cluster_group.tsv").write_text("cluster_id\tgroup\n3\tunsorted\n5\tunsorted\n11\tunsorted\n")
    templates = np.zeros((3, 5, 4), np.float32)
    templates[0, 2, 1], templates[1, 2, 3], templates[2, 1, 0] = -9, 8, -7
    np.save(phy_folder / "templates.npy", templates)
    np.save(phy_folder / "spike_templates.npy", np.select([LABELS == 3, LABELS == 5], [0, 1], 2)[ORDER])
    np.save(phy_folder / "channel_positions.npy", np.array([[0, 0], [0, 20.0], [0, 40], [0, 60]]))
    np.save(phy_folder / "channel_map.npy", np.array([[10], [11], [12], [13]]))
    session = check(phy.read(phy_folder, Options()))
    assert session.units["label"].tolist() == ["mua", "good", "good"] and "label is KSLabel of the cluster tables" in session.notes
    assert session.units["channel"].tolist() == [11, 13, 10] and session.units["depth"].tolist() == [20, 60, 0]
    (phy_folder / "cluster_info.tsv").write_text("cluster_id\tch\tdepth\tgroup\n3\t7\t100\t\n5\t8\t200\t\n11\t9\t300.5\tnoise\n")
    assert phy.read(phy_folder, Options()).units["depth"].tolist() == [100, 200, 300.5]
    (phy_folder / "spike_clusters.npy").unlink()
    (phy_folder / "cluster_KSLabel.tsv").unlink()
    assert spikes_of(phy.read(phy_folder, Options()))[2] == SPIKES[11]


def test_phy_mistakes(phy_folder, tmp_path):
    times = phy_folder / "spike_times.npy"
    whole = times.read_bytes()
    times.write_bytes(whole[:-3])
    refused(phy.read, phy_folder, r"spike_times.npy: cannot be read; the file is damaged")
    times.write_bytes(whole[:40])
    refused(phy.read, phy_folder, r"spike_times.npy: cannot be read; the file is damaged")
    np.save(times, np.arange(3))
    refused(phy.read, phy_folder, "3 spike times, but 8 unit labels")
    np.save(times, np.arange(8) / 3)
    refused(phy.read, phy_folder, "contains fractions; expected samples, which are whole numbers")
    np.save(times, np.array([{}], object), allow_pickle=True)
    refused(phy.read, phy_folder, "spike_times.npy: contains Python objects, which are never unpickled")
    times.write_bytes(whole)
    (phy_folder / "params.py").write_text("sample_rate = float('3')\n")
    refused(phy.read, phy_folder, "has no line sample_rate = 30000")
    check(phy.read(phy_folder, Options(variables={"sample_rate": "30000"})))
    (phy_folder / "trials.csv").unlink()
    refused(
        phy.read, phy_folder, "variables.sample_rat=1: no such variable.* Did you mean variables.sample_rate", variables={"sample_rat": "1"}
    )
    (phy_folder / "params.py").write_text("sample_rate = 3e4\n")
    refused(phy.read, phy_folder, "has no trials; expected trials_table=FILE.csv")
    refused(phy.read, phy_folder, "trials_table=none.csv: no such file in the current folder or in", trials_table="none.csv")
    own = write_table(tmp_path / "own.tsv", {"start": TRIALS["start_time"], "end": TRIALS["stop_time"], "side": TRIALS["side"]})
    check(phy.read(phy_folder, Options(trials_table=str(own))))
    write_table(phy_folder / "beside.parquet", TRIALS)
    check(phy.read(phy_folder, Options(trials_table="beside.parquet")))
    times.unlink()
    refused(phy.read, phy_folder, "has no spike_times.npy")


# ALF


@pytest.fixture
def alf_session(tmp_path) -> Path:
    """Two probes, three units each of which one is silent; an older revision with other spikes."""
    session = tmp_path / "lab" / "Subjects" / "KS014" / "2019-12-03" / "001"
    folder = session / "alf"
    first, second, old = folder / "probe00" / "pykilosort" / "#2024-05-06#", folder / "probe01", folder / "probe00" / "pykilosort"
    for each in (first, second):
        each.mkdir(parents=True)
    trials = {
        "intervals_0": TRIALS["start_time"],
        "intervals_1": TRIALS["stop_time"],
        "stimOn_times": [0.5, np.nan, 9.0],
        "side": TRIALS["side"],
    }
    write_table(folder / "_ibl_trials.table.pqt", trials)
    np.save(folder / "_ibl_trials.goCueTrigger_times.npy", np.array([0.1, 4.1, 8.6]))
    np.save(old / "spikes.times.npy", np.array([99.0]))
    np.save(old / "spikes.clusters.npy", np.array([0]))
    keep = LABELS[ORDER] != 11
    np.save(first / "spikes.times.npy", TIMES[ORDER][keep])
    np.save(first / "spikes.clusters.npy", np.where(LABELS[ORDER][keep] == 3, 0, 2).astype(np.uint16))
    np.save(first / "clusters.channels.npy", np.array([4, 5, 6]))
    np.save(first / "channels.brainLocationAcronyms_ccf_2017.npy", np.array(["a", "b", "c", "d", "CA1", "root", "VISp"]))
    write_table(first / "clusters.metrics.pqt", {"cluster_id": [0, 2], "label": [1.0, 1 / 3], "presence_ratio": [0.9, 0.5]})
    np.save(second / "spikes.times.npy", np.array(SPIKES[11]))
    np.save(second / "spikes.clusters.npy", np.zeros(4, int))
    return session


def test_alf(alf_session):
    assert ibl_alf.matches(alf_session) and ibl_alf.matches(alf_session / "alf") and not ibl_alf.matches(alf_session.parent)
    session = check(ibl_alf.read(alf_session, Options()), ("probe00:0", "probe00:2", "probe01:0"), ("probe00:1",))
    assert session.name == "KS014/2019-12-03/001"
    units = {name: column.tolist() for name, column in session.units.items()}
    assert units["id"] == ["probe00:0", "probe00:1", "probe00:2", "probe01:0"]
    assert units["probe"] == ["probe00"] * 3 + ["probe01"] and units["cluster"] == [0, 1, 2, 0]
    assert units["region"] == ["CA1", "root", "VISp", ""]
    np.testing.assert_array_equal(session.units["label"], [1, np.nan, 1 / 3, np.nan])
    np.testing.assert_array_equal(session.trials["stimOn_times"], [0.5, np.nan, 9.0])
    assert session.trials["goCueTrigger_times"].tolist() == [0.1, 4.1, 8.6]


def test_alf_older(alf_session):
    """Trials in files of one attribute each, regions as numbers; Python objects are never unpickled."""
    folder = alf_session / "alf"
    (folder / "_ibl_trials.table.pqt").unlink()
    np.save(folder / "_ibl_trials.intervals.npy", np.stack([TRIALS["start_time"], TRIALS["stop_time"]], axis=1))
    np.save(folder / "_ibl_trials.side.0d5cd4e0-7b4c-4e1c-9bd1-ca8e2c2f0a2e.npy", np.array(TRIALS["side"]))
    newest = folder / "probe00" / "pykilosort" / "#2024-05-06#"
    np.save(newest / "channels.brainLocationIds_ccf_2017.npy", np.array([1, 2, 3, 4, -382, 997, 385]))
    np.save(newest / "channels.brainLocationAcronyms_ccf_2017.npy", np.array(["a", None], object), allow_pickle=True)
    session = check(ibl_alf.read(folder, Options()), ("probe00:0", "probe00:2", "probe01:0"), ("probe00:1",))
    assert session.units["region"].tolist() == ["382", "997", "385", ""]
    assert any("is pickled and not read" in note for note in session.notes) and any(
        "numbers of the Allen atlas" in note for note in session.notes
    )


def test_alf_mistakes(alf_session):
    folder = alf_session / "alf"
    np.save(folder / "_ibl_trials.choice.npy", np.ones(2))
    refused(ibl_alf.read, alf_session, "choice has 2 entries; expected 3")
    (folder / "_ibl_trials.choice.npy").unlink()
    np.save(folder / "probe01" / "spikes.clusters.npy", np.zeros(3, int))
    refused(ibl_alf.read, alf_session, "probe01: has 4 spike times, but 3 unit labels")
    (folder / "probe01" / "spikes.clusters.npy").unlink()
    refused(ibl_alf.read, alf_session, "probe01: has no spikes.clusters.npy")
    (folder / "_ibl_trials.table.pqt").write_bytes(b"PAR1")
    refused(ibl_alf.read, alf_session, "table.pqt: cannot be read")
    (folder / "_ibl_trials.table.pqt").unlink()
    (folder / "_ibl_trials.goCueTrigger_times.npy").unlink()
    refused(ibl_alf.read, alf_session, "has no trials; expected _ibl_trials.table.pqt")


# Arrays and tables


def columns_of_trials(prefix: str) -> dict:
    return {f"{prefix}{name}": np.array(column) for name, column in TRIALS.items()}


def test_npz(tmp_path):
    file = tmp_path / "s.npz"
    np.savez(file, spike_times=TIMES[ORDER], spike_clusters=LABELS[ORDER], **columns_of_trials("trials/"), **{"events/lick": [3.0, 1.0]})
    assert arrays.matches(file)
    session = check(arrays.read(file, Options()))
    assert session.events["lick"].tolist() == [1, 3]
    np.savez(file, rate=PSTH, spike_times=TIMES, spike_clusters=LABELS, **columns_of_trials("trials/"))
    assert check(arrays.read(file, Options())).notes == ("array rate is not used; variables.rate=rate imports it instead",)
    check_rates(arrays.read(file, Options(variables={"rate": "rate"})))
    table = str(write_table(tmp_path / "trials_of_s.csv", TRIALS))
    np.savez(file, st=np.round(TIMES * RATE).astype(int), cl=LABELS, sample_rate=RATE)
    check(arrays.read(file, Options(trials_table=table, variables={"spike_times": "st", "spike_clusters": "cl"})))
    np.savez(file, spike_times=TIMES, spike_index=[3, 4, 4, 8], unit_id=["a", "b", "none", "c"], **columns_of_trials("trials/"))
    check(arrays.read(file, Options()), ("a", "b", "c"), ("none",))
    np.savez(file, spike_times=TIMES, spike_index=[0, 3, 4, 8], **columns_of_trials("trials/"))
    check(arrays.read(file, Options()), (0, 1, 2))
    rows = {"units/id": [3, 4, 5, 11], "units/region": ["ALM", "M1", "ALM", "Str"]}
    np.savez(file, spike_times=TIMES, spike_clusters=LABELS, **rows, **columns_of_trials("trials/"))
    assert check(arrays.read(file, Options()), silent=(4,)).units["region"].tolist() == rows["units/region"]


def test_npz_mistakes(tmp_path):
    file = tmp_path / "s.npz"
    np.savez(file, spike_times=TIMES[:-1], spike_clusters=LABELS)
    refused(arrays.read, file, "7 spike times, but 8 unit labels")
    np.savez(file, spike_times=np.arange(30), spike_clusters=np.zeros(30, int))
    refused(arrays.read, file, "whole numbers, which means samples; expected their rate in Hz, such as variables.sample_rate=30000")
    np.savez(file, spike_times=TIMES, spike_clusters=LABELS, sample_rate=-1)
    refused(arrays.read, file, "expected one number above 0")
    np.savez(file, spike_times=TIMES, spike_clusters=LABELS)
    refused(arrays.read, file, "has no trials; expected trials_table")
    refused(
        arrays.read,
        file,
        r"variables.spike_clusters=units: .* it has spike_times \[8\], spike_clusters \[8\]",
        variables={"spike_clusters": "units"},
    )
    np.savez(file, spike_times=TIMES)
    refused(arrays.read, file, "has spike times without units; expected spike_clusters")
    np.savez(file, spike_times=TIMES, spike_index=[3, 9])
    refused(arrays.read, file, "spike_index ends at 9; expected ascending numbers up to 8, the number of spikes")
    np.savez(file, spike_times=TIMES, spike_clusters=LABELS, **{"units/region": ["a"] * 5})
    refused(arrays.read, file, "units: has 5 rows, but 3 units have spikes; expected a column id")
    np.savez(file, spike_times=TIMES, spike_clusters=LABELS, **{"trials/start_time": [1.0], "trials/stop_time": [1.0, 2.0]})
    refused(arrays.read, file, "stop_time has 2 entries; expected 1")
    labels = {"units/id": [101, 102, 103], "units/region": ["a"] * 3}
    np.savez(file, spike_times=TIMES, spike_clusters=LABELS, **labels)
    refused(arrays.read, file, r"its ids \(101, ...\) do not occur among the unit labels of spikes \(3, 5, 11, ...\)")
    np.savez(file, **{"spikes/t": TIMES, "spikes/u": LABELS})
    refused(arrays.read, file, r"no spikes or rates with a usual name; it has spikes/t \[8\], spikes/u \[8\]")
    refused(arrays.read, write_table(tmp_path / "t.csv", TRIALS), "is a table of trials; expected a source of spikes with trials_table=")
    np.savez(file, x=np.ones(3))
    refused(arrays.read, file, r"no spikes or rates with a usual name; it has x \[3\]")
    np.savez(file, rate=np.array([[None]], object), allow_pickle=True)
    refused(arrays.read, file, "contains Python objects, which are never unpickled")
    file.write_bytes(file.read_bytes()[:50])
    refused(arrays.read, file, "cannot be read")
    refused(arrays.read, tmp_path / "no.npz", "no such file")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_tables_of_spikes(tmp_path, suffix):
    write_table(tmp_path / "trials.csv", TRIALS)
    file = write_table(tmp_path / f"spikes{suffix}", {"time": TIMES[ORDER], "unit": LABELS[ORDER]})
    check(arrays.read(file, Options()))
    names = np.array([f"u{each:02}" for each in LABELS])
    write_table(file, {"sample": np.round(TIMES * RATE).astype(int), "neuron": names})
    check(arrays.read(file, Options(variables={"spike_times": "sample", "sample_rate": str(RATE)})), ("u03", "u05", "u11"))
    refused(arrays.read, file, "variables.spike_times=when: .* no such column; it has sample, neuron", variables={"spike_times": "when"})
    refused(arrays.read, file, "sample and neuron look like times and units of spikes; expected variables.spike_times=sample")


def test_matrices(tmp_path):
    file = tmp_path / "psth.npy"
    np.save(file, PSTH)
    check_rates(arrays.read(file, Options()))
    np.save(file, PSTH[0].T)
    assert check_rates(arrays.read(file, Options(axes=("unit", "time"))), PSTH[:1]).notes == ("axes of the matrix: unit 4, time 6",)
    npz = tmp_path / "psth.npz"
    variables = {
        "PSTH": PSTH.transpose(2, 1, 0),
        "unit": ["a", "b", "c", "d"],
        "condition": ["left", "right"],
        "time": np.arange(6) * 0.02 - 0.5,
    }
    np.savez(npz, **variables)
    check_rates(arrays.read(npz, Options()), bin_ms=20, conditions=("left", "right"), ids=["a", "b", "c", "d"])
    np.savez(npz, x=PSTH, y=PSTH, time_ms=np.arange(6) * 10, bins=3)
    check_rates(arrays.read(npz, Options(variables={"current": "y"})), kind="current", bin_ms=10)
    store = zarr.create_group(str(tmp_path / "r.zarr"), attributes={"bin_ms": 25})
    store.create_array("rate", data=PSTH.transpose(0, 2, 1).astype("f4"), dimension_names=("condition", "unit", "time"), chunks=(1, 2, 6))
    check_rates(arrays.read(tmp_path / "r.zarr", Options()), bin_ms=25)
    zarr.create_array(str(tmp_path / "one.zarr"), data=PSTH, dimension_names=("x", "y", "z"))
    check_rates(arrays.read(tmp_path / "one.zarr", Options()))
    shorter = zarr.create_group(str(tmp_path / "s.zarr"))
    for name, values in {"spike_times": TIMES, "spike_clusters": LABELS, "trials/start_time": np.array([0.0, 4.0, 8.5])}.items():
        shorter[name] = values
    assert spikes_of(arrays.read(tmp_path / "s.zarr", Options())) == SPIKES


def test_tables_of_rates(tmp_path):
    columns = {name: PSTH[0, :, unit] for unit, name in enumerate("wxyz")}
    file = write_table(tmp_path / "r.csv", {"time": np.arange(6) * 0.04, **columns})
    check_rates(arrays.read(file, Options()), PSTH[:1], bin_ms=40, ids=list("wxyz"))
    both = {name: PSTH[:, :, unit].ravel() for unit, name in enumerate("wxyz")}
    file = write_table(tmp_path / "r.parquet", {"condition": ["l"] * 6 + ["r"] * 6, "time_ms": [*range(0, 60, 10)] * 2, **both})
    check_rates(arrays.read(file, Options()), bin_ms=10, conditions=("l", "r"), ids=list("wxyz"))
    write_table(file, {"condition": ["l"] * 5 + ["r"] * 7, **both})
    refused(arrays.read, file, r"different numbers of rows \(l 5, r 7\)")
    np.savetxt(tmp_path / "plain.csv", PSTH[0].T, delimiter=",")
    check_rates(arrays.read(tmp_path / "plain.csv", Options(axes=("unit", "time"))), PSTH[:1])
    write_table(tmp_path / "i.csv", {"": np.arange(6), **{str(unit): PSTH[0, :, unit] for unit in range(4)}})
    check_rates(arrays.read(tmp_path / "i.csv", Options()), PSTH[:1], ids=list("0123"))
    refused(arrays.read, tmp_path / "i.csv", r"expected \[time, unit\] or \[unit, time\] for the rows", axes=("time", "trial"))


def test_matrices_mistakes(tmp_path):
    file = tmp_path / "m.npz"
    bad = PSTH.copy()
    bad[1, 2, 3] = -0.5
    np.savez(file, rate=bad)
    refused(arrays.read, file, "rate is -0.5 in condition 1, bin 2, unit 3 .*expected at least 0 Hz")
    assert isinstance(arrays.read(file, Options(variables={"current": "rate"})), PrecomputedRates)
    bad[1, 2, 3] = np.nan
    np.savez(file, rate=bad)
    assert np.isnan(arrays.read(file, Options()).values[1, 2, 3])
    bad[0, 0, 0] = np.inf
    np.savez(file, rate=bad)
    refused(arrays.read, file, "rate is inf in condition 0")
    np.savez(file, rate=np.full((3, 3), np.nan))
    refused(arrays.read, file, "all NaN")
    np.savez(file, rate=np.ones((3, 0)))
    refused(arrays.read, file, "is empty")
    np.savez(file, rate=np.ones(3))
    refused(arrays.read, file, "no spikes or rates with a usual name")
    refused(arrays.read, file, r"rate has shape \[3\]; expected numbers \[time, unit\]", variables={"rate": "rate"})
    np.savez(file, rate=PSTH)
    refused(arrays.read, file, "expected each axis once: time, unit and condition or trial", axes=("time", "unit"))
    np.savez(file, rate=PSTH, time=[0, 1, 3, 4, 5, 6])
    refused(arrays.read, file, "expected centres of bins in s, ascending in equal steps")
    np.savez(file, rate=PSTH, when=np.arange(5))
    refused(arrays.read, file, "but the file has 5 of time", variables={"time": "when"})
    np.savez(file, rate=np.ones((4, 3), int))
    refused(arrays.read, file, "rate: all values are whole numbers; expected counts=true for spike counts, which are divided by")
    check_rates(arrays.read(file, Options(counts=False)), np.ones((1, 4, 3)))
    check_rates(arrays.read(file, Options(counts=True, bin=20)), np.full((1, 4, 3), 50.0), bin_ms=20)
    refused(arrays.read, file, "contains spike counts, but no length of their bins; expected it in ms, such as bin=20", counts=True)
    np.savez(file, counts=PSTH)
    refused(arrays.read, file, "counts: contains fractions; expected spike counts")


# MATLAB


def struct_array(columns: dict) -> np.ndarray:
    """Struct array, 1 x n."""
    rows = len(next(iter(columns.values())))
    out = np.empty((1, rows), [(name, object) for name in columns])
    for name, values in columns.items():
        for place, value in enumerate(values):
            out[name][0, place] = value
    return out


def test_mat_5(tmp_path):
    file = tmp_path / "s.mat"
    trials = {"start_time": np.array(TRIALS["start_time"]), "stop_time": TRIALS["stop_time"], "side": of_cells(TRIALS["side"])}
    scipy_io.savemat(file, {"spike_times": of_cells([*VECTORS, np.zeros((0, 0))]), "trials": trials}, do_compression=True)
    check(matlab.read(file, Options()), (0, 1, 2), (3,))
    units = {"spike_times": VECTORS, "id": [3, 5, 11], "region": ["ALM", "M1", "Str"]}
    scipy_io.savemat(file, {"data": {"units": struct_array(units), "tr": struct_array(TRIALS)}})
    found = check(
        matlab.read(file, Options(variables={"spike_times": "data.units.spike_times", "units": "data/units", "trials": "data.tr"})),
        (3, 5, 11),
    )
    assert found.units["region"].tolist() == ["ALM", "M1", "Str"]
    scipy_io.savemat(file, {"st": np.round(TIMES * RATE), "cl": LABELS[:, None].astype(float), "trials": trials, "fs": RATE})
    check(matlab.read(file, Options(variables={"spike_times": "st", "spike_clusters": "cl"})))
    scipy_io.savemat(file, {"units": struct_array({"spike_times": [TIMES], "id": [7]}), "trials": trials})
    assert spikes_of(matlab.read(file, Options())) == {7: np.sort(TIMES).tolist()}


def test_mat_matrices(tmp_path):
    file = tmp_path / "r.mat"
    scipy_io.savemat(
        file, {"psth": PSTH.transpose(1, 2, 0), "condition": np.array(["left ", "right"]), "t": np.arange(6) / 50, "notes": "x"}
    )
    check_rates(matlab.read(file, Options()), bin_ms=20, conditions=("left", "right"))
    scipy_io.savemat(file, {"anything": PSTH[0], "n": 3})
    check_rates(matlab.read(file, Options()), PSTH[:1])
    scipy_io.savemat(file, {"rate": PSTH[:1, :, :1].transpose(1, 2, 0)})
    check_rates(matlab.read(file, Options()), PSTH[:1, :, :1])
    refused(matlab.read, file, r"no such array; it has rate \[6, 1", variables={"rate": "psth"})
    file.write_bytes(file.read_bytes()[:150])
    refused(matlab.read, file, "cannot be read")
    file.write_bytes(b"not a mat file " * 40)
    refused(matlab.read, file, "cannot be read")


def test_mat_73(tmp_path):
    file = tmp_path / "s.mat"
    trials = {"start_time": np.array(TRIALS["start_time"])[:, None], "stop_time": TRIALS["stop_time"], "side": TRIALS["side"]}
    hit = np.array([True, False, True])
    out = Mat73(file)
    out.put("spike_times", [*VECTORS, np.zeros((0, 0))])
    out.put("trials", trials | {"hit": hit})
    session = check(matlab.read(out.close(file), Options()), (0, 1, 2), (3,))
    assert session.trials["hit"].dtype == bool and session.trials["hit"].tolist() == hit.tolist()
    out = Mat73(file)
    out.struct_array("units", {"spike_times": VECTORS, "id": [3.0, 5.0, 11.0], "region": ["ALM", "M1", "Str"]})
    out.struct_array("trials", TRIALS)
    assert check(matlab.read(out.close(file), Options())).units["region"].tolist() == ["ALM", "M1", "Str"]
    out = Mat73(file)
    out.put("psth", PSTH.transpose(1, 2, 0))
    out.put("condition", ["left", "right"])
    out.put("t", np.arange(6) / 50)
    check_rates(matlab.read(out.close(file), Options()), bin_ms=20, conditions=("left", "right"))
    out = Mat73(file)
    for name in ("table", "string"):
        out._class(out.file.create_dataset(name, data=np.zeros((1, 6), np.uint32)), name).attrs["MATLAB_object_decode"] = np.int32(3)
    refused(
        matlab.read, out.close(file), r"no spikes or rates with a usual name; it has string \(cannot be read\), table \(cannot be read\)"
    )
    file.write_bytes(file.read_bytes()[:3000])
    refused(matlab.read, file, "cannot be read")


# HDF5 and JLD2


def test_hdf5(tmp_path):
    file = tmp_path / "s.h5"
    with h5py.File(file, "w") as out:
        out["units/spike_times"], out["units/spike_times_index"] = TIMES, [3, 4, 8]
        out["units/id"], out["units/region"] = [3, 5, 11], ["ALM", "M1", "Str"]
        for name, values in TRIALS.items():
            out[f"intervals/trials/{name}"] = values
        out["events/lick"] = np.array([5.0, 4.0])
        out["nowhere"] = h5py.SoftLink("/gone")
    session = check(hdf5.read(file, Options()))
    assert session.units.keys() == {"id", "region"} and session.units["region"].tolist() == ["ALM", "M1", "Str"]
    assert session.events["lick"].tolist() == [4, 5]
    with h5py.File(file, "w") as out:
        out.create_dataset("raw/st", (3,), h5py.vlen_dtype(float))[:] = VECTORS
        for unit, times in SPIKES.items():
            out[f"by/{unit}"] = times
        out["trials"] = np.array(list(zip(*TRIALS.values(), strict=True)), [("start_time", float), ("stop_time", float), ("side", "S5")])
    check(hdf5.read(file, Options(variables={"spike_times": "/raw/st"})), (0, 1, 2))
    found = hdf5.read(file, Options(variables={"spike_times": "by"}))
    assert spikes_of(found) == {str(unit): times for unit, times in SPIKES.items()}
    refused(hdf5.read, file, r"variables.spike_times=raw/sp: .* it has raw/st \[3\]|it has by", variables={"spike_times": "raw/sp"})
    with h5py.File(file, "w") as out:
        out["model/psth"] = PSTH
    check_rates(hdf5.read(file, Options(variables={"rate": "model/psth"})))
    check_rates(hdf5.read(file, Options(variables={"rate": "model/psth"}, axes=("unit", "time", "condition"))), PSTH.transpose(2, 1, 0))
    file.write_bytes(file.read_bytes()[:1000])
    refused(hdf5.read, file, "cannot be read")


def test_jld2(tmp_path):
    """Arrays in the layout of JLD2: HDF5 after 512 bytes, axes reversed, an internal group _types."""

    def write(path: Path, name: str, values) -> Path:
        with h5py.File(path, "w", userblock_size=512) as out:
            out[name] = values
            out.create_group("_types")["00000001"] = np.dtype([("re", "f8"), ("im", "f8")])
        with path.open("r+b") as stream:
            stream.write(b"HDF5-based Julia Data Format, version 0.1.1\x00 (Julia 1.10.4 64-bit linux)\x00")
        return path

    psth = write(tmp_path / "PSTH-left.jld2", "psth", PSTH[0].T)  # what h5py calls unit, time Julia calls time x unit
    assert julia_jld2.matches(psth)
    check_rates(julia_jld2.read(psth, Options()), PSTH[:1])
    check_rates(julia_jld2.read(write(psth, "psth", PSTH.transpose(0, 2, 1)), Options()))
    current = PSTH - 20
    check_rates(julia_jld2.read(write(tmp_path / "utarg.jld2", "utarg", current.transpose(0, 2, 1)), Options()), current, kind="current")
    check_rates(julia_jld2.read(write(tmp_path / "utarg2.jld2", "x", current.transpose(0, 2, 1)), Options()), current, kind="current")
    refused(julia_jld2.read, write(psth, "psth", current.transpose(0, 2, 1)), "expected at least 0 Hz")
    check_rates(julia_jld2.read(write(psth, "psth", PSTH), Options(axes=("unit", "time", "condition"))))
    with h5py.File(psth, "a") as out:
        out["other"] = PSTH
    check_rates(julia_jld2.read(psth, Options(axes=("unit", "time", "condition"))))
    refused(julia_jld2.read, psth, re.escape("variables.rate=psht: "), variables={"rate": "psht"})
    psth.write_bytes(psth.read_bytes()[:700])
    refused(julia_jld2.read, psth, "cannot be read")


def test_formats_agree(phy_folder, tmp_path):
    """The same spikes give the same recording in all formats."""
    trials = {name: np.array(column) for name, column in TRIALS.items()}
    np.savez(tmp_path / "s.npz", spike_times=TIMES, spike_clusters=LABELS, **columns_of_trials("trials/"))
    cells = {"spike_times": of_cells(VECTORS), "unit_id": [*SPIKES], "trials": trials | {"side": of_cells(TRIALS["side"])}}
    scipy_io.savemat(tmp_path / "s.mat", cells)
    with h5py.File(tmp_path / "s.h5", "w") as out:
        out["spike_times"], out["spike_index"], out["unit_id"] = TIMES, [0, 3, 4, 8], [*SPIKES]
        for name, values in TRIALS.items():
            out[f"trials/{name}"] = values
    write_table(tmp_path / "spikes.csv", {"time": TIMES, "unit": LABELS})
    write_table(tmp_path / "trials.csv", TRIALS)
    options = Options(window=(0, 1), bin=100, kernel="none", min_trials=1, conditions={"left": "side == 'left'"}, overwrite=True)
    for source in (phy_folder, *(tmp_path / name for name in ("s.npz", "s.mat", "s.h5", "spikes.csv"))):
        import_sources([source], tmp_path / "out.zarr", options, log=lambda line: None)
        found = zarr.open_group(str(tmp_path / "out.zarr"), mode="r")
        expected = np.zeros((1, 10, 3))  # two trials, at 0 and 8.5 s, in bins of 0.1 s
        expected[0, 5, 0] = expected[0, 1, 2] = expected[0, 2, 2] = 5
        np.testing.assert_allclose(found["rate"][...], expected, err_msg=str(source))
        assert found["unit/id"][...].tolist() == ["3", "5", "11"]


@pytest.mark.parametrize("length", ["x", -1e300, 0, [20, 20], np.inf])
def test_length_of_a_bin_as_an_attribute(tmp_path, length):
    """One that is no length is said, not left out."""
    group = zarr.create_group(str(tmp_path / "r.zarr"), attributes={"bin_ms": length})
    group.create_array("rate", data=PSTH)
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file["rate"], file.attrs["bin_ms"] = PSTH, length
    for read, name in ((arrays.read, "r.zarr"), (hdf5.read, "r.h5")):
        refused(read, tmp_path / name, rf"{name}: .*attribute bin_ms is .*; expected the length of a bin in ms, such as 20")


def test_damaged_recordings_are_no_source(tmp_path):
    """A store with checksums is checked, also where it is a source of another import."""
    root = zarr.create_group(str(tmp_path / "r.zarr"), attributes={"bin_ms": 20})
    zarr_store.write(root, "rate", PSTH, ["condition", "time", "unit"])
    zarr_store.seal(tmp_path / "r.zarr")
    check_rates(arrays.read(tmp_path / "r.zarr", Options()), bin_ms=20)
    (tmp_path / "r.zarr/rate/c/0/0/0").unlink()
    with pytest.raises(UserError, match="r.zarr/rate/c/0/0/0: is missing"):
        arrays.read(tmp_path / "r.zarr", Options())
