"""Compiled kernels in the cache: those that somebody else may have put there are not loaded."""

import pytest

from rlsnet.kernels import build


def test_a_library_that_others_can_write_is_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("RLSNET_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "_compilers", list)
    source = tmp_path / "source.cc"
    source.write_text("")
    monkeypatch.setattr(build, "cached", lambda about, suffix: tmp_path / f"library{suffix}")
    library = tmp_path / "library-of-a-compiler.so"
    with pytest.raises(RuntimeError, match="no C\\+\\+ compiler"):
        build._build([source], [], ("",), "")
    library.write_text("planted")
    library.chmod(0o777)
    with pytest.raises(RuntimeError, match="no C\\+\\+ compiler"):
        build._build([source], [], ("",), "")
    library.chmod(0o700)
    assert build._build([source], [], ("",), "") == library
