"""Runs the notebooks in docs/notebooks in this process, and stores their outputs: python scripts/notebooks.py [NAME ...].

Each notebook runs in an empty folder of its own. IPython executes the cells, without a kernel, as tests/test_notebooks.py does too.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"


@contextlib.contextmanager
def _shell() -> Iterator[Any]:
    """An IPython shell that shows figures as images, without the history and the settings of the user."""
    import matplotlib.pyplot as plt
    from IPython.core.displayhook import DisplayHook
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.core.pylabtools import select_figure_formats
    from traitlets.config import Config

    class Hook(DisplayHook):
        def write_output_prompt(self) -> None:
            """No prompt."""

        def write_format_data(self, format_dict: dict[str, Any], md_dict: Any = None) -> None:
            """Keeps the value of a cell in the forms that notebooks show."""
            self.shell.values.append(format_dict)

    class Shell(InteractiveShell):
        displayhook_class = Hook
        values: list[dict[str, Any]] = []

        def enable_gui(self, gui: Any = None) -> None:
            """No window system."""

    backend = plt.get_backend()
    shell = Shell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    plt.close("all")  # of this process, which the first cell would show
    shell.run_line_magic("matplotlib", "inline")
    select_figure_formats(shell, {"png"})  # which that command does in the first shell of a process alone
    try:
        yield shell
    finally:
        plt.close("all")
        Shell.clear_instance()
        plt.rcdefaults()
        plt.switch_backend(backend)


def outputs_of(shell: Any, source: str) -> list[dict[str, Any]]:
    """Outputs of one code cell in the notebook format; raises the exception that the cell raises."""
    from IPython.utils.capture import capture_output

    shell.values.clear()
    with capture_output() as captured:
        result = shell.run_cell(source, store_history=True)
    result.raise_error()
    found: list[dict[str, Any]] = []
    if captured.stdout:
        found.append({"output_type": "stream", "name": "stdout", "text": captured.stdout})
    values = [{"output_type": "execute_result", "execution_count": shell.execution_count - 1, "data": each} for each in shell.values]
    figures = [{"output_type": "display_data", "data": each.data} for each in captured.outputs]
    for each in values + figures:
        each["data"] = {
            kind: base64.b64encode(value).decode() if isinstance(value, bytes) else value for kind, value in each["data"].items()
        }
        found.append({**each, "metadata": {}})
    return found


def execute(path: Path) -> list[list[dict[str, Any]]]:
    """Outputs of each code cell of a notebook, run in an empty folder; raises the exception of the first cell that fails."""
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder, _shell() as shell:
        os.chdir(folder)
        try:
            return [outputs_of(shell, "".join(cell["source"])) for cell in cells]
        finally:
            os.chdir(before)


def write(path: Path) -> None:
    """Runs a notebook and stores the outputs in it."""
    notebook, found = json.loads(path.read_text()), execute(path)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, (cell, outputs) in enumerate(zip(code, found, strict=True), 1):
        cell["execution_count"], cell["outputs"] = number, outputs
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    print(f"{path}: {len(code)} cells, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=sorted(each.stem for each in FOLDER.glob("*.ipynb")))
    for name in parser.parse_args().names:
        write(FOLDER / f"{name}.ipynb")
