"""Loggers are named after their room, so that moving a file changes no user's configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "fusewire"
_MADE = re.compile(r"^(\w+) = logging\.getLogger\((.*)\)$", re.MULTILINE)
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "getLogger" in path.read_text())


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    depth = 3 if parts[1] == "brokers" and len(parts) > 3 else 2
    return ".".join(parts[:depth])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_modules_logger_has_the_name_of_its_room(path: Path) -> None:
    for variable, name in _MADE.findall(path.read_text()):
        assert variable == "logger"
        if path.parent == PACKAGE:  # beneath the rooms: it logs for one of them
            assert (PACKAGE / name.strip('"').removeprefix("fusewire.") / "__init__.py").exists()
        else:
            assert name == f'"{room_of(path)}"'
