"""Import of a connectome: the wiring of a source becomes a network.zarr."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from rlsnet.data.connectomes import assembly, edge_tables, sonata
from rlsnet.data.connectomes.options import Options
from rlsnet.data.connectomes.wiring import Wiring
from rlsnet.data.formats import table_files
from rlsnet.errors import UserError
from rlsnet.io import outputs
from rlsnet.model import network_store


def import_network(source: str | Path, out: str | Path, options: Options | None = None) -> dict[str, str]:
    """Writes a network.zarr with the wiring of a connectome, for network.load.

    Args:
      source: table of connections (.csv, .tsv, .parquet), SciPy sparse matrix (.npz), or circuit in SONATA (folder or .json).
      out: path of the new network; an older one there is replaced only with options.overwrite.
      options: columns, signs, weights and roles.

    Returns:
      What was imported and what was not, name -> words; also in the store, where `rlsnet info` shows it.

    Raises:
      UserError: the source, a setting or the path is wrong; nothing is written then.
    """
    options, path, source = options or Options(), Path(out), Path(source)
    if path.suffix != ".zarr":
        raise UserError(f"{path}: the last path is the new network; expected a name that ends in .zarr.")
    made = partial(outputs.is_store, format=network_store.FORMAT)
    outputs.check_free(path, made, "a network.zarr of rlsnet", "import-network ", options.overwrite)
    wiring = assembly.selected(_read(source, options), options)
    network = assembly.assemble(wiring, options)
    labels = {"name": wiring.name, **wiring.columns}
    words = {"neurons": f"{len(wiring.name):,}", **network.summary}
    network_store.save_wiring(
        path,
        network.excitatory,
        network.edges,
        network.plastic,
        wiring.parameters,
        {name: np.asarray(column).astype(str) for name, column in labels.items()},
        source=str(source.resolve()),
        cell_class=network.cell_class,
        **{network_store.SUMMARY: words},
    )
    return words


def _read(source: Path, options: Options) -> Wiring:
    """Wiring of a source; raises UserError if there is none, or its format is not known."""
    if not source.exists():
        raise UserError(f"{source}: no such file or folder.")
    if options.format == "sonata" or (options.format == "auto" and sonata.matches(source)):
        return sonata.read(source, options)
    if options.format == "npz" or (options.format == "auto" and source.suffix.lower() == ".npz"):
        return edge_tables.read_matrix(source, options)
    if source.is_dir():
        expected = (
            f"a folder with circuit_config.json, or with *nodes*.h5 and *edges*.h5, or one of {', '.join(table_files.TABLE_SUFFIXES)}, .npz"
        )
        raise UserError(f"{source}: a folder without a circuit in SONATA; expected {expected}.")
    return edge_tables.read(source, options)
