"""Files and folders that are replaced: complete or not at all, also by several processes at the same time."""

import os
import subprocess
import sys
import time

import pytest

from rlsnet.io import atomic


def write_folder(path, text):
    path.mkdir()
    (path / "a").write_text(text)


@pytest.mark.parametrize("folder", [False, True])
def test_two_writers_with_the_same_process_number_do_not_disturb_each_other(tmp_path, folder):
    """As on two computers, or in two containers, that share a folder; the last one to finish counts."""
    path = tmp_path / "target"
    write = write_folder if folder else (lambda path, text: path.write_text(text))
    with atomic.replacing(path) as first:
        write(first, "first")
        with atomic.replacing(path) as second:
            write(second, "second")
        assert first.exists()
    assert (path / "a" if folder else path).read_text() == "first"
    assert os.listdir(tmp_path) == ["target"]


def test_a_block_that_fails_changes_nothing(tmp_path):
    path = tmp_path / "target"
    write_folder(path, "before")
    with pytest.raises(ZeroDivisionError), atomic.replacing(path) as temporary:
        write_folder(temporary, "after")
        raise ZeroDivisionError
    assert (path / "a").read_text() == "before" and os.listdir(tmp_path) == ["target"]


def test_folders_replaced_by_several_processes_are_complete(tmp_path):
    code = f"""
import pathlib, time
from rlsnet.io import atomic
path = pathlib.Path({str(tmp_path)!r}) / "target"
for turn in range(60):
    with atomic.replacing(path) as temporary:
        temporary.mkdir()
        for name in "abc":
            (temporary / name).write_text(name)
"""
    writers = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [(each.wait(), each.stderr.read()) for each in writers] == [(0, "")] * 3
    assert os.listdir(tmp_path) == ["target"] and sorted(os.listdir(tmp_path / "target")) == ["a", "b", "c"]


def test_remains_of_killed_processes_are_restored_or_removed(tmp_path, monkeypatch):
    path, other = tmp_path / "target", tmp_path / ".target.1234.tmp"
    write_folder(tmp_path / ".target.5678.old", "before")  # killed between the two renames
    write_folder(other, "half")
    with pytest.raises(ZeroDivisionError), atomic.replacing(path):
        raise ZeroDivisionError
    assert not path.exists() and other.exists()  # another process may be at work
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * atomic.RENAME_SECONDS)
    with pytest.raises(ZeroDivisionError), atomic.replacing(path):
        raise ZeroDivisionError
    assert (path / "a").read_text() == "before" and other.exists()
    monkeypatch.setattr(time, "time", lambda: now + 2 * atomic.STALE_SECONDS)
    with atomic.replacing(path) as temporary:
        write_folder(temporary, "after")
    assert (path / "a").read_text() == "after" and os.listdir(tmp_path) == ["target"]
