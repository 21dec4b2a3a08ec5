"""The ``fusewire`` command."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_shows_its_version() -> None:
    done = run("from fusewire.cli import main; main()", "--version")
    assert (done.returncode, done.stdout) == (0, f"fusewire {version('fusewire')}\n")


def test_the_command_lists_its_commands() -> None:
    done = run("from fusewire.cli import main; main()", "--help")
    assert done.returncode == 0
    assert "demo" in done.stdout


@pytest.mark.parametrize(
    ("missing", "extra"),
    [("typer", "fusewire[cli]"), ("rich", "fusewire["), ("jinja2", "fusewire[demo]")],
)
def test_without_its_extra_the_command_says_what_to_install(missing: str, extra: str) -> None:
    # None in sys.modules is how Python itself is told that a module is not there.
    program = f"import sys; sys.modules[{missing!r}] = None; from fusewire.cli import main; main()"
    done = run(program, "demo", "--outage", "0")
    assert done.returncode != 0
    assert f"pip install '{extra}" in done.stderr
    assert missing in done.stderr
    assert "Traceback" not in done.stderr


def test_the_rest_of_the_library_does_without_the_extras() -> None:
    done = run(
        "import sys\n"
        "import fusewire, fusewire.cli, fusewire.forwarding, fusewire.demo.server\n"
        "assert not {'typer', 'rich', 'click', 'jinja2'} & sys.modules.keys()"
    )
    assert done.returncode == 0, done.stderr
