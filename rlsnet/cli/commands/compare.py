"""Command `rlsnet compare`: several runs side by side, in the terminal and as an HTML page."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rlsnet.config.schema import key
from rlsnet.errors import UserError
from rlsnet.io.outputs import html_file
from rlsnet.io.terminal import say


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of rlsnet compare."""

    out: str | None = key("path of an HTML page to write in addition; null: no page", default=None, path=True)
    overwrite: bool = key("true: replace an earlier page of rlsnet at the path out", default=False)


USAGE = """RUNS... [key=value ...]
  RUNS   run folders, last for the newest run, or folders that contain runs, such as that of a sweep"""


def main(paths: list[str], options: Options) -> None:
    """Runs `rlsnet compare RUNS...`."""
    if not paths:
        raise UserError("compare: expected run folders, or a folder with runs in it such as multirun/2026-11-21/10-00-00.")
    for path in paths:
        if not Path(path).is_dir():
            raise UserError(f"{path}: no such folder; expected a run, or a folder with runs in it.")
    out = None if options.out is None else html_file(options.out, Path(), options.overwrite)
    from rlsnet.runs.progress import working

    with working("Comparing"):
        from rlsnet.analysis import comparison
        from rlsnet.analysis.report import comparison_page
        from rlsnet.analysis.report.html import write_page

        found = comparison.read([Path(path) for path in paths])
        comparison.show(found)
        if out is not None:
            write_page(out, comparison_page.page(found))
            say(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB); it opens in any browser.")
