"""Files and folders that are replaced: complete or not at all, also by several processes at the same time."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlsnet.errors import os_error
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
from rlsnet.errors import os_error
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
    """Of another computer: by their age."""
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


KILLED = """
import os, pathlib, signal
from rlsnet.io import atomic
path = pathlib.Path(os.environ["TARGET"])
with atomic.replacing(path) as temporary:
    temporary.mkdir()
    (temporary / "a").write_text("half")
    if os.environ["MOMENT"] == "renaming":
        path.rename(atomic._unique(path, "old"))
    if os.environ["MOMENT"] == "alive":
        print("ready", flush=True)
        input()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(path, moment):
    """A process that is killed while it replaces `path`, or waits then."""
    environment = {**os.environ, "TARGET": str(path), "MOMENT": moment}
    process = subprocess.Popen([sys.executable, "-c", KILLED], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n" if moment == "alive" else process.wait() < 0
    return process


def test_remains_of_a_process_of_this_computer_go_when_it_is_dead(tmp_path, monkeypatch):
    path, file = tmp_path / "target", tmp_path / ".target.notes.tmp"
    write_folder(path, "before")
    file.write_text("not of rlsnet")
    killed(path, "writing")
    killed(path, "renaming")  # removes what the other one has left
    assert len(os.listdir(tmp_path)) == 3 and not path.exists()
    alive = killed(path, "alive")
    (mine,) = [name for name in os.listdir(tmp_path) if f"-{alive.pid}-" in name]
    assert (path / "a").read_text() == "before" and sorted(os.listdir(tmp_path)) == sorted(["target", mine, file.name])
    for locked in (False, True):
        monkeypatch.setattr(atomic, "_host", lambda locked=locked: "0" * 12 if locked else "f" * 12)
        atomic.remove_leftovers(tmp_path)  # as on other computers, where the number of the process says nothing
        assert (tmp_path / mine).exists()
    monkeypatch.undo()
    atomic.remove_leftovers(tmp_path, "other", locked=True)
    assert (tmp_path / mine).exists()
    alive.kill()
    alive.wait()
    renamed = mine.replace(f"-{alive.pid}-", f"-{os.getpid()}-")  # a later process got its number
    (tmp_path / mine).rename(tmp_path / renamed)
    atomic.remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(["target", file.name])


def test_of_a_symbolic_link_the_link_alone_is_replaced(tmp_path):
    write_folder(tmp_path / "elsewhere", "precious")
    path = tmp_path / "target"
    path.symlink_to(tmp_path / "elsewhere")
    with atomic.replacing(path) as temporary:
        write_folder(temporary, "after")
    assert (path / "a").read_text() == "after" and not path.is_symlink() and (tmp_path / "elsewhere" / "a").read_text() == "precious"


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is a call of Linux")
def test_a_folder_that_is_replaced_is_at_all_times_there(tmp_path, monkeypatch):
    """Nothing is renamed away first: also a process killed at any moment leaves the old folder or the new one."""
    path, renamed = tmp_path / "target", []
    write_folder(path, "before")
    monkeypatch.setattr(Path, "rename", lambda *paths: renamed.append(paths))
    with atomic.replacing(path) as temporary:
        write_folder(temporary, "after")
    assert (path / "a").read_text() == "after" and os.listdir(tmp_path) == ["target"] and not renamed


def test_without_the_call_of_linux_a_folder_is_replaced_by_two_renames(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_exchange", lambda *paths: False)
    path = tmp_path / "target"
    for text in ("before", "after"):
        with atomic.replacing(path) as temporary:
            write_folder(temporary, text)
    assert (path / "a").read_text() == "after" and os.listdir(tmp_path) == ["target"]


def test_an_error_without_a_file_names_the_path(tmp_path):
    with pytest.raises(OSError) as caught, atomic.replacing(tmp_path / "target"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert os_error(caught.value) == f"{tmp_path}/target: No space left on device."


def test_without_a_home_folder_the_cache_is_temporary(tmp_path):
    """As the user of a container who is not in its list of users."""
    (tmp_path / "sitecustomize.py").write_text("import pwd\ndef none(user): raise KeyError(user)\npwd.getpwuid = none\n")
    code = "from rlsnet.io import atomic; path = atomic.cache_dir(); print(path, path.is_dir(), oct(path.stat().st_mode & 0o777))"
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "RLSNET_CACHE", "XDG_CACHE_HOME")}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    path, *rest = done.stdout.split()
    assert rest == ["True", "0o700"] and not os.path.exists(path), done.stderr
    assert "no home folder" in done.stderr and "RLSNET_CACHE=FOLDER" in done.stderr and os.listdir(tmp_path) == ["sitecustomize.py"]


def test_a_full_folder_refuses(tmp_path, monkeypatch):
    assert atomic.refusal(tmp_path / "cache") is None and os.listdir(tmp_path / "cache") == []
    (tmp_path / "file").touch()
    assert atomic.refusal(tmp_path / "file" / "cache") == "Not a directory"
    if os.path.exists("/dev/full"):
        monkeypatch.setattr(atomic.tempfile, "NamedTemporaryFile", lambda **options: open("/dev/full", "wb", buffering=0))
        assert atomic.refusal(tmp_path) == "No space left on device"


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_a_cache_that_others_can_write_is_not_used(tmp_path, monkeypatch, mode):
    given, usual = tmp_path / "given", tmp_path / "home" / "rlsnet"
    given.mkdir()
    monkeypatch.setenv("RLSNET_CACHE", str(given))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert atomic.cache_dir() == given
    given.chmod(mode)
    assert atomic.cache_dir() == usual and atomic.is_private(usual)
    usual.chmod(mode)
    temporary = atomic.cache_dir()
    assert temporary not in (given, usual) and atomic.is_private(temporary)
    monkeypatch.setenv("RLSNET_CACHE", str(tmp_path / "link"))  # such as from a home folder to a larger disk
    (tmp_path / "link").symlink_to(temporary)
    assert atomic.cache_dir() == tmp_path / "link"


def test_a_cache_of_somebody_else_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("RLSNET_CACHE", str(tmp_path / "given"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "given").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    owner = os.stat(tmp_path).st_uid
    assert atomic.is_private(tmp_path / "given") == (owner == 0)  # what belongs to the administrator is used
    is_private = atomic.is_private
    monkeypatch.setattr(atomic, "is_private", lambda path: path.name != "given" and (owner != 0 or is_private(path)))
    assert atomic.cache_dir() == tmp_path / "rlsnet"


def test_programs_that_others_could_have_put_into_the_cache_are_neither_used_nor_removed(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("RLSNET_CACHE", str(tmp_path))
    folder = atomic.cache_of_programs("kernels")
    (folder / "mine.so").write_text("")
    assert (atomic.cache_of_programs("kernels") / "mine.so").exists() and not caplog.messages
    folder.chmod(0o775)  # as of a folder that the user has made, for something else
    other = atomic.cache_of_programs("kernels")
    assert atomic.is_private(other) and list(other.iterdir()) == [] and other == atomic.cache_of_programs("kernels")
    assert other.parent == tmp_path and len(caplog.messages) == 1 and str(folder) in caplog.text
    (tmp_path / "jax").symlink_to(other)
    (tmp_path / "rlsnet-jax").write_text("notes")
    temporary = atomic.cache_of_programs("jax")
    assert temporary.parent.parent != tmp_path and atomic.is_private(temporary.parent)
    assert (folder / "mine.so").exists() and (tmp_path / "jax").is_symlink() and (tmp_path / "rlsnet-jax").read_text() == "notes"
