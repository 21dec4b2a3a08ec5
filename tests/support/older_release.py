"""An older release of Fusewire, out of the repository's own history, for fleets of two releases."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

OLDER = "96d0bde"  # the last commit before stored messages got headers and columns of their own
ROOT = Path(__file__).parents[2]


def extract_older_release(factory: pytest.TempPathFactory) -> Path:
    """Provide a folder with its package; skip the test where the history does not go back to it."""
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", "--format=tar", OLDER, "fusewire"],
        capture_output=True,
        check=False,
    )
    if archive.returncode:
        pytest.skip(f"needs the history back to {OLDER}: {archive.stderr.decode().strip()}")
    folder = factory.mktemp("older")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder
