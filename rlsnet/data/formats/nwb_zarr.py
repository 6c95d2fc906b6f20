"""NWB in Zarr, as hdmf-zarr writes it: a Zarr hierarchy with the groups and arrays of the NWB schema.

Texts are arrays of objects with the codec vlen-utf8, whose fill value 0 zarr 3 does not take; references to other objects are pickled.
A pickle runs code of whoever made the file, so such arrays are never decoded: they are left out, and named in messages. Links are
entries of the attribute zarr_link of their group.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import WrapperStore

from rlsnet.data.formats import table_files
from rlsnet.io import outputs, zarr_store

METADATA = (".zattrs", "zarr.json")  # file with the attributes of a group, in Zarr 2 and 3
NEVER_ZERO = re.compile(r"(_times?|_index|timestamps?)$")  # arrays of which a whole chunk is never zero, and so always stored
TEXT_CODECS = ("vlen-utf8", "vlen-bytes")  # of arrays of objects; others are pickles and the like


class _TextStore(WrapperStore):  # type: ignore[misc]  # zarr's types are not read
    """Store whose arrays of objects have a fill value that zarr takes for texts."""

    async def get(self, key: str, prototype: Any, *args: Any, **options: Any) -> Any:
        """Content of a file of the store."""
        found = await super().get(key, prototype, *args, **options)
        content = json.loads(found.to_bytes()) if found is not None and key.endswith(".zarray") else {}
        if content.get("dtype") != "|O":
            return found
        return prototype.buffer.from_bytes(json.dumps(content | {"fill_value": ""}).encode())


class Group:
    """Group of a store: what the reader of NWB uses of h5py.Group.

    folder: of the store.
    root: group at the top of the store.
    path: of this group, without a slash at its ends.
    own: this group, if it is not that at the top.
    """

    def __init__(self, folder: Path, root: zarr.Group, path: str = "", own: zarr.Group | None = None):
        self.folder, self.root, self.path = folder, root, path
        self.attrs = dict((root if own is None else own).attrs)

    @property
    def name(self) -> str:
        """Path from the top, as in HDF5."""
        return f"/{self.path}"

    def __iter__(self) -> Iterator[str]:
        below = [each.name for each in (self.folder / self.path).iterdir() if each.is_dir()]
        yield from sorted({*below, *self._links()})

    def __contains__(self, path: str) -> bool:
        return self.get(path) is not None

    def __getitem__(self, path: str) -> Any:
        if (found := self.get(path)) is None:
            raise KeyError(path)
        return found

    def get(self, path: str, default: Any = None) -> Any:
        """Group or array at a path below, through links in the store; `default` if there is none, or an array of Python objects."""
        first, _, rest = path.strip("/").partition("/")
        where = self._links().get(first, "/".join(filter(None, (self.path, first))))
        if _is_pickled(self.folder / where) or (node := self.root.get(where)) is None:
            return default
        if isinstance(node, zarr.Array):
            return default if rest else node
        found = Group(self.folder, self.root, where, node)
        return found.get(rest, default) if rest else found

    def values(self) -> Iterator[Any]:
        """Groups and arrays directly below, without arrays of Python objects."""
        return (found for name in self if (found := self.get(name)) is not None)

    def pickled(self) -> list[str]:
        """Names of the arrays directly below that contain Python objects."""
        return [name for name in self if _is_pickled(self.folder / self.path / name)]

    def _links(self) -> dict[str, str]:
        """Path in the store of each link of this group; links to other stores are left out."""
        links = self.attrs.get("zarr_link", [])
        return {str(each["name"]): str(each["path"]).strip("/") for each in links if each.get("source") == "."}


def open_store(path: Path) -> Group:
    """Group at the top of a store."""
    return Group(path, zarr.open_group(_TextStore(zarr_store.CheckedStore(path)), mode="r", use_consolidated=False))


def is_store(path: Path) -> bool:
    """Whether a folder is a Zarr store with the attribute nwb_version."""
    contents = [outputs.read_json(path / name) for name in METADATA]
    return any("nwb_version" in each or "nwb_version" in each.get("attributes", {}) for each in contents)


def _is_pickled(folder: Path) -> bool:
    """Whether the array in a folder contains Python objects that are no texts, so that only running code of the file could read it."""
    content = outputs.read_json(folder / ".zarray")
    codecs = [str(each.get("id")) for each in content.get("filters") or () if isinstance(each, dict)]
    return "pickle" in codecs or (content.get("dtype") == "|O" and not set(codecs) & set(TEXT_CODECS))


def is_text(array: zarr.Array) -> bool:
    """Whether an array contains texts."""
    return array.dtype.kind in "OTUS"


def read_array(array: zarr.Array, path: Path) -> np.ndarray:
    """Array in memory, texts as objects; raises UserError if a chunk is damaged, or a chunk of times or indices missing."""
    with table_files.one_line_errors(f"{path}: {array.name}"):
        if NEVER_ZERO.search(array.name):
            zarr_store.check_complete(array)
        values = np.asarray(zarr_store.read(array))
    return values.astype(object) if is_text(array) else values
