"""Output for people, who copy lines, and for programs."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


class Format(StrEnum):
    """The format of the output."""

    TEXT = "text"
    JSON = "json"


def echo(console: Console, line: str, *, style: str | None = None) -> None:
    """Print a line as it is, without line breaks: people copy commands from it."""
    console.print(line, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)
