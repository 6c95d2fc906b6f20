"""What a command may replace: what rlsnet made, and no file of the user's."""

import json

import numpy as np
import pytest
import zarr

from rlsnet.analysis.plots import style
from rlsnet.data import importing, recordings
from rlsnet.data.import_options import Options
from rlsnet.errors import UserError
from rlsnet.exports.writer import FORMATS, format_module
from rlsnet.io import outputs
from rlsnet.io.outputs import html_file


def foreign(path, kind):
    """Something that is not to be replaced, under a name that the user gives for an output."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
        (path / "thesis.txt").write_text("precious")
    elif kind in ("link", "broken link"):
        real = path.parent / "real"
        if kind == "link":
            zarr.create_group(str(real), attributes={"format": recordings.FORMAT})
        path.symlink_to(real)
    elif kind == "recording with notes":
        zarr.create_group(str(path), attributes={"format": recordings.FORMAT})["rate"] = np.ones((1, 2, 3))
        (path / "notes.txt").write_text("precious")
    else:
        attributes = {"Zarr store": {}, "Zarr store of another tool": {"format": "mine"}, "network": {"format": "rlsnet-network"}}[kind]
        zarr.create_group(str(path), attributes=attributes)["precious"] = np.ones(3)
    return sorted(str(each) for each in path.parent.rglob("*"))


KINDS = ("file", "folder", "link", "broken link", "Zarr store", "Zarr store of another tool", "network", "recording with notes")


@pytest.mark.parametrize("kind", KINDS)
def test_import_replaces_recordings_alone(tmp_path, kind):
    np.save(tmp_path / "rate.npy", np.random.default_rng(0).uniform(1, 9, (30, 8)))
    out = tmp_path / "out" / "mine.zarr"
    before = foreign(out, kind)
    with pytest.raises(UserError, match="is not a Zarr store that rlsnet import wrote|is a symbolic link") as error:
        importing.import_sources([tmp_path / "rate.npy"], out, Options(overwrite=True))
    assert str(out) in str(error.value) and sorted(str(each) for each in out.parent.rglob("*")) == before


def test_import_replaces_a_recording_when_asked(tmp_path):
    for name, units in (("a.npy", 8), ("b.npy", 9)):
        np.save(tmp_path / name, np.random.default_rng(0).uniform(1, 9, (30, units)))
    out = tmp_path / "mine.zarr"
    importing.import_sources([tmp_path / "a.npy"], out, log=lambda line: None)
    with pytest.raises(UserError, match=r"mine.zarr: exists already; expected overwrite=true to replace it"):
        importing.import_sources([tmp_path / "b.npy"], out, log=lambda line: None)
    assert zarr.open_group(str(out), mode="r")["rate"].shape[2] == 8
    importing.import_sources([tmp_path / "b.npy"], out, Options(overwrite=True), log=lambda line: None)
    group = zarr.open_group(str(out), mode="r")
    assert group["rate"].shape[2] == 9 and "overwrite" not in group.attrs["import"]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_export_replaces_exports_alone(tmp_path, format, kind):
    path = tmp_path / "out"
    foreign(path, kind)
    module = format_module(format)
    with pytest.raises(UserError, match="is not an export|is a symbolic link"):
        outputs.check_free(path, module.is_export, "an export", "out=", overwrite=True)


@pytest.mark.parametrize(
    ("format", "marker", "content"),
    [
        ("npz", "about.json", {}),
        ("npz", "about.json", []),
        ("npz", "about.json", {"format": "of-another-tool"}),
        ("sonata", "circuit_config.json", {"networks": {}}),
        ("nest", "network.json", {"format": "rlsnet-simulation"}),
        ("brian2", "network.json", {}),
        ("zarr", "zarr.json", {"attributes": None}),
    ],
)
def test_a_file_of_the_same_name_is_no_mark_of_an_export(tmp_path, format, marker, content):
    (tmp_path / marker).write_text(json.dumps(content))
    assert not format_module(format).is_export(tmp_path)


def test_pages_replace_pages_of_rlsnet_alone(tmp_path):
    page, mine, link = tmp_path / "page.html", tmp_path / "mine.html", tmp_path / "link.html"
    page.write_text('<!DOCTYPE html>\n<meta name="generator" content="rlsnet 0.1.0">')
    mine.write_text("<p>written about rlsnet by hand</p>")
    link.symlink_to(page)
    for path, message in ((mine, "is not a page that rlsnet wrote"), (link, "is a symbolic link to"), (tmp_path, "a folder")):
        with pytest.raises(UserError, match=message):
            html_file(str(path), page, overwrite=True)
    with pytest.raises(UserError, match="exists already; expected overwrite=true"):
        html_file(str(page), page, overwrite=False)
    assert html_file(str(page), mine, overwrite=True) == html_file(None, page, overwrite=False) == page
    with pytest.raises(UserError, match="is not a page that rlsnet wrote"):
        html_file(None, mine, overwrite=False)  # RUN/report.html by hand


def test_figures_replace_figures_of_rlsnet_alone(tmp_path):
    import matplotlib.figure

    style.PanelFigure("A title", (style.Panel("drawn", lambda axes: axes[0].plot([1, 2])),)).save(tmp_path / "ours.png")
    matplotlib.figure.Figure((1, 1)).savefig(tmp_path / "theirs.png")
    style.check_files(tmp_path, ["ours", "new"])
    for kind in ("pdf", "svg"):
        style.PanelFigure("A title", (style.Panel("drawn", lambda axes: axes[0].plot([1, 2])),)).save(tmp_path / f"ours.{kind}")
        matplotlib.figure.Figure((1, 1)).savefig(tmp_path / f"theirs.{kind}")
        style.check_files(tmp_path, ["ours", "new"], kind)
        with pytest.raises(UserError, match=f"theirs.{kind}: .*without the mark"):
            style.check_files(tmp_path, ["theirs"], kind)
    assert b">A title</text>" in (tmp_path / "ours.svg").read_bytes() and (tmp_path / "ours.pdf").read_bytes().startswith(b"%PDF")
    (tmp_path / "link.png").symlink_to(tmp_path / "ours.png")
    for name, message in (("theirs", "without the mark .* out=FOLDER"), ("link", "symbolic link")):
        with pytest.raises(UserError, match=f"{name}.png: .*{message}"):
            style.check_files(tmp_path, ["ours", name])
