"""The ``fusewire`` command."""

from __future__ import annotations

import sys

_NEEDED = {"typer", "click", "rich"}


def main() -> None:
    """Run the command line: the entry point of ``fusewire``."""
    # Imported here: the command's dependencies are an extra that the library does not need.
    try:
        from fusewire.cli._app import app  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _NEEDED:
            raise
        sys.exit(
            f"the fusewire command needs {missing}, which is not installed: "
            "pip install 'fusewire[cli]'"
        )
    app()
