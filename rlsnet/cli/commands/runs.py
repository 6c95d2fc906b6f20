"""Command `rlsnet runs`: the runs below a folder, as a table."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rlsnet.config.schema import key
from rlsnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of rlsnet runs."""

    rows: int | None = key("largest number of runs in the table; null: all runs", default=20, least=1)


USAGE = """[FOLDER] [key=value ...]
  FOLDER   a folder that contains runs; without it, the present folder and 4 levels of folders below it"""


def main(paths: list[str], options: Options) -> None:
    """Runs `rlsnet runs [FOLDER]`."""
    if len(paths) > 1:
        raise UserError(f"runs {' '.join(paths)}: expected one folder, or none for the present folder.")
    folder = Path(paths[0]) if paths else Path()
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected a folder with runs in it.")
    from rlsnet.runs import catalogue

    found = catalogue.newest_first(folder, None if paths else catalogue.DEPTH)
    if not found:
        below = f"in the present folder or in {catalogue.DEPTH} levels of folders below it"
        where = f"{folder}: contains no run" if paths else f"there is no run {below}"
        raise UserError(f"{where}; rlsnet train makes one, in outputs/DATE/TIME or in hydra.run.dir=FOLDER.")
    from rlsnet.runs.progress import working

    with working("Reading runs"):
        from rlsnet.analysis import run_list  # imports JAX, which help does not need

        run_list.show(found, folder, len(found) if options.rows is None else options.rows)
