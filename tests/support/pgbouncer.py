"""A PgBouncer in transaction mode in front of a PostgreSQL, as a process of the tests' own.

Its program is Debian's, unpacked to a directory of its own where it is not installed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from pathlib import Path
from typing import Self

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.support.debian import NotInstalledError, run
from tests.support.ports import reserve_port
from tests.support.processes import KeptProcess, reaper
from tests.support.waiting import until_sync

_PACKAGES = ("pgbouncer", "libc-ares2", "libevent-2.1-7")
_LIMIT = 120.0  # seconds to fetch them

_SETTINGS = """\
[databases]
{database} = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
"""


class NoPgBouncerError(RuntimeError):
    """There is no PgBouncer, and none can be had."""


class PgBouncer:
    """A pooler of `size` connections of the server; each transaction has any of them.

    Attributes:
        url: its address, as libpq reads it.
    """

    def __init__(self, postgres_url: str, *, size: int = 3) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="fusewire-pgbouncer-"))
        reaper().tell("path", str(self._folder))
        program, environment = _program(self._folder)
        self._folder.chmod(0o755)
        server = conninfo_to_dict(postgres_url)
        user, database = str(server["user"]), str(server["dbname"])
        port = reserve_port()
        settings = self._folder / "pgbouncer.ini"
        settings.write_text(
            _SETTINGS.format(
                database=database,
                host=server["host"],
                port=server["port"],
                user=user,
                own_port=port,
                size=size,
            )
        )
        # It refuses to run as root.
        nobody = pwd.getpwnam("nobody")
        become = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}"]
        self._process = KeptProcess(
            [*([*become, "--clear-groups"] if os.geteuid() == 0 else []), program, settings],
            env=environment,
            log=self._folder / "log",
        )
        self.url = f"postgresql://{user}@127.0.0.1:{port}/{database}"
        until_sync(self._answers, "PgBouncer answers")

    def _answers(self) -> bool:
        assert self._process.running, (self._folder / "log").read_text()
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()
        shutil.rmtree(self._folder)
        reaper().tell("forget", str(self._folder))


def _program(folder: Path) -> tuple[str, dict[str, str]]:
    """Return the program and its environment.

    Raises:
        NoPgBouncerError: it is not installed, and Debian's package cannot be fetched.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    if installed := shutil.which("pgbouncer", path=path):
        return installed, dict(os.environ)
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise NoPgBouncerError("PgBouncer is not installed, and this is no Debian")
    try:
        run(["apt-get", "download", *_PACKAGES], folder=folder, limit=_LIMIT)
        for package in folder.glob("*.deb"):
            run(["dpkg", "-x", str(package), "unpacked"], folder=folder, limit=_LIMIT)
    except NotInstalledError as error:
        raise NoPgBouncerError(str(error)) from error
    unpacked = folder / "unpacked"
    libraries = {str(file.parent) for file in unpacked.rglob("*.so.*")}
    return (
        str(unpacked / "usr" / "sbin" / "pgbouncer"),
        {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(sorted(libraries))},
    )
