"""Renews the figures of docs/gallery.md from a run and its recording, after README's tour.

    rlsnet plot runs/first && rlsnet plot decision.zarr
    python scripts/gallery.py runs/first decision.zarr

The page names its figures: gallery/NAME.png is RUN/figures/NAME.png, gallery/recording_NAME.png is NAME.png of the recording. They are
made smaller, so that the repository stays small. Exit status 1 if a figure is missing.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).resolve().parents[1] / "docs"
WIDTH, COLOURS = 1200, 128


def source(name: str, run: Path, recording: Path) -> Path:
    """The figure that becomes gallery/NAME."""
    part = name.removeprefix("recording_")
    return run / "figures" / name if part == name else recording.with_suffix(".figures") / part


def main(run: str, recording: str) -> int:
    """Writes the figures; returns the exit status."""
    names = re.findall(r"\]\(gallery/([\w-]+\.png)\)", (DOCS / "gallery.md").read_text())
    missing = [path for name in names if not (path := source(name, Path(run), Path(recording))).is_file()]
    for path in missing:
        print(f"{path} does not exist; rlsnet plot draws it.", file=sys.stderr)
    (DOCS / "gallery").mkdir(exist_ok=True)
    for name in names if not missing else ():
        with Image.open(source(name, Path(run), Path(recording))) as image:
            image.thumbnail((WIDTH, 10 * WIDTH))
            image.convert("RGB").quantize(COLOURS).save(DOCS / "gallery" / name, optimize=True)
        print(f"Wrote docs/gallery/{name}.")
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
