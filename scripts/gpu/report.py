"""Results of gpu_check.sh so far, from its working folder, as gpu.json and gpu.md: python report.py WORK OUT."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import bench_report
from validate import recorded


def text(path: Path) -> str:
    """The content of a file; empty where there is none."""
    return path.read_text(errors="replace") if path.exists() else ""


def collect(work: Path) -> dict[str, Any]:
    """All that the parts have left in the working folder."""
    parts = [line.split("\t") for line in text(work / "parts.tsv").splitlines()]
    state = {name: status for name, status, _ in parts}
    environment = text(work / "environment.txt").splitlines()[-1:] if state.get("environment") == "passed" else []
    tests = ElementTree.parse(work / "tests.xml").iter("testcase") if (work / "tests.xml").exists() else []
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "environment": json.loads(environment[0]) if environment else None,
        "parts": [{"part": name, "status": status, "seconds": int(seconds)} for name, status, seconds in parts],
        "tests": [row._asdict() for test in tests for row in recorded(test)],
        **{name: json.loads(text(work / f"{name}.json") or '{"results": {}}')["results"] for name in ("bench", "bench_xla")},
        **{name: text(work / f"{name}.txt").splitlines() for name in ("profile", "hardware", "model")},
    }


def document(results: dict[str, Any], work: Path) -> str:
    """The results as a Markdown page."""
    about = results["environment"] or {}
    lines = [
        f"# rlsnet on {about.get('device', 'no device')}",
        "",
        f"{results['date']}: " + ", ".join(f"{key} {value}" for key, value in about.items()),
        "",
    ]
    lines += ["| part | result | seconds |", "|---|---|---|"]
    lines += [f"| {part['part']} | {part['status']} | {part['seconds']} |" for part in results["parts"]]
    if results["tests"]:
        lines += ["", "| test | compared | expected | seen |", "|---|---|---|---|"]
        lines += [f"| {row['name']} | {row['quantity']} | {row['expected']} | {row['measured']} |" for row in results["tests"]]
    for name, title in (("bench", "Seconds"), ("bench_xla", "Seconds with XLA instead of the CUDA kernels")):
        if results[name]:
            lines += ["", f"{title} (`scripts/bench.py`):", "", bench_report.table(results[name])]
    for name in ("profile", "hardware"):
        if results[name]:
            lines += ["", f"{name.capitalize()}:", "", *(f"    {line}" for line in results[name])]
    if results["model"]:
        lines += ["", "Least times (`scripts/gpu/model.py`):", "", *results["model"]]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes both files."""
    work, out = (Path(argument) for argument in sys.argv[1:])
    results = collect(work)
    (out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
    (out / "gpu.md").write_text(document(results, work))


if __name__ == "__main__":
    main()
