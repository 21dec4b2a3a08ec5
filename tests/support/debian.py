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
    from collections.abc import Callable, Iterator

INSTALL_VARIABLE = "FUSEWIRE_TEST_INSTALL"

_LIMIT = 600.0  # seconds, for each apt-get command
_POLICY = Path("/usr/sbin/policy-rc.d")


class NotInstalledError(RuntimeError):
    """A package could not be installed. The message has what apt-get said."""


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
            done = subprocess.run(
                command,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_LIMIT,
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
