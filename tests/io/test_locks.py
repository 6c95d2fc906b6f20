"""Lock of a folder, with flock and on a file system without it."""

import errno
import fcntl
import json
import os
import platform
import subprocess
import sys

import pytest

from rlsnet.errors import UserError
from rlsnet.io import atomic, locks
from rlsnet.runs.folder import Run

HOLD = """
import sys
from rlsnet.runs.folder import Run
{patch}
with Run(sys.argv[1]).claimed():
    print("held", flush=True)
    sys.stdin.read()
"""
PATCH = """
import errno, fcntl
def refuse(*arguments):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = refuse
"""


@pytest.fixture(params=["flock", "ENOLCK", "EOPNOTSUPP", "ENOSYS"])
def kind(request, monkeypatch):
    if request.param != "flock":

        def refuse(*arguments):
            raise OSError(getattr(errno, request.param), "no locks")

        monkeypatch.setattr(fcntl, "flock", refuse)
    return request.param


def test_one_holder_at_a_time_and_none_afterwards(tmp_path, kind, caplog):
    run = Run(tmp_path / "run")
    for _ in range(2):
        with run.claimed():
            assert run.busy()
            with pytest.raises(UserError, match="another process uses this folder"), Run(run.path).claimed():
                pass
        assert not run.busy() and os.listdir(run.path) == [".lock"]
    assert ("has no locks" in caplog.text) == (kind != "flock")


def test_another_process_is_named_and_when_it_is_killed_the_folder_is_free(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    run, script = Run(tmp_path / "run"), HOLD.format(patch=PATCH)
    process = subprocess.Popen([sys.executable, "-c", script, run.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n" and run.busy()
    with pytest.raises(UserError, match=f"another process uses this folder .process {process.pid} on this computer"), run.claimed():
        pass
    process.kill()
    process.communicate()
    assert not run.busy()
    with run.claimed():
        assert run.busy()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"host": "elsewhere", "pid": 1}), "process 1 on elsewhere; if it has ended, remove .*/.lock.holder"),
        ("{", "does not say which; remove it if none does"),
    ],
)
def test_what_may_run_elsewhere_keeps_its_lock(tmp_path, monkeypatch, text, message):
    def refuse(*arguments):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    run = Run(tmp_path)
    (tmp_path / ".lock").touch()
    (tmp_path / ".lock.holder").write_text(text)
    with pytest.raises(UserError, match=message), run.claimed():
        pass
    assert run.busy() and (tmp_path / ".lock.holder").read_text() == text


def test_a_process_of_this_number_before_a_container_started_again_counts_no_longer(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".lock.holder").write_text(json.dumps({"host": platform.node(), "pid": os.getpid()}))
    with Run(tmp_path).claimed():
        assert Run(tmp_path).busy()


def test_other_errors_of_a_lock_are_not_hidden(tmp_path, monkeypatch):
    def broken(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output error"), Run(tmp_path).claimed():
        pass


def test_a_cache_that_is_made_needs_no_lock(tmp_path, kind):
    with atomic.locked(tmp_path / "made"):
        (tmp_path / "made").touch()
    assert (tmp_path / "made").exists()


def test_a_look_at_the_lock_refuses_nobody(tmp_path, monkeypatch):
    """A process that looks whether a run goes on has the lock for an instant, in which a run may start."""
    run, waits = Run(tmp_path / "run"), []
    with run.claimed():
        pass
    with (run.path / ".lock").open() as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        with pytest.raises(UserError, match="another process uses this folder"), run.claimed():
            pass  # one who has the lock for longer is no look
        monkeypatch.setattr(locks.time, "sleep", lambda seconds: (waits.append(seconds), fcntl.flock(look, fcntl.LOCK_UN)))
        with run.claimed():
            assert run.busy()
    assert waits == [0.05]
