"""Files of somebody else: what they claim to hold is checked before it is read, and other files that they name are not read."""

import io
import shutil
import struct
import zipfile
import zlib

import h5py
import numcodecs
import numpy as np
import pytest
import zarr

from rlsnet.data import importing
from rlsnet.data.import_options import Options
from rlsnet.errors import UserError
from rlsnet.io import memory

FREE = 10**9
SHAPE = (1, 500, 10**6)


def header(shape=SHAPE):
    """Start of a .npy file, whose numbers do not follow."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return out.getvalue()


def npz(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rate.npy", header())


def zarr_chunk(path):
    """An array of few numbers, in a chunk that is huge when it is decompressed."""
    zarr.create_group(str(path)).create_array("rate", shape=(20, 4), chunks=(10**6, 10**4), dtype="f8")


def mat(path):
    """Version 5: a compressed matrix, of which only the type and the size are there."""
    element = zlib.compress(struct.pack("<II", 14, 3 * 10**9))
    path.write_bytes(bytes(124) + struct.pack("<H", 0x100) + b"IM" + struct.pack("<II", 15, len(element)) + element)


def mat_73(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("rate", SHAPE, "f8", chunks=(1, 100, 100)).attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<H", 0x200) + b"IM")


def table(path):
    path.write_bytes(b"a,b\n")
    with path.open("r+b") as file:
        file.truncate(FREE)  # the file system stores no blocks for this


BOMBS = {
    "bomb.npz": npz,
    "bomb.npy": lambda path: path.write_bytes(header()),
    "shape.zarr": lambda path: zarr.create_group(str(path)).create_array("rate", shape=SHAPE, chunks=(1, 100, 100), dtype="f8"),
    "chunk.zarr": zarr_chunk,
    "bomb.h5": lambda path: h5py.File(path, "w").create_dataset("rate", SHAPE, "f8", chunks=(1, 100, 100), compression=9),
    "compound.h5": lambda path: h5py.File(path, "w").create_dataset("table", (10**9,), [("time", "f8"), ("unit", "i4")], chunks=(1000,)),
    "bomb.jld2": lambda path: h5py.File(path, "w").create_dataset("PSTH", SHAPE, "f8", chunks=(1, 100, 100)),
    "bomb.mat": mat,
    "version_73.mat": mat_73,
    "bomb.csv": table,
}


def zarr_bomb(path, size=4 * 10**6, zarr_format=3, **codec):
    """A chunk whose stream decodes to far more than a chunk of the array: that of another store takes its place."""
    for where, shape in ((path, (1, 4, 3)), (path.with_name("large"), (1, 4, size // 16))):
        group = zarr.create_group(str(where), zarr_format=zarr_format, overwrite=True)
        group.create_array("rate", shape=shape, chunks=shape, dtype="f4", fill_value=1, **codec)[...] = 0
    chunk = "rate/c/0/0/0" if zarr_format == 3 else "rate/0.0.0"
    shutil.copy(path.with_name("large") / chunk, path / chunk)
    shutil.rmtree(path.with_name("large"))


def streamed_bomb(path):
    """A chunk of Zstandard without its size: blocks of one repeated byte."""
    zarr_bomb(path)
    blocks = b"".join((2**17 << 3 | 1 << 1 | last).to_bytes(3, "little") + b"\0" for last in [0] * (LARGE // 2**17) + [1])
    (path / "rate/c/0/0/0").write_bytes(b"\x28\xb5\x2f\xfd\0\x58" + blocks)


def h5_bomb(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("rate", (1, 4, 3), "f4", chunks=(1, 4, 3), compression=9)
        file["rate"].id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(LARGE), 9))


LARGE = 110 * 10**6
CHUNK_BOMBS = {
    "zstd.zarr": zarr_bomb,
    "streamed.zarr": streamed_bomb,
    "gzip.zarr": lambda path: zarr_bomb(path, LARGE, compressors=zarr.codecs.GzipCodec(level=9)),
    "blosc.zarr": lambda path: zarr_bomb(path, zarr_format=2, compressors=numcodecs.Blosc()),
    "chunk.h5": h5_bomb,
}


@pytest.mark.parametrize("name", CHUNK_BOMBS)
def test_a_chunk_of_other_size_than_its_array_says_is_not_decoded(tmp_path, name, monkeypatch):
    CHUNK_BOMBS[name](tmp_path / name)
    monkeypatch.setattr(memory, "free_memory", lambda: 10**8)
    with pytest.raises(UserError, match=rf"{name}.*rate.*: a chunk decodes to [\d.]+ MB or more.* chunks of 48 B"):
        importing.import_sources([tmp_path / name], tmp_path / "out.zarr", Options(bin=20))


@pytest.mark.parametrize("name", BOMBS)
def test_what_does_not_fit_in_memory_is_not_read(tmp_path, name, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: FREE)
    BOMBS[name](tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}.*: takes [\d.]+ GB of memory when it is read, and 1.0 GB are free"):
        importing.import_sources([tmp_path / name], tmp_path / "out.zarr", Options(bin=20))
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def elsewhere(folder):
    """Rates in another file than the one that is imported."""
    values = np.random.default_rng(0).uniform(1, 9, (30, 8))
    values.tofile(folder / "raw.bin")
    with h5py.File(folder / "other.h5", "w") as file:
        file["rate"] = values


def storage(file):
    file.create_dataset("rate", (30, 8), "f8", external=[("raw.bin", 0, h5py.h5f.UNLIMITED)])


def virtual(file):
    layout = h5py.VirtualLayout((30, 8), "f8")
    layout[...] = h5py.VirtualSource("other.h5", "rate", (30, 8))
    file.create_virtual_dataset("rate", layout)


def link(file):
    file["rate"] = h5py.ExternalLink("other.h5", "/rate")


def nested_link(file):
    file.create_group("session/more")["rate"] = h5py.ExternalLink("other.h5", "/rate")


def through_a_soft_link(file):
    file.create_group("hidden")["all"] = h5py.ExternalLink("other.h5", "/")
    file["rate"] = h5py.SoftLink("/hidden/all/rate")


@pytest.mark.parametrize("suffix", [".h5", ".mat", ".jld2"])
@pytest.mark.parametrize("make", [storage, virtual, link, nested_link, through_a_soft_link])
def test_other_files_are_read_only_when_asked(tmp_path, make, suffix, monkeypatch):
    monkeypatch.chdir(tmp_path)
    elsewhere(tmp_path)
    path = tmp_path / f"mine{suffix}"
    with h5py.File(path, "w", userblock_size=512 if suffix == ".mat" else 0) as file:
        make(file)
        if suffix == ".mat" and make in (storage, virtual):
            file["rate"].attrs["MATLAB_class"] = np.bytes_("double")
    if suffix == ".mat":
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<H", 0x200) + b"IM")
    with pytest.raises(UserError, match=r"in another file, (raw.bin|other.h5), which is not read without asking; expected external=true"):
        importing.import_sources([path], tmp_path / "out.zarr", Options(bin=20), log=lambda line: None)
    assert not (tmp_path / "out.zarr").exists()
    if suffix == ".h5":
        importing.import_sources([path], tmp_path / "out.zarr", Options(bin=20, external=True), log=lambda line: None)
        assert zarr.open_group(str(tmp_path / "out.zarr"), mode="r")["rate"].shape == (1, 30, 8)


def test_links_of_nwb_files(tmp_path):
    h5py.File(tmp_path / "other.h5", "w").create_group("units")["spike_times"] = np.arange(9.0)
    with h5py.File(tmp_path / "mine.nwb", "w") as file:
        file["units"] = h5py.ExternalLink("other.h5", "/units")
        file.attrs["nwb_version"] = "2.5.0"
    with pytest.raises(UserError, match="units is in another file, other.h5"):
        importing.import_sources([tmp_path / "mine.nwb"], tmp_path / "out.zarr", Options(format="nwb"))
