"""Notebooks in docs/notebooks: every cell runs, and its output has the form of the stored one."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
REMEDY = "python scripts/notebooks.py stores the outputs anew"
LARGEST = 300_000  # bytes of a picture, as stored


@pytest.fixture(scope="module")
def script():
    """scripts/notebooks.py as a module."""
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "scripts" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def form(outputs: list[dict]) -> list[tuple]:
    """Type, kinds of data and words of each output of a cell, without numbers."""
    found = []
    for output in outputs:
        data = {"text/plain": output["text"]} if output["output_type"] == "stream" else output["data"]
        words = re.findall(r"[A-Za-z_]{2,}", "".join(data.get("text/plain", "")))
        found.append((output["output_type"], sorted(data), words))
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_has_its_stored_outputs(script, path):
    stored = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    pictures = [output["data"]["image/png"] for cell in stored for output in cell["outputs"] if "image/png" in output.get("data", {})]
    assert len(pictures) >= 3 and max(map(len, pictures)) < LARGEST
    assert not re.search(r"/tmp/|/home/|/root/|Traceback", path.read_text())
    for cell, outputs in zip(stored, script.execute(path), strict=True):
        assert form(outputs) == form(cell["outputs"]), f"{path.name}: {''.join(cell['source'])}\n{REMEDY}"


def test_a_cell_that_fails_or_prints_something_else_is_found(script, tmp_path):
    cells = [{"cell_type": "code", "source": source} for source in ("x = 1 + 1\nx", "print('two', x)", "x / 0")]
    path = tmp_path / "wrong.ipynb"
    path.write_text(json.dumps({"cells": cells[:2]}))
    value, printed = script.execute(path)
    assert value[0]["data"]["text/plain"] == "2" and printed[0]["text"] == "two 2\n"
    assert form(printed) == form([{"output_type": "stream", "text": "two 3\n"}]) != form([{"output_type": "stream", "text": "three 2\n"}])
    path.write_text(json.dumps({"cells": cells}))
    with pytest.raises(ZeroDivisionError):
        script.execute(path)
