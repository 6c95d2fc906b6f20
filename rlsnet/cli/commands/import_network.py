"""Command `rlsnet import-network`: its help and its entry point."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence

from rlsnet.data.connectomes.options import Options
from rlsnet.errors import UserError
from rlsnet.io.terminal import say

__all__ = ["USAGE", "Options", "main"]

USAGE = """SOURCE OUT.zarr [key=value ...]
  SOURCE     a table of connections (.csv, .tsv, .parquet), a SciPy sparse matrix (.npz), or a circuit in SONATA (folder or .json)
  OUT.zarr   the new network, for rlsnet train network.load=OUT.zarr

Examples:
  rlsnet import-network edges.csv net.zarr neuron_table=neurons.csv plastic=all max_inputs=100
  rlsnet import-network connections.csv fly.zarr signs.GLUT=inh unknown=drop min_synapses=5
  rlsnet import-network runs/first/export/sonata again.zarr"""


def main(paths: Sequence[str], options: Options) -> None:
    """Runs `rlsnet import-network SOURCE OUT.zarr`."""
    if len(paths) != 2:
        raise UserError(f"import-network {' '.join(paths)}: expected a source and, last, the new network, such as OUT.zarr.")
    from rich.table import Table
    from rich.text import Text

    from rlsnet.runs.progress import working

    with working("Reading connections"):
        from rlsnet.data.connectomes.importing import import_network  # imports JAX, which help does not need
        from rlsnet.io.formatting import console
        from rlsnet.kernels import device

        device.restrict_to_cpu()
        started = time.perf_counter()
        summary = import_network(paths[0], paths[1], options)
    table = Table("", "", show_header=False)
    for name, words in summary.items():
        table.add_row(Text(name), Text(words))
    console().print(table)
    say(f"Wrote {paths[1]} in {time.perf_counter() - started:.1f} s. To train a network with this wiring:")
    say(f"  rlsnet train network.load={shlex.quote(paths[1])}")
