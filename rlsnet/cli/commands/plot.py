"""Command `rlsnet plot`: figures of a run or of a recording, from stored results."""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from pathlib import Path

from rlsnet.config.schema import key
from rlsnet.errors import UserError
from rlsnet.io.outputs import check_ending
from rlsnet.io.terminal import say


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of rlsnet plot."""

    run: str | None = key("path of a run, instead of PATH; an older form", default=None, path=True)
    out: str | None = key(
        "folder of the figures; null: RUN/figures, or NAME.figures next to a recording NAME.zarr", default=None, path=True
    )
    format: str = key(
        "file format of the figures: png for the screen, pdf or svg, with text that a program for drawings can change, for a paper",
        default="png",
        choices=("png", "pdf", "svg"),
    )
    dpi: float = key("resolution of a png, and of heatmaps within a pdf", "dots per inch", default=200.0, least=20, most=2000)
    plugins: tuple[str, ...] | None = key(
        "new location of the plugin files of the run; null: as the run names them, if you trust them", default=None, path=True, paths=True
    )
    trust: bool = key("true: run the plugins that the run names, this time and in future", default=False)


USAGE = """PATH [key=value ...]
  PATH   a run folder, last for the newest run, or a recording.zarr"""


def main(paths: list[str], options: Options) -> None:
    """Runs `rlsnet plot PATH`."""
    given = [*paths, *([options.run] if options.run is not None else [])]
    if len(given) != 1:
        raise UserError("plot: expected one path, a run such as outputs/2026-11-21/10-00-00 or a recording.zarr.")
    path = Path(given[0])
    if options.run is None and not path.exists():
        raise UserError(f"{path}: no such folder; expected a run or a recording.zarr.")
    out = None if options.out is None else Path(options.out)
    if out is not None and out.exists() and not out.is_dir():
        raise UserError(f"out={out}: a file; expected a folder for the figures.")
    if out is not None and not out.exists():
        check_ending(out, (), "a folder of figures")
    from rlsnet.runs.folder import Run, check_content
    from rlsnet.runs.progress import working

    check_content(path)
    is_run = options.run is not None or (path / "config.yaml").exists()
    run = Run.open(path) if is_run else None
    with working("Drawing figures"):
        if run is None:
            _plot_recording(path, out, options)
            return
        from rlsnet.analysis.plots import run_figures
        from rlsnet.analysis.test_results import open_results

        results = open_results(run, options.plugins, options.trust)
        run_figures.plot(results.config, run, out, say, partial(say, stream=sys.stderr), options.format, options.dpi)


def _plot_recording(path: Path, out: Path | None, options: Options) -> None:
    """Writes the figures of a recording.zarr; raises UserError if the path contains no recorded rates or currents."""
    from rlsnet.analysis.plots import recording_figures
    from rlsnet.data import recordings
    from rlsnet.io import zarr_store

    group = zarr_store.open_store(path, f"{path}: neither a run folder nor a recording.zarr")
    kind = group.attrs.get("format", recordings.FORMAT)
    if kind != recordings.FORMAT or not recordings.TARGETS.keys() & set(group):
        raise UserError(f"{path}: has format {kind} and no recorded rates; expected a run folder or a recording.zarr.")

    recording_figures.plot(str(path), out, say, options.format, options.dpi)
