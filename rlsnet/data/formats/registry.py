"""Readers of all import formats, and recognition of the format of a source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from rlsnet.data.formats import arrays, cell_explorer, hdf5, ibl_alf, julia_jld2, matlab, nwb, phy, rlsnet_export, sonata, table_files
from rlsnet.data.import_options import Options
from rlsnet.data.session import PrecomputedRates, Session
from rlsnet.errors import UserError


class Reader(Protocol):
    """Module that reads one format."""

    def matches(self, path: Path) -> bool:
        """Whether a file or folder looks like this format."""

    def read(self, path: Path, options: Options) -> Session | PrecomputedRates:
        """Session or precomputed rates in a file or folder.

        Raises:
          UserError: the source cannot be read, or lacks spikes, trials or rates.
        """


READERS: Mapping[str, Reader] = {
    "nwb": nwb,
    "phy": phy,
    "alf": ibl_alf,
    "cellexplorer": cell_explorer,
    "sonata": sonata,
    "rlsnet": rlsnet_export,
    "jld2": julia_jld2,
    "mat": matlab,
    "arrays": arrays,
    "hdf5": hdf5,
}


def recognized_format(path: Path) -> str:
    """Name of the first format that a file or folder looks like.

    Raises:
      UserError: it looks like none of them.
    """
    for name, reader in READERS.items():
        if reader.matches(path):
            return name
    if path.is_file():
        table_files.check_not_compressed(path)
    raise UserError(f"{path}: format not recognized; expected one of {', '.join(READERS)}, which format=NAME can also choose.")
