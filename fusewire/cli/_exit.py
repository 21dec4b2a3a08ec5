"""The end of a command that could not run."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

COULD_NOT_RUN = 2


def fail(command: str, why: str) -> NoReturn:
    """Print why a command could not run, and exit with status 2."""
    sys.stdout.flush()
    typer.echo(f"fusewire {command}: {why}", err=True)
    raise typer.Exit(COULD_NOT_RUN)
