"""A file can be read at a sitting: no Python file is long."""

from __future__ import annotations

from tests.support.checkout import ROOT, committed

MOST = 400  # lines


def test_no_python_file_is_longer_than_400_lines() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines())
        for path in committed()
        if path.suffix == ".py"
        and "_pb2" not in path.name  # generated
        and path.exists()
    }
    assert lengths
    assert {name: length for name, length in lengths.items() if length > MOST} == {}
