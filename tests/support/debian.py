"""Servers that tests need, installed from Debian's packages where they are missing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

INSTALL_VARIABLE = "FUSEWIRE_TEST_INSTALL"

_LIMIT = 600.0  # seconds, for each command
_POLICY = Path("/usr/sbin/policy-rc.d")


class NotInstalledError(RuntimeError):
    """A package could not be installed. The message has what the command said."""


def can_install() -> bool:
    """Return whether the tests may and can install packages of the distribution."""
    return (
        os.geteuid() == 0
        and shutil.which("apt-get") is not None
        and os.environ.get(INSTALL_VARIABLE) != "0"
    )


def install(package: str, is_there: Callable[[], object]) -> None:
    """Install `package`, without starting the services in it.

    Args:
        package: its name.
        is_there: whether it has come to be there meanwhile, by another test run.

    Raises:
        NotInstalledError: that failed.
    """
    with _alone(), _services_stay_down():
        if is_there():
            return
        for command in (
            ["apt-get", "update", "-q"],
            ["apt-get", "install", "-qy", "--no-install-recommends", package],
        ):
            run(command, environment={"DEBIAN_FRONTEND": "noninteractive"})


def run(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    limit: float = _LIMIT,
) -> None:
    """Run a command of Debian's, which has nothing to read.

    Args:
        command: its words.
        folder: where it runs.
        environment: variables besides those of this process.
        limit: seconds that it may take.

    Raises:
        NotInstalledError: it failed.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
        check=False,
    )
    if done.returncode != 0:
        raise NotInstalledError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let one test run at a time install: apt-get refuses to run beside another."""
    with (Path(tempfile.gettempdir()) / "fusewire-tests-install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _services_stay_down() -> Iterator[None]:
    """Keep Debian's packages from starting services, unless the machine has a policy already."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
