"""Compiled kernels in the cache: those that somebody else may have put there are not loaded."""

import pytest

from rlsnet.kernels import build


def test_a_library_that_others_can_write_is_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("RLSNET_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "_compilers", list)
    source = tmp_path / "source.cc"
    source.write_text("")
    library = []
    monkeypatch.setattr(build, "cached", lambda about, suffix: library.append(tmp_path / f"library{suffix}") or library[-1])
    with pytest.raises(RuntimeError, match="no C\\+\\+ compiler"):
        build._build(source, [], ("",), "")
    library[0].write_text("planted")
    library[0].chmod(0o777)
    with pytest.raises(RuntimeError, match="no C\\+\\+ compiler"):
        build._build(source, [], ("",), "")
    library[0].chmod(0o700)
    assert build._build(source, [], ("",), "") == library[0]
