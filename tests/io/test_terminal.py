"""Text for a terminal: lines fit its width, and a command can be pasted."""

import io
import shlex

import pytest

from rlsnet.io import terminal
from rlsnet.io.formatting import counted, number

COMMAND = """rlsnet import session.nwb out.zarr window=[-1,1] conditions.hit="outcome == 'hit' and stimulus == 'go'" trials='a b'"""


def words(text: str) -> list[str]:
    """The words that a shell reads."""
    return shlex.split(text.replace("\\\n", " "))


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_a_sentence_is_wrapped_and_a_command_continued(width):
    sentence = "The network explains 93 % of the variance of the held-out rates; the other half of the trials explains 98 % of it."
    for text in (sentence, f"  {COMMAND}", f"Done. Next: {COMMAND}", f"runs/a: contains a run; {COMMAND} makes a recording."):
        lines = terminal.fitted(text, width).splitlines()
        assert max(map(len, lines)) <= max(width, 2 + 2 + len("conditions.hit=\"outcome == 'hit' and stimulus == 'go'\"") + 2)
        assert " ".join(" ".join(lines).replace(" \\", "").split()) == " ".join(text.split())
    assert words(terminal.fitted(f"  {COMMAND}", width)) == words(COMMAND)
    assert max(map(len, terminal.fitted(sentence, width).splitlines())) <= width


def test_what_fits_is_left_as_it_is():
    table = "a    b\n1  22\n\n  rlsnet runs   # all"
    assert terminal.fitted(table, 40) == table


def test_a_text_goes_on_below_its_second_column_and_a_comment_stands_above_its_command():
    assert terminal.fitted(f"  key    {'word ' * 10}".rstrip(), 40).splitlines()[1].startswith("         word")
    assert terminal.fitted("  rlsnet test runs/first/a  # the trials that are held out", 40).splitlines() == [
        "  # the trials that are held out",
        "  rlsnet test runs/first/a",
    ]
    assert terminal.fitted("Next comes " + "rlsnet test runs/a_name_of_a_run", 40).splitlines()[-1] == "  rlsnet test runs/a_name_of_a_run"


def test_a_file_gets_lines_as_they_are(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "50")
    text, file, screen = "word " * 30, io.StringIO(), Terminal()
    terminal.say(text, file)
    terminal.say(text, screen)
    assert file.getvalue() == text + "\n" and max(map(len, screen.getvalue().splitlines())) <= 50


def test_numbers_as_text():
    assert [counted(n, "unit") for n in (0, 1, 2, 2000)] == ["0 units", "1 unit", "2 units", "2,000 units"]
    assert [number(x, ".2f") for x in (-0.004, 0.004, -0.006, float("nan"), -100.0)] == ["0.00", "0.00", "-0.01", "–", "-100.00"]
