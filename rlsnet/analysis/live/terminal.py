"""A run in the terminal while it trains: the numbers of the page, with small curves drawn by characters."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rlsnet.analysis.live.sources import mean
from rlsnet.analysis.live.state import Reader
from rlsnet.analysis.live.words import share
from rlsnet.errors import joined
from rlsnet.io.formatting import UNDEFINED, console, counted, number

Part = tuple[str, RenderableType]  # its name, and what is shown

EVERY = 1.0  # s between two readings
LEVELS = "▁▂▃▄▅▆▇█"
CURVE, RATES = 22, 24  # characters of a curve of scores, and of the rates of a unit
MOST_CONDITIONS, MOST_PERTURBATIONS, MOST_REGIONS = 4, 4, 8  # that are shown


def show(reader: Reader, target: Console | None = None) -> None:
    """Shows a run until Ctrl-C, anew each second; where the output is no terminal, its present state once."""
    target = target or console()
    reader.refresh()
    if not target.is_terminal:
        target.print(Group(*(part for _, part in view(reader))))
        return
    with Live(console=target, auto_refresh=False, screen=True) as display:
        try:
            while True:
                display.update(fitted(view(reader), target), refresh=True)
                time.sleep(EVERY)
                reader.refresh()
        except KeyboardInterrupt:
            pass
    target.print(Group(*(part for _, part in view(reader))))


def fitted(parts: Sequence[Part], target: Console) -> RenderableType:
    """The parts that fit into the window of a terminal, in their order, and the names of the others."""
    shown: list[RenderableType] = []
    missing: list[str] = []
    left = target.height - 3  # but for the last lines
    for name, part in parts:
        height = len(target.render_lines(part, pad=False))
        if height > left:
            missing.append(name)
        else:
            shown.append(part)
            left -= height
    words = f"The window is too low to show {joined(missing)}. " if missing else ""
    return Group(*shown, Text(f"{words}Ctrl-C ends this view; the run goes on.", style="dim"))


def sparkline(values: Sequence[float | None], width: int, low: float | None = None, high: float | None = None) -> str:
    """A curve in `width` characters at most, each the mean of neighbours; a space where nothing is known.

    low, high: values of the lowest and the highest character; None: those of the curve.
    """
    means = (
        [mean(values[len(values) * i // width : len(values) * (i + 1) // width]) for i in range(width)] if len(values) > width else values
    )
    known = [each for each in means if each is not None]
    if not known:
        return " " * len(means)
    low, high = min(known) if low is None else low, max(known) if high is None else high
    scale = (len(LEVELS) - 1) / (high - low) if high > low else 0.0
    steps = [None if each is None else round((min(max(each, low), high) - low) * scale) for each in means]
    return "".join(" " if step is None else LEVELS[step] for step in steps)


def view(reader: Reader) -> list[Part]:
    """The present state of a run in parts, the most important one first."""
    state = reader.state()
    parts: list[Part] = [("the run", Group(Text(state["path"], style="bold"), _tiles(state["tiles"])))]
    if state["notes"]:
        parts.append(("notes", Text("\n".join(f"Note: {note}" for note in state["notes"]), style="yellow")))
    if (scores := _scores(state)).row_count:
        parts.append(("scores", scores))
    if state["recording"] is not None:
        parts.append(("the recording", _recording(state["recording"])))
    if state["rates"] is not None:
        parts.append(("firing rates", _rates(reader, state["rates"])))
    if state["prediction"] is not None and state["prediction"]["perturbations"]:
        parts.append(("predicted effects", _prediction(state["prediction"])))
    if state["rates"] is not None and state["rates"]["regions"]:
        parts.append(("regions", _regions(state["rates"]["regions"])))
    return parts


def _table(title: str, *columns: str, numeric: Iterable[int] = ()) -> Table:
    """An empty table; `numeric`: columns of numbers."""
    title = f"\n{title}" if title else ""
    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 2, 0, 0),
        show_header=any(columns),
        header_style="dim",
    )
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index in numeric else "left")
    return table


def _tiles(tiles: Sequence[Sequence[str]]) -> Table:
    """The key figures."""
    table = _table("", "", "", "")
    for label, value, note in tiles:
        table.add_row(Text(label, style="dim"), Text(value, style="bold"), Text(note, style="dim"))
    return table


def _recording(rows: Sequence[tuple[str, str, bool]]) -> Table:
    """Health of the recording in two columns of names and values."""
    table, half = _table("Recording", "", "", "", ""), -(-len(rows) // 2)
    for index in range(half):
        pair = [rows[index], *rows[half + index : half + index + 1]]
        table.add_row(
            *(cell for name, value, good in pair for cell in (Text(name, style="dim"), Text(value, style="" if good else "bold red")))
        )
    return table


def _scores(state: dict[str, Any]) -> Table:
    """Curves of scores over trials and iterations, each with its last value."""
    table = _table("Scores", "", "over", "", "last", "all", numeric=(3, 4))
    if (trials := state["trials"]) is not None:
        over = counted(trials["n"], "trial")
        for index, (key, name) in enumerate((("score", "explained signal variance"), ("ceiling", "its ceiling"))):
            table.add_row(name, over, sparkline(trials[key], CURVE, 0, 1), share(trials["last"][index]), share(trials["all"][index]))
    if (iterations := state["iterations"]) is not None:
        over = counted(iterations["iteration"][-1], "iteration")
        curves = [("correlation", iterations["correlation"]), ("explained variance", iterations["explained_variance"])]
        for name, values in [*curves, ("validation", [score for _, score in iterations["validations"]])]:
            if any(each is not None for each in values):
                table.add_row(name, over, sparkline(values, CURVE, 0, 1), number(values[-1], ".2f"), "")
    return table


def _rates(reader: Reader, summary: dict[str, Any]) -> Table:
    """PSTHs of the best, median and worst unit."""
    title = f"Firing rates after trial {summary['trial']:,}; median correlation {number(summary['correlation'], '.2f')}"
    table = _table(title, "unit", "condition", "data", "model", "correlation", numeric=(4,))
    for name, index in summary["chosen"].items():
        unit = reader.unit(index)
        for condition, label in enumerate(summary["conditions"][:MOST_CONDITIONS]):
            pair = unit["data"][condition], unit["model"][condition]
            known = [each for values in pair for each in values if each is not None]
            low, high = (min(known), max(known)) if known else (0.0, 1.0)
            about = Text(f"{name}: {unit['id']}" if condition == 0 else "")
            curves = (sparkline(values, RATES, low, high) for values in pair)
            table.add_row(about, Text(label), *curves, number(unit["correlations"][condition], ".2f"))
    return table


def _regions(rows: Sequence[dict[str, Any]]) -> Table:
    """Scores of the regions with most units."""
    table = _table("Regions", "region", "units", "correlation", "ceiling", numeric=(1, 2, 3))
    for row in rows[:MOST_REGIONS]:
        table.add_row(Text(row["name"]), f"{row['units']:,}", number(row["correlation"], ".2f"), number(row["ceiling"], ".2f"))
    return table


def _prediction(content: dict[str, Any]) -> Table:
    """Effects of the perturbations about which the models differ most."""
    title = f"Predicted effects on the mean rate, Hz, of {content['models']} models; those first about which they differ most"
    table = _table(title, "perturbation", "condition", "predicted", "observed", "disagreement", numeric=(2, 3, 4))
    for each in content["perturbations"][:MOST_PERTURBATIONS]:
        for index, condition in enumerate(each["conditions"][:MOST_CONDITIONS]):
            known = [value for value in condition["models"] if value is not None]
            predicted = f"{min(known):.2g} to {max(known):.2g}" if known else UNDEFINED
            first = (Text(each["name"]), number(each["disagreement"], ".2f")) if index == 0 else (Text(""), "")
            table.add_row(first[0], Text(condition["name"]), predicted, number(condition["observed"], ".2f"), first[1])
    return table
