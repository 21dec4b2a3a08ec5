"""How commands end that could not be run."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

COULD_NOT_RUN = 2


def fail(command: str, why: str) -> NoReturn:
    """Say why a command could not be run, and end with the status that says so."""
    sys.stdout.flush()
    typer.echo(f"fusewire {command}: {why}", err=True)
    raise typer.Exit(COULD_NOT_RUN)
