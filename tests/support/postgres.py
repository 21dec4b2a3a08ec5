"""The PostgreSQL that the tests use: which one it is, and how to reach it.

One of three, the first that can be had:

1. the one at ``FUSEWIRE_TEST_POSTGRES_URL``;
2. a container of ``FUSEWIRE_TEST_POSTGRES_IMAGE`` (``postgres:17-alpine``), where a Docker engine
   answers and has, or can pull, the image;
3. a private cluster, a process on a free loopback port with a directory of its own. Its programs
   are installed from Debian's packages where they are missing, the tests run as root, and
   ``FUSEWIRE_TEST_INSTALL`` is not ``0``.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Protocol

import docker
import psycopg
from docker.errors import DockerException, ImageNotFound
from requests import RequestException
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from tests.support.debian import INSTALL_VARIABLE, NotInstalledError, can_install, install
from tests.support.ports import reserve_port
from tests.support.processes import KeptProcess, reaper
from tests.support.rabbitmq_container import docker_answers
from tests.support.waiting import until_sync

URL_VARIABLE = "FUSEWIRE_TEST_POSTGRES_URL"
IMAGE_VARIABLE = "FUSEWIRE_TEST_POSTGRES_IMAGE"

_START_LIMIT = 60.0  # seconds
_TRIES = 3  # another process may take a port between our look and the start
_DEBIAN = Path("/usr/lib/postgresql")
_USER = "fusewire"

# What is lost with the machine may be lost: the tests kill processes.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
}


class NoPostgresError(RuntimeError):
    """There is no PostgreSQL, and none can be had. The message says what to do."""


class Postgres(Protocol):
    """A PostgreSQL for tests."""

    how: str

    @property
    def url(self) -> str:
        """Its address, as libpq reads it."""

    def close(self) -> None:
        """Release it: end it if it is ours."""


class GivenPostgres:
    """The PostgreSQL that the environment names, or another process of this test run started."""

    how = URL_VARIABLE

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError as error:
            raise NoPostgresError(f"no PostgreSQL answers at {URL_VARIABLE}: {error}") from error

    def close(self) -> None:
        """Leave it as it is."""


def find_programs() -> Path | None:
    """Find the folder of the programs `initdb` and `postgres`, the newest of several."""
    for name in sorted(_DEBIAN.glob("*/bin"), key=lambda path: path.parent.name, reverse=True):
        if (name / "initdb").exists() and (name / "postgres").exists():
            return name
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found and shutil.which("postgres") else None


class PrivatePostgres:
    """A cluster of the tests' own: starts when made, and ends with the tests at the latest."""

    how = "a private cluster"

    def __init__(self, *, fsync: bool = False) -> None:
        self._settings = _SETTINGS | {"fsync": "on" if fsync else "off"}
        programs = find_programs()
        if programs is None:
            raise NoPostgresError("PostgreSQL is not installed")
        self._programs = programs
        self._directory = Path(tempfile.mkdtemp(prefix="fusewire-postgres-"))
        reaper().tell("path", str(self._directory))
        self._process: KeptProcess | None = None
        # PostgreSQL refuses to run as root.
        self._become: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            os.chown(self._directory, user.pw_uid, user.pw_gid)
            self._become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}"]
            self._become.append("--clear-groups")
        self._data = self._directory / "data"
        try:
            self._make()
            self._start_somewhere()
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        done = subprocess.run(
            [
                *self._become,
                self._programs / "initdb",
                f"--pgdata={self._data}",
                f"--username={_USER}",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_START_LIMIT,
            check=False,
        )
        if done.returncode != 0:
            raise NoPostgresError(f"initdb failed:\n{done.stdout[-2000:]}")

    def _start_somewhere(self) -> None:
        for left in reversed(range(_TRIES)):
            self.port = reserve_port()
            self.url = f"postgresql://{_USER}@127.0.0.1:{self.port}/postgres"
            try:
                self.start()
            except NoPostgresError:
                if not left:
                    raise
            else:
                return

    def start(self) -> None:
        """Start it, or start it again after its end, at the same address."""
        log = self._directory / "log"
        self._process = KeptProcess(
            [
                *self._become,
                self._programs / "postgres",
                f"-D{self._data}",
                f"-p{self.port}",
                *(f"-c{name}={value}" for name, value in self._settings.items()),
            ],
            cwd=Path("/"),
            log=log,
        )

        def answers() -> bool:
            assert self._process is not None
            if not self._process.running:
                raise NoPostgresError(f"it ended:\n{log.read_text(errors='replace')[-2000:]}")
            return _answers(self.url)

        until_sync(answers, "PostgreSQL answers", limit=_START_LIMIT)

    def crash(self) -> None:
        """End it without a checkpoint, as `pg_ctl stop -m immediate` does; its data stay."""
        if self._process is not None:
            self._process.send_alone(signal.SIGQUIT)
            self._process.wait(_START_LIMIT)
            self._process = None

    def kill(self) -> None:
        """End it at once, with all its processes; its data stay."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def close(self) -> None:
        """End it, and remove its data."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)
        reaper().tell("forget", str(self._directory))


class PostgresContainer:
    """A PostgreSQL in a container: starts when made, and ends with the tests at the latest."""

    def __init__(self) -> None:
        image = os.environ.get(IMAGE_VARIABLE) or "postgres:17-alpine"
        self.how = f"testcontainers ({image})"
        testcontainers_config.ryuk_disabled = True  # the tests' own reaper removes the container
        name = f"fusewire-tests-{secrets.token_hex(6)}"
        self._removal = [sys.executable, "-c", _REMOVE, name]
        reaper().tell("command", self._removal)  # before there is one to remove
        _have_image(image)
        self._container = DockerContainer(image, name=name)
        self._container.with_env("POSTGRES_USER", _USER)
        self._container.with_env("POSTGRES_HOST_AUTH_METHOD", "trust")
        self._container.with_exposed_ports(5432)
        try:
            self._container.start()
            host, port = (
                self._container.get_container_host_ip(),
                self._container.get_exposed_port(5432),
            )
            self.url = f"postgresql://{_USER}@{host}:{port}/postgres"
            until_sync(lambda: _answers(self.url), "PostgreSQL answers", limit=_START_LIMIT)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the container, with its data."""
        self._container.stop()
        reaper().tell("forget", self._removal)


_REMOVE = """
import sys, docker
docker.from_env(timeout=20).containers.get(sys.argv[1]).remove(force=True, v=True)
"""


def _have_image(image: str) -> None:
    client = docker.from_env(timeout=60)
    try:
        try:
            client.images.get(image)
        except ImageNotFound:
            client.images.pull(image)
    except (DockerException, RequestException) as error:
        raise NoPostgresError(f"the image {image} cannot be had: {error}") from error
    finally:
        client.close()


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        time.sleep(0.02)
        return False
    return True


class SharedPostgres:
    """The PostgreSQL of a test run, found or started once, when the first test asks for it.

    Args:
        url: the address of the one that another process of this test run has started.
    """

    def __init__(self, url: str | None = None) -> None:
        self._url = url
        self._chosen: Postgres | None = None
        self._failure: NoPostgresError | None = None

    def get(self) -> Postgres:
        """Return it.

        Raises:
            NoPostgresError: there is none; it is looked for once only.
        """
        if self._failure is not None:
            raise self._failure
        if self._chosen is None:
            try:
                url = self._url or os.environ.get(URL_VARIABLE)
                self._chosen = GivenPostgres(url) if url else _start()
            except NoPostgresError as error:
                self._failure = error
                raise
        return self._chosen

    def close(self) -> None:
        """End it, where it is ours."""
        if self._chosen is not None:
            self._chosen.close()
            self._chosen = None


def _start() -> Postgres:
    if docker_answers():
        with contextlib.suppress(NoPostgresError):  # a private one may still be had
            return PostgresContainer()
    return start_private_postgres()


def start_private_postgres(*, fsync: bool = False) -> PrivatePostgres:
    """Start a cluster that a test may kill, installing PostgreSQL first if it must and may.

    Args:
        fsync: whether commits reach the disk, as in earnest.

    Raises:
        NoPostgresError: it is missing, and may not be installed.
    """
    if find_programs() is None:
        if not can_install():
            raise NoPostgresError(
                f"these tests need a PostgreSQL (12 or later): set {URL_VARIABLE}, run a Docker "
                "engine, or install Debian's package postgresql; as root on Debian the tests do "
                f"that by themselves, unless {INSTALL_VARIABLE}=0"
            )
        try:
            install("postgresql", find_programs)
        except NotInstalledError as error:
            raise NoPostgresError(str(error)) from error
    return PrivatePostgres(fsync=fsync)
