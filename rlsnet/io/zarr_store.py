"""Zarr stores: arrays read, checked and written, with error messages that contain the path.

Damage is found: the chunks of each array that is written here end with a checksum (codec crc32c), and `seal` stores in the root the
checksums of the metadata of all groups and arrays, and those of all chunks. In a sealed store a missing chunk or array is an error too,
and so is a chunk in another one's place.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore, WrapperStore

from rlsnet.errors import UserError, first_line
from rlsnet.io import chunk_sizes, memory, outputs
from rlsnet.io.formatting import readable
from rlsnet.io.precision import LARGEST

CHUNK_BYTES = 32 * 2**20
CHUNKS_AT_ONCE = 4  # chunks that are written at the same time; Zarr keeps all that one call writes in memory
SEAL = "metadata_crc32"  # attribute of the root: checksum of the metadata of each group and array, by path; "" is the root itself
CHUNKS = "chunk_crc32c"  # attribute of the root: the last 4 bytes of each chunk, its checksum, by path of the array and of the chunk in it
CRC_BYTES = 4
METADATA = "zarr.json"
EDITED = f"if you have edited it on purpose, remove the attributes {SEAL} and {CHUNKS}"
REMEDY = "restore it from a copy or make it anew"


class CheckedStore(WrapperStore):  # type: ignore[misc]  # zarr's types are not read
    """Store in which a chunk is an error that decodes to more than its array says, or, in the given arrays, is missing or another one.

    Zarr would read a missing chunk as zeros. `arrays` has the checksums of the chunks of each array, by the path of a chunk in it.
    """

    def __init__(self, path: str | Path, arrays: Mapping[str, Mapping[str, str]] = MappingProxyType({})):
        super().__init__(LocalStore(path, read_only=True))
        self.arrays = arrays
        self._chunks: dict[Path, tuple[str, int | None]] = {}

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Content of a file of the store; raises UserError for a chunk that is missing, too large, or was not written there."""
        found = await super().get(key, prototype, byte_range)
        file, array = self._store.root / key, key.partition("/c/")[0] if "/c/" in key else key.removesuffix("/c")  # "c" has no axes
        if array != key and array in self.arrays:
            if found is None:
                raise UserError(f"{file}: is missing, a part of the array {array}; {REMEDY}.")
            expected = self.arrays[array].get(key.removeprefix(f"{array}/"))
            if expected is not None and byte_range is None and found.as_numpy_array()[-CRC_BYTES:].tobytes().hex() != expected:
                raise UserError(f"{file}: the file is damaged, it is not the part of {array} that rlsnet wrote; {REMEDY}, or, {EDITED}.")
        if found is not None and byte_range is None and not key.endswith((".json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")):
            chunk_sizes.check(memoryview(found.as_numpy_array()), *self._chunk(file), where=file)
        return found

    def _chunk(self, file: Path) -> tuple[str, int | None]:
        """(codec, bytes) of the chunk in a file, by the metadata of its array, which are in a folder above."""
        for folder in file.parents:
            if folder not in self._chunks:
                values = outputs.read_json(folder / METADATA) or outputs.read_json(folder / ".zarray")
                self._chunks[folder] = chunk_sizes.of_metadata(values) if values else ("", None)
            if self._chunks[folder] != ("", None) or folder == self._store.root:
                return self._chunks[folder]
        return "", None

    def __str__(self) -> str:
        return str(self._store)

    def __repr__(self) -> str:
        return repr(self._store)


def open_group(path: str | Path, key: str, expected: str, *others: str) -> zarr.Group:
    """Zarr group at a path, opened for reading.

    Args:
      path: path of the store.
      key: key of the setting with this path, for messages; "": no setting has it.
      expected: attribute `format` of the store.
      others: other formats that will do.

    Raises:
      UserError: if there is no store at the path, or one of another format, or one with damaged metadata.
    """
    where = f"{key}={path}" if key else str(path)
    if not Path(path).exists():
        raise UserError(f"{where}: no such folder; expected a Zarr store of format {expected}.")
    group = open_store(path, where)
    found = group.attrs.get("format", expected)
    if found not in (expected, *others):
        raise UserError(f"{where}: has format {found}; expected {expected}.")
    return group


def open_store(path: str | Path, where: str = "") -> zarr.Group:
    """Group of any format, opened for reading after a check of its metadata; `where` names it in the message if it is no Zarr store."""
    metadata = _metadata(Path(path))
    attributes = metadata.get("", {}).get("attributes", {})
    sealed, arrays = attributes.get(SEAL), dict[str, dict[str, str]]()
    if sealed is not None or CHUNKS in attributes:
        _check_seal(path, metadata, sealed)
        sums = attributes.get(CHUNKS, {})  # stores of earlier versions have none
        arrays = {name: sums.get(name, {}) for name in sealed if metadata[name].get("node_type") == "array"}
    try:
        group = zarr.open_group(CheckedStore(path, arrays), mode="r")
    except Exception as error:  # zarr raises many kinds for a folder that is not a store
        raise UserError(f"{where or path}: not a Zarr store ({first_line(error)}).") from error
    for name in sorted(metadata.keys() - {""}) if sealed is None else ():
        try:
            group[name]
        except Exception as error:
            raise UserError(f"{Path(path) / name / METADATA}: does not describe a Zarr array ({first_line(error)}); {REMEDY}.") from error
    return group


def _metadata(path: Path) -> dict[str, dict[str, Any]]:
    """Metadata of all groups and arrays of a store in Zarr format 3, by path; the root is "". Raises UserError if a file is damaged."""
    found: dict[str, dict[str, Any]] = {}
    for folder, subfolders, files in os.walk(path):
        if METADATA in files:
            file = Path(folder) / METADATA
            try:
                values = json.loads(file.read_bytes().decode())
            except (ValueError, RecursionError) as error:
                raise UserError(f"{file}: the file is damaged ({first_line(error)}); {REMEDY}.") from error
            if not isinstance(values, dict) or not isinstance(values.get("attributes", {}), dict):
                raise UserError(f"{file}: the file is damaged (no JSON object, or attributes that are none); {REMEDY}.")
            found["" if Path(folder) == path else Path(folder).relative_to(path).as_posix()] = values
            if values.get("node_type") == "array":
                subfolders.clear()
        elif Path(folder) == path:
            break  # another format, or no store
    return found


def _checksum(metadata: dict[str, Any]) -> str:
    """Checksum of the metadata of a group or array, apart from the checksums in it: 8 hexadecimal digits."""
    attributes = {name: value for name, value in metadata.get("attributes", {}).items() if name != SEAL}
    return f"{zlib.crc32(json.dumps({**metadata, 'attributes': attributes}, sort_keys=True).encode()):08x}"


def _check_seal(path: str | Path, metadata: dict[str, dict[str, Any]], sealed: Any) -> None:
    """Raises UserError where metadata are missing or differ from the checksums `sealed`; groups and arrays may have been added."""
    if not isinstance(sealed, dict):
        raise UserError(f"{Path(path) / METADATA}: the file is damaged (attribute {SEAL}); {REMEDY}, or, {EDITED}.")
    for name, expected in sealed.items():
        file = Path(path) / name / METADATA
        if name not in metadata:
            raise UserError(f"{file}: is missing; {REMEDY}.")
        if _checksum(metadata[name]) != expected:
            raise UserError(f"{file}: is not as rlsnet wrote it, by its checksum; {REMEDY}, or, {EDITED} of {Path(path).name}.")


def seal(path: Path) -> None:
    """Stores the checksums of the metadata of a complete store in its root; nothing is written to the store afterwards.

    Write to an array as `create` returns it: opened again it does not store chunks of zeros, and this function raises UserError.
    """
    root = zarr.open_group(str(path), mode="r+")
    check_all_complete(root)
    root.attrs[CHUNKS] = {name: _chunk_checksums(path / name) for name, each in sorted(_metadata(path).items()) if _has_checksums(each)}
    root.attrs[SEAL] = {name: _checksum(values) for name, values in sorted(_metadata(path).items())}


def _has_checksums(metadata: Mapping[str, Any]) -> bool:
    """Whether these are the metadata of an array whose chunks end with a checksum."""
    codecs = metadata.get("codecs") or [{}]
    return metadata.get("node_type") == "array" and codecs[-1].get("name") == "crc32c"


def _chunk_checksums(array: Path) -> dict[str, str]:
    """Checksum of each chunk of an array, 8 hexadecimal digits, by its path within the array."""
    found = {}
    for folder, _, files in os.walk(array):
        for file in sorted(set(files) - {METADATA}):
            with Path(folder, file).open("rb") as stream:
                stream.seek(-CRC_BYTES, os.SEEK_END)
                found[Path(folder, file).relative_to(array).as_posix()] = stream.read().hex()
    return found


def fingerprint(path: Path) -> str | None:
    """Hash of a sealed store with all its values, to find whether it was replaced; None for one of an earlier version, or without."""
    attributes = outputs.read_json(path / METADATA).get("attributes")
    if not isinstance(attributes, dict) or not {SEAL, CHUNKS} <= attributes.keys():
        return None
    return hashlib.sha256(json.dumps(attributes[SEAL], sort_keys=True).encode()).hexdigest()[:16]


def array(group: zarr.Group, name: str, shape: Sequence[int | str], kind: str, where: str) -> zarr.Array:
    """Array of a group after a check of its shape and kind of number; it is not read yet.

    Args:
      group: an open store.
      name: path within it.
      shape: expected sizes; a letter stands for any size.
      kind: numpy kinds allowed, such as "f" or "iu".
      where: the store's path, for messages.

    Raises:
      UserError: if the array is missing, or has another shape or kind.
    """
    try:
        found = group.get(name)
    except Exception as error:  # zarr raises many kinds for damaged metadata
        raise UserError(f"{where}: {name} cannot be read, its {METADATA} is damaged ({first_line(error)}); {REMEDY}.") from error
    if not isinstance(found, zarr.Array):
        raise UserError(f"{where}: has no array {name}; expected one of shape [{', '.join(map(str, shape))}].")
    if not _fits(found.shape, shape):
        raise UserError(f"{where}: {name} has shape {list(found.shape)}; expected [{', '.join(map(str, shape))}].")
    _check_chunks(found, f"{where}: {name}")
    if found.dtype.kind not in kind:
        names = {"f": "real numbers", "i": "integers", "b": "booleans", "T": "texts"}
        raise UserError(f"{where}: {name} holds {found.dtype}; expected {names[kind[0]]}.")
    return found


def _check_chunks(stored: zarr.Array, where: str) -> None:
    """Raises UserError for chunks without extent, by which early versions of Zarr divide, and which 3.4 reads as the fill value."""
    folder = Path(str(stored.store_path).removeprefix("file://"))
    metadata = outputs.read_json(folder / METADATA) or outputs.read_json(folder / ".zarray")
    if stored.size and 0 in (chunks := chunk_sizes.shape_of_chunks(metadata) or []):
        raise UserError(f"{where} has chunks of shape {chunks}; expected at least 1 along each axis.")


def _fits(shape: Sequence[int], expected: Sequence[int | str]) -> bool:
    """Whether a shape has the expected sizes, of which a letter stands for any size."""
    return len(shape) == len(expected) and all(isinstance(e, str) or e == s for e, s in zip(expected, shape, strict=True))


def read(stored: zarr.Array, part: Any = ...) -> np.ndarray:
    """An array, or the `part` of it that an index selects, in memory; raises UserError if chunks are damaged or the memory is too small."""
    where = str(stored.store_path).removeprefix("file://")
    one_chunk = math.prod(stored.chunks) * stored.dtype.itemsize
    memory.check_fits(max(one_chunk, stored.nbytes if part is ... or part == () else 0), where)
    try:
        return np.asarray(stored[part])
    except (UserError, MemoryError):
        raise
    except Exception as error:  # codecs raise many kinds for a damaged chunk
        reason = "wrong checksum" if "checksum" in str(error) else first_line(error)
        raise UserError(f"{where}: cannot be read, the file is damaged ({reason}); {REMEDY}.") from error


def texts(stored: zarr.Array) -> np.ndarray:
    """Array as NumPy texts of fixed width; other types are converted."""
    return np.array([str(each) for each in read(stored)])


def open_plain(path: str, key: str, shape: Sequence[int | str]) -> Any:
    """An array in a .npy file or a Zarr array, not yet read; `key` is the setting that gave the path, `shape` as in `array`.

    Raises:
      UserError: if there is no such array, or it is empty or of another shape.
    """
    try:
        values = (
            np.load(path, mmap_mode="r", allow_pickle=False) if path.endswith(".npy") else zarr.open_array(CheckedStore(path), mode="r")
        )
    except Exception as error:  # numpy and zarr raise many kinds
        raise UserError(f"{key}={path}: cannot be read ({str(error).splitlines()[0]}); expected a .npy file or a Zarr array.") from error
    if isinstance(values, zarr.Array):
        _check_chunks(values, f"{key}={path}:")
    if not _fits(values.shape, shape) or not values.size:
        raise UserError(f"{key}={path}: has shape {list(values.shape)}; expected [{', '.join(map(str, shape))}].")
    return values


def read_plain(path: str, key: str, shape: Sequence[int | str]) -> np.ndarray:
    """The array of `open_plain` in memory; raises UserError unless all its values are finite numbers."""
    stored = open_plain(path, key, shape)
    memory.check_fits(stored.nbytes, f"{key}={path}")
    values = np.asarray(stored[...])
    if values.dtype.kind not in "fiu" or not np.all(np.isfinite(values)) or np.any(np.abs(values) > LARGEST):
        raise UserError(f"{key}={path}: expected finite numbers only, of amounts up to {LARGEST:g}.")
    return values


def check_complete(stored: zarr.Array) -> None:
    """Raises UserError if chunks of an array are missing, which zarr would read as zeros; for arrays that are written completely."""
    if stored.nchunks_initialized != stored.nchunks:
        where = str(stored.store_path).removeprefix("file://")
        raise UserError(f"{where}: {stored.nchunks - stored.nchunks_initialized} of {stored.nchunks} chunks are missing.")


def check_all_complete(root: zarr.Group) -> None:
    """Raises UserError if chunks of any array of a store are missing, which was written completely."""
    for _, each in root.members(max_depth=None):
        if isinstance(each, zarr.Array):
            check_complete(each)


def create(
    group: zarr.Group,
    name: str,
    shape: Sequence[int],
    dtype: Any,
    dims: Sequence[str],
    *,
    along: int = 0,
    compress: bool = True,
    chunks: Sequence[int] | None = None,
    **attrs: Any,
) -> zarr.Array:
    """A new array in chunks of about 32 MB along axis `along`, each with a checksum.

    A chunk covers the other axes completely, except conditions, which are written one by one.

    Args:
      group: an open store.
      name: path of the array in it.
      shape: of the array.
      dtype: of the array.
      dims: names of its dimensions.
      along: axis that is divided into chunks.
      compress: compress the chunks.
      chunks: shape of a chunk, in place of the above.
      **attrs: attributes of the array, such as units.
    """
    if chunks is None:
        chunks = [1 if dim == "condition" and len(shape) > 1 else max(1, size) for dim, size in zip(dims, shape, strict=True)]
        row = math.prod(s for axis, s in enumerate(chunks) if axis != along) * np.dtype(dtype).itemsize
        chunks[along] = int(min(chunks[along], max(1, CHUNK_BYTES // max(1, row))))
    return group.create_array(
        name,
        shape=tuple(shape),
        dtype=dtype,
        chunks=tuple(chunks),
        compressors=[ZstdCodec(), Crc32cCodec()] if compress else [Crc32cCodec()],
        dimension_names=list(dims),
        attributes=attrs,
        config={"write_empty_chunks": True},
    )


def reopened(path: Path, name: str) -> zarr.Array:
    """An array that `create` has made in a store at a path, to write to it; its chunks of zeros are stored too."""
    return zarr.open_array(str(path / name), mode="r+", config={"write_empty_chunks": True})


def write(group: zarr.Group, name: str, values: Any, dims: Sequence[str], **options: Any) -> None:
    """Writes an array completely; device arrays and texts too. `options` are those of `create`."""
    values = np.asarray(values)
    if values.dtype.kind == "U":  # as names of files
        values = np.array([readable(each) for each in values.flat], str).reshape(values.shape)
    dtype, along = str if values.dtype.kind == "U" else values.dtype, options.get("along", 0)
    stored = create(group, name, values.shape, dtype, dims, **options)
    for part in chunks(stored, along, CHUNKS_AT_ONCE):
        index = (*[slice(None)] * along, part)
        stored[index] = values[index]


def chunks(stored: zarr.Array, along: int = 0, together: int = 1) -> Iterator[slice]:
    """Slices of axis `along` that the chunks of an array cover, `together` in each slice, in order."""
    size, step = stored.shape[along], stored.chunks[along] * together
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))
