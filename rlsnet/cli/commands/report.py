"""Command `rlsnet report`: the results of a run on one HTML page."""

from __future__ import annotations

import dataclasses

from rlsnet.config.schema import key
from rlsnet.errors import UserError
from rlsnet.io.outputs import html_file
from rlsnet.io.terminal import say


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
    from rlsnet.runs.folder import Run

    run = Run.open(paths[0])
    out = html_file(options.out, run.path / "report.html", options.overwrite)
    from rlsnet.runs.progress import working

    with working("Writing the report"):
        from rlsnet.analysis.report import run_report
        from rlsnet.analysis.report.html import write_page
        from rlsnet.analysis.test_results import of_one_test, open_results

        page = of_one_test(run, lambda: run_report.page(open_results(run, options.plugins, options.trust)))
        write_page(out, page)
        say(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB); it opens in any browser.")
