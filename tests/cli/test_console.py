"""Output that nobody can read any more, and folders of runs that start in one second."""

import contextlib
import io
import logging
import os
import sys

import pytest
from omegaconf import OmegaConf

from rlsnet.cli import console, main, sweeps
from rlsnet.cli.console import LastingStream, lasting_output
from rlsnet.runs.progress import LogFile


def lost_pipe():
    """A text stream into a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "w")


@pytest.mark.parametrize("place", ["pipe", "/dev/full"])
def test_a_lost_output_is_said_once_in_the_log_and_does_not_end_the_program(place, monkeypatch):
    if place != "pipe" and not os.path.exists(place):
        pytest.skip("no such device here")
    said = []
    monkeypatch.setattr(console.log, "warning", lambda text, *arguments: said.append(text % arguments))
    stream = lost_pipe() if place == "pipe" else open(place, "w")
    lasting = LastingStream(stream)
    for _ in range(3):
        assert lasting.write("line\n") == 5
        lasting.flush()
    stream.close()  # what is buffered goes to the null device
    assert len(said) == 1 and "can no longer be written" in said[0]


@pytest.mark.parametrize("place", ["pipe", "/dev/full"])
def test_a_command_whose_output_is_lost_is_done_to_its_end(place, tmp_path, monkeypatch, capsys):
    """As of each command: here an import of small rates."""
    if place != "pipe" and not os.path.exists(place):
        pytest.skip("no such device here")
    (tmp_path / "rate.csv").write_text("a,b\n" + "1.5,2\n" * 9)
    monkeypatch.setattr(sys, "stdout", stream := lost_pipe() if place == "pipe" else open(place, "w", buffering=1))
    monkeypatch.setattr(sys, "argv", ["rlsnet", "import", f"{tmp_path}/rate.csv", f"{tmp_path}/out.zarr", "bin=20", "axes=[time,unit]"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    stream.close()
    assert (tmp_path / "out.zarr" / "zarr.json").exists()
    said = capsys.readouterr().err
    assert (ended.value.code, said) == (0, "") if place == "pipe" else ended.value.code == 1 and "the standard output could not" in said


def test_names_that_are_no_text_are_in_the_log_with_escapes(tmp_path):
    handler = LogFile(tmp_path / "x.log", encoding="utf-8")
    handler.emit(logging.makeLogRecord({"msg": os.fsdecode(b"m\xfcller")}))
    handler.close()
    assert (tmp_path / "x.log").read_text() == "m\\udcfcller\n"


def test_names_that_are_no_text_are_printed_as_they_are(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with lasting_output():
        print(os.fsdecode(b"m\xfcller"), "\u2013", end="")
    assert raw.getvalue() == b"m\xfcller \\u2013"


def test_print_and_rich_go_on(monkeypatch):
    import rich.console

    stream = lost_pipe()
    monkeypatch.setattr(sys, "stdout", stream)
    with lasting_output():
        for _ in range(3):
            print("text", flush=True)
            rich.console.Console().print("text")  # rich alone ends the program with a lost pipe
    assert sys.stdout is stream
    stream.close()


def test_other_properties_are_those_of_the_stream():
    inner = io.StringIO()
    outer = LastingStream(inner)
    outer.write("text")
    assert outer.getvalue() == "text" and not outer.isatty()
    with contextlib.redirect_stdout(inner):
        console.keep_running()
        assert isinstance(sys.stdout, LastingStream)
        first = sys.stdout
        console.keep_running()
        assert sys.stdout is first
    if isinstance(sys.stderr, LastingStream):
        sys.stderr = sys.stderr._stream


def test_runs_of_one_second_have_a_folder_each(tmp_path):
    made = [sweeps.new_folder(str(tmp_path / "2026" / "10-00-00")) for _ in range(3)]
    assert made == [f"{tmp_path}/2026/10-00-00{end}" for end in ("", "-2", "-3")] and all(map(os.path.isdir, made))
    config = OmegaConf.create({"dir": f"${{new_folder:{tmp_path}/2026/10-00-00}}"})
    assert config.dir == config.dir == f"{tmp_path}/2026/10-00-00-4"  # once in a configuration
    (tmp_path / "file").touch()
    assert sweeps.new_folder(str(tmp_path / "file" / "x")) == str(tmp_path / "file" / "x")  # Hydra tells what is wrong
