"""Command `rlsnet report`: the results of a run on one HTML page."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

from rlsnet.config.schema import key
from rlsnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of rlsnet report."""

    out: str | None = key("path of the HTML page; null: report.html in the run folder", default=None, path=True)
    overwrite: bool = key("true: replace an earlier page of rlsnet at the path out", default=False)
    plugins: tuple[str, ...] | None = key(
        "new location of the plugin files of the run; null: as the run names them, if you trust them", default=None, path=True, paths=True
    )
    trust: bool = key("true: run the plugins that the run names, this time and in future", default=False)


USAGE = """RUN [key=value ...]
  RUN   a run folder such as outputs/2026-11-21/10-00-00, or last for the newest run"""


def main(paths: list[str], options: Options) -> None:
    """Runs `rlsnet report RUN`."""
    if len(paths) != 1:
        raise UserError("report: expected one run folder, such as outputs/2026-11-21/10-00-00; rlsnet compare takes several.")
    path = Path(paths[0])
    if not (path / "config.yaml").exists():
        raise UserError(f"report {path}: not a run folder; expected a folder that rlsnet train made, with a config.yaml.")
    out = html_file(options.out, path / "report.html", options.overwrite)
    from rlsnet.analysis.report import run_report
    from rlsnet.analysis.test_results import of_one_test, open_results
    from rlsnet.io import atomic
    from rlsnet.io.formatting import readable
    from rlsnet.runs.folder import Run

    run = Run(path)
    page = of_one_test(run, lambda: run_report.page(open_results(run, options.plugins, options.trust)))
    with atomic.replacing(out) as temporary:
        temporary.write_text(readable(page), encoding="utf-8")
    print(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB); it opens in any browser.")


def html_file(given: str | None, otherwise: Path, overwrite: bool) -> Path:
    """Path of the file of an HTML page.

    Args:
      given: the setting `out`.
      otherwise: the path without that setting, where an earlier page of rlsnet is always replaced.
      overwrite: whether an earlier page of rlsnet at `given` may be replaced.

    Raises:
      UserError: the path is a folder, a symbolic link, or a file that may not be replaced.
    """
    from rlsnet.io import outputs

    out = otherwise if given is None else Path(given)
    if out.is_dir():
        raise UserError(f"out={out}: a folder; expected the name of a file, such as {out / 'report.html'}.")
    made = partial(outputs.is_marked, marks=(outputs.PAGE,))
    outputs.check_free(out, made, "a page that rlsnet wrote", "out=", overwrite or given is None)
    return out
