"""Renews the figures of README.md, docs/gallery.md and docs/tutorial.md from a run and its recording, after README's tour.

    rlsnet plot runs/first && rlsnet plot decision.zarr
    python scripts/gallery.py runs/first decision.zarr

The gallery names its figures: gallery/NAME.png is RUN/figures/NAME.png, gallery/recording_NAME.png is NAME.png of the recording. They are
stored with 256 colours each, so that the repository stays small. Exit status 1 if a figure is missing.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).resolve().parents[1] / "docs"
COLOURS = 256
ELSEWHERE = {"tour.png": "psth_heatmaps.png", "tutorial-perturbed.png": "perturbed_silence.png"}  # in docs/: figure of the run


def source(name: str, run: Path, recording: Path) -> Path:
    """The figure that becomes gallery/NAME."""
    part = name.removeprefix("recording_")
    return run / "figures" / name if part == name else recording.with_suffix(".figures") / part


def reduced(image: Image.Image) -> Image.Image:
    """The image with COLOURS colours, chosen to be far apart: a median cut would mix the colours of thin lines, which have few pixels."""
    return image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE)


def main(run: str, recording: str) -> int:
    """Writes the figures; returns the exit status."""
    names = re.findall(r"\]\(gallery/([\w-]+\.png)\)", (DOCS / "gallery.md").read_text())
    figures = {f"gallery/{name}": source(name, Path(run), Path(recording)) for name in names}
    figures |= {place: Path(run) / "figures" / name for place, name in ELSEWHERE.items()}
    missing = [path for path in figures.values() if not path.is_file()]
    for path in missing:
        print(f"{path} does not exist; rlsnet plot draws it.", file=sys.stderr)
    (DOCS / "gallery").mkdir(exist_ok=True)
    for place, path in figures.items() if not missing else ():
        with Image.open(path) as image:
            reduced(image).save(DOCS / place, optimize=True)
        print(f"Wrote docs/{place}.")
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
