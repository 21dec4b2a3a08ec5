"""Printing for people, who copy lines, and for programs."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


class Format(StrEnum):
    """How to print."""

    TEXT = "text"
    JSON = "json"


def say(console: Console, line: str, *, style: str | None = None) -> None:
    """Print a line as it is: one that is to be copied is not broken."""
    console.print(line, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)
