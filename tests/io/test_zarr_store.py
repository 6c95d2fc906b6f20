"""Damaged Zarr stores: whatever is missing or changed in a store that rlsnet wrote is said in one line."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import zarr

from rlsnet.errors import UserError
from rlsnet.io import zarr_store

ARRAYS = {"rate": np.arange(12.0).reshape(3, 4), "unit/region": np.array(["ALM", "", "thalamus"]), "silent": np.zeros(5, np.float32)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store with numbers, texts and zeros."""
    path = tmp_path_factory.mktemp("whole") / "s.zarr"
    root = zarr.create_group(str(path), attributes={"format": "ours", "bin_ms": 20.0, "scores": {"all": [1.5, None]}})
    for name, values in ARRAYS.items():
        zarr_store.write(root, name, values, ["unit", "time"][: values.ndim], compress=name != "silent")
    zarr_store.seal(path)
    return path


@pytest.fixture
def store(whole, tmp_path):
    """A copy of it."""
    return shutil.copytree(whole, tmp_path / "s.zarr")


def content(path):
    """All that is in the store, or the line that refuses it."""
    try:
        group = zarr_store.open_group(path, "run", "ours")
        arrays = {name: zarr_store.read(zarr_store.array(group, name, "AB"[: values.ndim], "fT", str(path))).tolist()
                  for name, values in ARRAYS.items()}  # fmt: skip
        return arrays, dict(group.attrs)
    except UserError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return str(error)


def damaged(data):
    """What may become of the bytes of a file: cut, longer, changed or zeroed in places."""
    yield from (b"", data[: len(data) // 2], data[:-1], data + bytes(64))
    random = np.random.default_rng(0)
    for _ in range(12):
        bit, changed = random.integers(8 * len(data)), bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        start = random.integers(len(data))
        yield from (bytes(changed), data[:start] + bytes(len(data[start : start + 16])) + data[start + 16 :])


def test_every_damaged_or_missing_file_is_found(store):
    """No change of any file of a store passes; each message is one line with the path."""
    before, files = content(store), [path for path in store.rglob("*") if path.is_file()]
    assert before[0] == {name: values.tolist() for name, values in ARRAYS.items()} and len(files) == 8
    for file in files:
        data = file.read_bytes()
        for other in damaged(data):
            file.write_bytes(other)
            if other != data:
                assert isinstance(content(store), str), (file, other)
        file.unlink()
        assert re.search("is missing|not a Zarr store", content(store)), file
        file.write_bytes(data)
    assert content(store) == before


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [("", "attributes", {"bin_ms": 10.0}), ("rate", "shape", [3, 3]), ("rate", "fill_value", 1.0), ("unit", "attributes", {"a": 1})],
)
def test_changed_metadata_are_found(store, name, key, value):
    """Values of zarr.json that zarr takes without a word; an edit on purpose opens without the checksums."""
    file = store / name / "zarr.json"
    values = json.loads(file.read_text())
    values[key] = {**values[key], **value} if key == "attributes" else value
    file.write_text(json.dumps(values))
    assert re.search(f"{file}: is not as rlsnet wrote it.*remove the attributes metadata_crc32 and chunk_crc32c", content(store))
    root = zarr.open_group(str(store))
    del root.attrs["metadata_crc32"]
    assert "attribute metadata_crc32" in content(store)
    del root.attrs["chunk_crc32c"]
    assert not isinstance(content(store), str)


def test_a_store_may_be_extended(store):
    """A user may add columns."""
    zarr.open_group(str(store)).create_array("unit/depth", data=np.zeros(3))
    assert content(store)[0]["rate"] == ARRAYS["rate"].tolist()
    assert zarr_store.read(zarr_store.open_group(store, "run", "ours")["unit/depth"]).tolist() == [0, 0, 0]


def test_stores_without_checksums_open(tmp_path):
    """Stores of others and of earlier versions: chunks of zeros may be absent, damaged metadata are said."""
    root = zarr.create_group(str(tmp_path / "s.zarr"))
    for name, values in ARRAYS.items():
        root.create_array(name, shape=values.shape, dtype=str if values.dtype.kind == "U" else values.dtype)[...] = values
    assert not (tmp_path / "s.zarr/silent/c").exists()
    assert content(tmp_path / "s.zarr")[0] == {name: values.tolist() for name, values in ARRAYS.items()}
    for text in ("", "{", "[]", "{}", '{"attributes": 3}', '{"zarr_format": 3, "node_type": "array"}', "[" * 100_000):
        (tmp_path / "s.zarr/rate/zarr.json").write_text(text)
        assert re.search("rate/zarr.json: (the file is damaged|does not describe)", content(tmp_path / "s.zarr"))


def test_texts_from_names_that_are_no_text_have_escapes(tmp_path):
    """As of a file that is imported; Zarr refuses them."""
    root = zarr.create_group(str(tmp_path / "s.zarr"))
    zarr_store.write(root, "session", np.array([[os.fsdecode(b"m\xfcller"), "plain"]]), ["unit", "session"])
    assert root["session"][...].tolist() == [["m\\udcfcller", "plain"]]


def test_zeros_are_not_lost_by_the_writer(tmp_path):
    """An array that is opened again before it is written loses chunks of zeros; that is found when the store is sealed."""
    root = zarr.create_group(str(tmp_path / "s.zarr"))
    zarr_store.create(root, "rate", (3,), "float32", ["unit"])
    root["rate"][...] = np.zeros(3)
    with pytest.raises(UserError, match="rate: 1 of 1 chunks are missing"):
        zarr_store.seal(tmp_path / "s.zarr")


def test_no_code_of_a_store_runs(tmp_path):
    """An array in Zarr format 2 with the codec pickle, which would run code, is refused."""
    (tmp_path / "s.zarr/unit").mkdir(parents=True)
    (tmp_path / "s.zarr/.zgroup").write_text('{"zarr_format": 2}')
    array = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "order": "C", "fill_value": None, "compressor": {"id": "pickle"}}
    (tmp_path / "s.zarr/unit/.zarray").write_text(json.dumps({**array, "filters": [{"id": "vlen-utf8"}]}))
    (tmp_path / "s.zarr/unit/0").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    code = f"from rlsnet.io import zarr_store as z; z.read(z.array(z.open_store({str(tmp_path / 's.zarr')!r}), 'unit', ['N'], 'TO', ''))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "UserError" in result.stderr and not (tmp_path / "ran").exists()


def test_chunks_without_extent_are_refused(tmp_path):
    """Zarr would divide by 0 when it reads them."""
    (tmp_path / "s.zarr/rate").mkdir(parents=True)
    (tmp_path / "s.zarr/.zgroup").write_text('{"zarr_format": 2}')
    array = {
        "zarr_format": 2,
        "shape": [4],
        "chunks": [0],
        "dtype": "<f8",
        "order": "C",
        "fill_value": 0,
        "compressor": None,
        "filters": None,
    }
    (tmp_path / "s.zarr/rate/.zarray").write_text(json.dumps(array))
    with pytest.raises(UserError, match="rate"):
        zarr_store.array(zarr_store.open_store(tmp_path / "s.zarr"), "rate", ["N"], "f", "s.zarr")
    with pytest.raises(UserError, match="stimulus.path=.*rate: has chunks of shape \\[0\\]; expected at least 1"):
        zarr_store.open_plain(str(tmp_path / "s.zarr/rate"), "stimulus.path", ["N"])


def test_many_chunks_are_written_a_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(zarr_store, "CHUNK_BYTES", 16)
    root, values = zarr.create_group(str(tmp_path / "s.zarr")), np.arange(2 * 3 * 53, dtype=np.float32).reshape(2, 3, 53)
    zarr_store.write(root, "target", values, ["condition", "time", "neuron"], along=2)
    zarr_store.seal(tmp_path / "s.zarr")
    assert root["target"].nchunks == 2 * 53
    np.testing.assert_array_equal(zarr_store.open_group(tmp_path / "s.zarr", "run", "ours")["target"][...], values)
