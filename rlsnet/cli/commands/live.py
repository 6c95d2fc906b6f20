"""Command `rlsnet live`: a run while it trains, on a page that this computer serves, in the terminal, or on a page to keep."""

from __future__ import annotations

import dataclasses
import getpass
import platform
import sys
from typing import TYPE_CHECKING

from rlsnet.config.schema import key
from rlsnet.errors import UserError
from rlsnet.io.outputs import html_file
from rlsnet.io.terminal import say

if TYPE_CHECKING:
    from rlsnet.analysis.live.server import Server
    from rlsnet.analysis.live.state import Reader


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of rlsnet live."""

    port: int = key("port of the page; 0: any that is free", default=0, least=0, most=65535)
    host: str = key(
        "address that the page is served at; that of another network than this computer's own needs expose=true", default="127.0.0.1"
    )
    expose: bool = key("true: other computers can open the page, unencrypted, if they have its token", default=False)
    open: bool = key("true: open the page in the browser", default=False)
    terminal: bool = key("true: show the run in the terminal, and serve no page", default=False)
    out: str | None = key("path of an HTML page with the present state, to keep; null: none, the page is served", default=None, path=True)
    overwrite: bool = key("true: replace an earlier page of rlsnet at the path out", default=False)


USAGE = """RUN [key=value ...]
  RUN   a run folder such as outputs/2026-11-21/10-00-00, or last for the newest run; it may be training"""


def main(paths: list[str], options: Options) -> None:
    """Runs `rlsnet live RUN`."""
    if len(paths) != 1:
        raise UserError("live: expected one run folder, such as outputs/2026-11-21/10-00-00; rlsnet runs lists the runs.")
    if options.terminal and options.out is not None:
        raise UserError("live: terminal=true and out= exclude each other; expected one of them.")
    from rlsnet.analysis.live.state import Reader
    from rlsnet.runs.folder import Run

    run = Run.open(paths[0])
    if options.out is not None:
        _save(Reader(run), options)
    elif options.terminal:
        from rlsnet.analysis.live.terminal import show

        show(Reader(run))
    else:
        _serve(Reader(run), options)


def _save(reader: Reader, options: Options) -> None:
    """Writes the page to keep."""
    out = html_file(options.out, reader.run.path / "live.html", options.overwrite)
    from rlsnet.analysis.live import page
    from rlsnet.io import atomic

    reader.refresh()
    with atomic.replacing(out) as temporary:
        temporary.write_text(page.saved(reader), encoding="utf-8")
    say(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB); it opens in any browser.")


def _serve(reader: Reader, options: Options) -> None:
    """Serves the page until the user ends it."""
    from rlsnet.analysis.live.server import Server, is_loopback

    if not is_loopback(options.host) and not options.expose:
        port = options.port or 8765
        raise UserError(
            f"host={options.host}: other computers could open the page, and its token would cross the network unencrypted;"
            f" expected no host=, port={port}, and on the other computer: {_tunnel(port)} (or expose=true)."
        )
    server = Server(reader, options.host, options.port)
    print(server.address, flush=True)
    _explain(server)
    if options.open:
        import webbrowser

        webbrowser.open(server.address_for_once())
    try:
        server.serve()
    except KeyboardInterrupt:
        say("The page is no longer served; the run is not affected.", sys.stderr)


def _explain(server: Server) -> None:
    """Says who can open the page, and how another computer can do it safely."""
    from rlsnet.analysis.live.server import is_loopback

    name, tunnel = server.feed.ask(lambda reader: reader.run.path), _tunnel(server.port)
    who = "this computer alone" if is_loopback(server.host) else "all computers that reach it, unencrypted"
    same = "with the same port on both sides, and open the same address there"
    better = (
        f"From another computer: {tunnel}" if is_loopback(server.host) else f"Safer is host=127.0.0.1 and, on the other computer, {tunnel}"
    )
    say(f"The page shows {name} to {who}, until Ctrl-C. {better}, {same}.")


def _tunnel(port: int) -> str:
    """Command by which another computer reaches a page that is served to this computer alone."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # the user has no name, as in some containers
        user = "USER"
    return f"ssh -N -L {port}:127.0.0.1:{port} {user}@{platform.node()}"
