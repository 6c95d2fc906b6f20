"""Eight spikes of three units, three trials and small PSTHs, that tests of formats write and expect to be read again."""

from pathlib import Path

import h5py
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from rlsnet.data.import_options import Options
from rlsnet.data.session import PrecomputedRates, Session, with_sorted_spikes
from rlsnet.errors import UserError

RATE = 30000
SPIKES = {3: [0.5, 1.0, 7.25], 5: [2.0], 11: [0.1, 0.2, 8.0, 9.5]}  # s, whole samples at RATE
TRIALS = {"start_time": [0.0, 4.0, 8.5], "stop_time": [3.0, 7.0, 10.0], "side": ["left", "right", "left"]}
VECTORS = [np.array(each) for each in SPIKES.values()]
TIMES = np.concatenate(VECTORS)
LABELS = np.repeat(list(SPIKES), [len(each) for each in SPIKES.values()])
ORDER = np.argsort(TIMES, kind="stable")
PSTH = np.random.default_rng(0).uniform(0.1, 40, (2, 6, 4))  # condition, time, unit


def spikes_of(session: Session) -> dict:
    """Sorted spike trains by the id of their unit."""
    session = with_sorted_spikes(session)
    parts = [session.spike_times[a:b].tolist() for a, b in zip(session.spike_index[:-1], session.spike_index[1:], strict=True)]
    return dict(zip(session.units["id"].tolist(), parts, strict=True))


def check(session, ids=tuple(SPIKES), silent=()) -> Session:
    """A session checked for the spikes and trials above, perhaps with other ids and with units without spikes."""
    assert isinstance(session, Session)
    expected = dict(zip(ids, SPIKES.values(), strict=True)) | {unit: [] for unit in silent}
    found = spikes_of(session)
    assert found.keys() == expected.keys()
    for unit in found:
        np.testing.assert_allclose(found[unit], expected[unit], rtol=0, atol=1e-12)
    assert all(len(column) == len(found) for column in session.units.values())
    for name, column in TRIALS.items():
        assert session.trials[name].tolist() == column
    return session


def check_rates(rates, expected=PSTH, kind="rate", bin_ms=None, conditions=None, ids=None) -> PrecomputedRates:
    """Precomputed rates checked for values, kind, bins, conditions and ids."""
    assert isinstance(rates, PrecomputedRates)
    np.testing.assert_allclose(np.asarray(rates.values), expected, rtol=1e-6)
    assert (rates.kind, rates.bin_ms, rates.conditions) == (kind, bin_ms, conditions)
    assert ids is None or rates.units["id"].tolist() == ids
    return rates


def write_table(path: Path, columns: dict) -> Path:
    """Table written with pyarrow, in the format of its suffix."""
    from pyarrow import csv

    table = pyarrow.table(columns)
    if path.suffix in (".parquet", ".pqt"):
        parquet.write_table(table, path)
    else:
        csv.write_csv(table, path, csv.WriteOptions(delimiter="\t" if path.suffix == ".tsv" else ",", quoting_style="needed"))
    return path


def refused(call, path, pattern, **options) -> None:
    """Checks that a call raises a UserError of one line that matches a pattern."""
    with pytest.raises(UserError, match=pattern) as caught:
        call(path, Options(**options))
    assert "\n" not in str(caught.value) and str(caught.value).endswith((".", ".)", "?", "=...", "]."))


def of_cells(values) -> np.ndarray:
    """Cell array, 1 x n, as scipy writes it."""
    out = np.empty((1, len(values)), object)
    for place, value in enumerate(values):
        out[0, place] = value
    return out


class Mat73:
    """Writer of HDF5 in the layout of MATLAB's save -v7.3: axes reversed, classes as attributes, cells as references into #refs#."""

    def __init__(self, path: Path):
        self.file = h5py.File(path, "w", userblock_size=512)
        self.refs = 0

    def put(self, name: str, value, parent=None) -> h5py.HLObject:
        parent = self.file if parent is None else parent
        if isinstance(value, dict):
            node = parent.create_group(name)
            for field, each in value.items():
                self.put(field, each, node)
            return self._class(node, "struct")
        if isinstance(value, str):
            node = parent.create_dataset(name, data=np.array([[ord(letter)] for letter in value], np.uint16))
            node.attrs["MATLAB_int_decode"] = np.int32(2)
            return self._class(node, "char")
        if isinstance(value, list):
            node = parent.create_dataset(name, data=self.references(value), dtype=h5py.ref_dtype)
            return self._class(node, "cell")
        value = np.atleast_2d(np.asarray(value))
        if value.size == 0:
            node = parent.create_dataset(name, data=np.array(value.shape, np.uint64))
            node.attrs["MATLAB_empty"] = np.uint8(1)
            return self._class(node, "double")
        if value.dtype.kind == "b":
            node = parent.create_dataset(name, data=value.T.astype(np.uint8))
            node.attrs["MATLAB_int_decode"] = np.int32(1)
            return self._class(node, "logical")
        node = parent.create_dataset(name, data=value.T.astype(float), chunks=True, compression="gzip")
        return self._class(node, "double")

    def struct_array(self, name: str, columns: dict) -> None:
        """Struct array, whose fields are references without a class."""
        node = self._class(self.file.create_group(name), "struct")
        for field, values in columns.items():
            node.create_dataset(field, data=self.references(values), dtype=h5py.ref_dtype)

    def references(self, values) -> np.ndarray:
        """References [n, 1] to values, the layout of a 1 x n cell."""
        out = np.empty((len(values), 1), h5py.ref_dtype)
        for place, value in enumerate(values):
            self.refs += 1
            out[place, 0] = self.put(f"r{self.refs}", value, self.file.require_group("#refs#")).ref
        return out

    def _class(self, node, name: str):
        node.attrs["MATLAB_class"] = np.bytes_(name)
        return node

    def close(self, path: Path) -> Path:
        self.file.close()
        with path.open("r+b") as stream:
            stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
        return path
